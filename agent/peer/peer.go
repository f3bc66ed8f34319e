// Package peer makes Unix stream sockets and says who is at their other end, by what the kernel recorded when the connection was
// made: never by what the peer says.
package peer

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Listen makes a socket at path with the given mode. A socket that nobody listens on any more is replaced; one that somebody
// does listen on is an error.
func Listen(path string, mode fs.FileMode) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of socket %s: %w", path, err)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("listen on %s: another process listens there; is an agent of this node running already?", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove stale socket %s: %w", path, err)
	}
	// Made aside and renamed, the socket never exists with another mode.
	aside := fmt.Sprintf("%s.%d", path, os.Getpid())
	_ = os.Remove(aside)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: aside, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(aside, mode)
	if err == nil {
		err = os.Rename(aside, path)
	}
	if err != nil {
		_ = l.Close()
		_ = os.Remove(aside)
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// Credentials returns pid, uid and gid of the process that connected.
func Credentials(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("peer credentials: %w", err)
	}
	var cred *unix.Ucred
	var opt error
	if err := raw.Control(func(fd uintptr) { cred, opt = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return nil, fmt.Errorf("peer credentials: %w", err)
	}
	if opt != nil {
		return nil, fmt.Errorf("peer credentials: %w", opt)
	}
	return cred, nil
}

// Sandbox returns the id of node's sandbox that a process belongs to, from the text of /proc/PID/cgroup: the component behind the
// node's name in a path <parent>/<node>/<id>[/…]. ok is false when no line has one, or two lines name different ones.
func Sandbox(cgroups, node string) (id string, ok bool) {
	for line := range strings.Lines(cgroups) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 {
			continue
		}
		path := strings.Split(parts[2], "/")
		for i := 2; i+1 < len(path); i++ {
			if path[i] != node {
				continue
			}
			if found := path[i+1]; id != "" && id != found {
				return "", false
			} else if found != "" {
				id = found
			}
			break
		}
	}
	return id, id != ""
}
