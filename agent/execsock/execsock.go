// Package execsock serves the Unix socket that executors dial from inside their sandboxes (package api/executor). Whose sandbox a
// connection comes from is told by the kernel and the cgroup of the process, never by what it says; a sandbox has one connection,
// the latest. What executors say goes to the agent's event loop; what they are told goes out without waiting for a reader.
package execsock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/agent/peer"
	"github.com/gleaner-hpc/gleaner/api/executor"
	"github.com/gleaner-hpc/gleaner/api/jsonframe"
)

// Event is what one executor did. Exactly one of Frame and Closed is set.
type Event struct {
	Link   *Link
	Frame  *executor.FromExecutor
	Closed bool
}

// Link is the connection of one sandbox.
type Link struct {
	ID  string // of the sandbox
	UID uint32
	PID int32

	conn *net.UnixConn
	mu   sync.Mutex // one frame at a time
}

// Send writes one frame. It waits for nobody: an executor whose socket is full, because it does not read, loses its connection. Frames are
// smaller than a socket's buffer, so that only a hostile one ever does.
func (l *Link) Send(f executor.FromAgent) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := jsonframe.Write(atOnce{l.conn}, f); err != nil {
		_ = l.conn.Close()
		return fmt.Errorf("send to executor %s: %w", l.ID, err)
	}
	return nil
}

// atOnce writes what the socket takes now. A deadline would not do: on a busy machine it passes before the write is tried.
type atOnce struct{ conn *net.UnixConn }

func (w atOnce) Write(b []byte) (n int, err error) {
	raw, err := w.conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	failed := raw.Write(func(fd uintptr) bool {
		n, err = unix.SendmsgN(int(fd), b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		return true
	})
	if err = errors.Join(failed, err); err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return n, err
}

// Close ends the connection.
func (l *Link) Close() { _ = l.conn.Close() }

// Identify tells which sandbox a process is in, and as which user of the host it runs there.
type Identify func(peer unix.Ucred) (id string, uid uint32, err error)

// ByCgroup identifies sandboxes of a node by /proc/PID/cgroup.
func ByCgroup(node string) Identify {
	return func(cred unix.Ucred) (string, uint32, error) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", cred.Pid))
		if err != nil {
			return "", 0, fmt.Errorf("identify executor: %w", err)
		}
		id, ok := peer.Sandbox(string(text), node)
		if !ok {
			return "", 0, fmt.Errorf("identify executor: process %d of uid %d is in no sandbox of node %s", cred.Pid, cred.Uid, node)
		}
		return id, cred.Uid, nil
	}
}

// Config says where to listen and whom to tell.
type Config struct {
	Path     string
	Identify Identify
	Events   chan<- Event // the event loop's
	Log      *slog.Logger
}

// Server listens on one socket.
type Server struct {
	cfg Config
	l   *peer.Listener

	mu    sync.Mutex
	links map[string]*Link // by sandbox
}

// Path is where the executors' socket is below the launcher's run directory. The launcher makes its folder, which no other user of the
// node can enter, and shows it to sandboxes.
func Path(runDir string) string { return filepath.Join(runDir, "agent", "sockets", "executors.sock") }

// Listen makes the socket. It is open to every user of the node, since executors run as their owners.
func Listen(cfg Config) (*Server, error) {
	l, err := peer.Keep(cfg.Path, 0o666)
	if err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, l: l, links: map[string]*Link{}}, nil
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	var refused int
	var said time.Time
	return s.l.Serve(ctx, s.cfg.Log, func(conn *net.UnixConn) {
		link, err := s.admit(conn)
		if err == nil {
			wg.Go(func() { s.read(ctx, link) })
			return
		}
		_ = conn.Close()
		// Any user of the node may come here as often as he likes: the log does not grow with that.
		if refused++; time.Since(said) >= time.Second {
			s.cfg.Log.Warn("executor's connection refused", "error", err, "refused", refused)
			refused, said = 0, time.Now()
		}
	})
}

// admit identifies a connection; it replaces the one that its sandbox had.
func (s *Server) admit(conn *net.UnixConn) (*Link, error) {
	cred, err := peer.Credentials(conn)
	if err != nil {
		return nil, err
	}
	id, uid, err := s.cfg.Identify(*cred)
	if err != nil {
		return nil, err
	}
	link := &Link{ID: id, UID: uid, PID: cred.Pid, conn: conn}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.links[id]; old != nil {
		old.Close()
	}
	s.links[id] = link
	return link, nil
}

func (s *Server) read(ctx context.Context, link *Link) {
	stop := context.AfterFunc(ctx, link.Close)
	defer stop()
	for {
		var f executor.FromExecutor
		err := jsonframe.Read(link.conn, &f)
		event := Event{Link: link, Frame: &f}
		if err != nil {
			link.Close()
			s.mu.Lock()
			if s.links[link.ID] == link {
				delete(s.links, link.ID)
			}
			s.mu.Unlock()
			event = Event{Link: link, Closed: true}
		}
		select {
		case s.cfg.Events <- event:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}
