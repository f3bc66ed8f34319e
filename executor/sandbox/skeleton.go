package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

// shown are the host's paths that every sandbox sees, read-only, where the host has them: programs and libraries; what the
// loader, name lookup and time zones need; the CPU and memory topology, which thread libraries read.
var shown = []string{
	"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
	"/etc/alternatives", "/etc/ld.so.cache", "/etc/nsswitch.conf", "/etc/hosts", "/etc/host.conf", "/etc/resolv.conf", "/etc/services",
	"/etc/localtime", "/etc/libibverbs.d",
	"/sys/devices/system/cpu", "/sys/devices/system/node", "/sys/class/infiniband", "/sys/class/infiniband_verbs",
	"/sys/kernel/mm/transparent_hugepage", // the C library looks here before it asks for large pages
}

// hostPaths are those of shown that are mounted. /bin and the like are links on most hosts, which the skeleton copies.
func hostPaths() []string {
	var all []string
	for _, path := range shown {
		info, err := os.Lstat(path)
		if err != nil || info.Mode()&os.ModeSymlink != 0 && isTop(path) {
			continue
		}
		if _, err := os.Stat(path); err == nil { // a link that leads nowhere is no source of a mount
			all = append(all, path)
		}
	}
	return all
}

func isTop(path string) bool { return strings.Count(path, "/") == 1 }

// rootOf is what a sandbox has for its root: the host's programs on the skeleton, or an image that the images helper has mounted.
func (m *Manager) rootOf(s launcher.Spec) string {
	if s.Image == "" {
		return m.root()
	}
	return filepath.Join(m.cfg.RunDir, "images", s.Image)
}

// makeSkeleton makes the folder that is the root of all sandboxes: mount points, and links as the host has them. It holds no
// content, is mounted read-only, and may be made again while sandboxes use it.
func makeSkeleton(root string) error {
	for _, dir := range []string{"/etc", "/dev", "/proc", "/sys", "/tmp", "/gleaner", "/run/gleaner/agent", "/run/gleaner/self"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return fmt.Errorf("make sandbox root: %w", err)
		}
	}
	for _, path := range shown {
		if strings.HasPrefix(path, "/sys/") { // which may come later, with a driver
			if err := os.MkdirAll(filepath.Join(root, path), 0o755); err != nil {
				return fmt.Errorf("make sandbox root: %w", err)
			}
		}
	}
	points := append(hostPaths(), "/etc/passwd", "/etc/group")
	for _, path := range points {
		if err := makePoint(root, path); err != nil {
			return fmt.Errorf("make sandbox root: %w", err)
		}
	}
	for _, path := range shown {
		target, err := os.Readlink(path)
		if err != nil || !isTop(path) {
			continue
		}
		if err := os.Symlink(target, filepath.Join(root, path)); err != nil && !os.IsExist(err) {
			return fmt.Errorf("make sandbox root: %w", err)
		}
	}
	return nil
}

// makePoint makes what path can be mounted on: a folder or an empty file.
func makePoint(root, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	at := filepath.Join(root, path)
	if info.IsDir() {
		return os.MkdirAll(at, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(at, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// makeNames writes the passwd and group files for one pair of ids, which all their sandboxes share, and returns the files' common
// beginning. Only root can write where they are: what is mounted from a folder of the tenant's could be a link.
func makeNames(dir string, uid, gid uint32) (string, error) {
	names := filepath.Join(dir, fmt.Sprintf("%d.%d", uid, gid))
	for suffix, text := range map[string]string{
		".passwd": fmt.Sprintf("root:x:0:0::/:/bin/false\nu%d:x:%d:%d::/tmp:/bin/sh\n", uid, uid, gid),
		".group":  fmt.Sprintf("root:x:0:\ng%d:x:%d:\n", gid, gid),
	} {
		path := names + suffix
		if _, err := os.Stat(path); err == nil {
			continue
		}
		f, err := os.CreateTemp(dir, "new")
		if err != nil {
			return "", fmt.Errorf("name ids: %w", err)
		}
		_, err = f.WriteString(text)
		if err := errors.Join(err, f.Chmod(0o644), f.Close(), os.Rename(f.Name(), path)); err != nil {
			return "", fmt.Errorf("name ids: %w", err)
		}
	}
	return names, nil
}

// makeSelf makes the folder that sandbox and host share: a small file system of its own, so that what is written there fills nothing
// of the host's, owned by the executor's user. It also holds the executor's standard output and error.
func makeSelf(dir string, s launcher.Spec) (*os.File, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make executor's folder: %w", err)
	}
	options := fmt.Sprintf("size=256k,nr_inodes=64,mode=0700,uid=%d,gid=%d", s.UID, s.GID)
	if err := unix.Mount("gleaner", dir, "tmpfs", quiet|unix.MS_NOEXEC, options); err != nil {
		return nil, fmt.Errorf("mount executor's folder %s: %w", dir, err)
	}
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("fill executor's folder: %w", err)
	}
	return log, nil
}

// removeSelf undoes makeSelf. The folder's content is the tenant's: nothing in it is opened or followed.
func removeSelf(dir string) error {
	for {
		err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err == nil {
			continue // once for each time that it was mounted
		}
		if err != unix.EINVAL && err != unix.ENOENT {
			return &os.PathError{Op: "unmount", Path: dir, Err: err}
		}
		break
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove executor's folder: %w", err)
	}
	return nil
}
