package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

// shown are the host's paths that every sandbox sees, read-only, where the host has them: programs and libraries; what the
// loader, name lookup and time zones need; the CPU and memory topology, which thread libraries read.
var shown = []string{
	"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
	"/etc/alternatives", "/etc/ld.so.cache", "/etc/nsswitch.conf", "/etc/hosts", "/etc/host.conf", "/etc/resolv.conf", "/etc/services", "/etc/localtime",
	"/etc/libibverbs.d", "/sys/devices/system/cpu", "/sys/devices/system/node", "/sys/class/infiniband", "/sys/class/infiniband_verbs",
	"/sys/kernel/mm/transparent_hugepage", // the C library looks here before it asks for large pages
}

// makeSkeleton makes the folder that is the root of all sandboxes: mount points, and at the top links as the host has them. It holds no
// content, is mounted read-only, and is made again for each sandbox. It returns what of the host is mounted there.
func makeSkeleton(root string) (host []string, err error) {
	var errs []error
	for _, dir := range []string{"/etc", "/dev", "/proc", "/sys", "/tmp", "/gleaner", "/run/gleaner/agent", "/run/gleaner/self"} {
		errs = append(errs, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	for _, path := range shown {
		at := filepath.Join(root, path)
		if target, err := os.Readlink(path); err == nil && filepath.Dir(path) == "/" {
			_ = os.Symlink(target, at) // fails where it is already
			continue
		}
		info, err := os.Stat(path)
		if err == nil {
			host = append(host, path)
		}
		if strings.HasPrefix(path, "/sys/") || err == nil && info.IsDir() { // the former may come later, with a driver
			errs = append(errs, os.MkdirAll(at, 0o755))
		} else if err == nil {
			errs = append(errs, touch(at))
		}
	}
	return host, errors.Join(append(errs, touch(filepath.Join(root, "/etc/passwd")), touch(filepath.Join(root, "/etc/group")))...)
}

// touch makes an empty file, for others to be mounted on.
func touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	return errors.Join(err, f.Close())
}

// makeNames writes the sandbox's passwd and group files where only root can: what is mounted from a folder of the tenant's could be a
// link.
func (m *Manager) makeNames(s launcher.Spec) error {
	passwd := fmt.Sprintf("root:x:0:0::/:/bin/false\nu%d:x:%d:%d::/tmp:/bin/sh\n", s.UID, s.UID, s.GID)
	group := fmt.Sprintf("root:x:0:\ng%d:x:%d:\n", s.GID, s.GID)
	dir := m.states(s.ID)
	return errors.Join(os.WriteFile(dir+"/passwd", []byte(passwd), 0o644), os.WriteFile(dir+"/group", []byte(group), 0o644))
}

// selfBytes is the size of the folder that sandbox and host share.
const selfBytes = 256 << 10

// makeSelf makes that folder: a small file system of its own, so that what is written there fills nothing of the host's, owned by the
// executor's user. It also holds the executor's standard output and error.
func makeSelf(dir string, s launcher.Spec) (*os.File, error) {
	if err := mountTmp(dir, fmt.Sprintf("size=%d,nr_inodes=64,mode=0700,uid=%d,gid=%d", selfBytes, s.UID, s.GID)); err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
}

// mountTmp makes a folder on the host with a file system of its own.
func mountTmp(dir, options string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return os.NewSyscallError("mount "+dir, unix.Mount("gleaner", dir, "tmpfs", quiet|unix.MS_NOEXEC, options))
}

// unmount undoes mountTmp, with all that is mounted below. The folder's content may be the tenant's: nothing in it is opened or followed.
func unmount(dir string) error {
	var err error
	for err == nil { // once for each time that it was mounted
		err = unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	if err == unix.EINVAL { // no mount any more
		err = unix.Rmdir(dir)
	}
	if err == unix.ENOENT {
		return nil
	}
	return os.NewSyscallError("unmount "+dir, err)
}

// Files of the owner's. Nothing beneath a user's folder is opened as root: a thread with the user's ids, and none of root's rights over
// files, opens what is asked for, and follows no link on the way. What it got is mounted, whatever the path leads to by then; that
// also works where root is nobody (root_squash).

// stage mounts what the spec binds below binds(id), and says how the sandbox mounts it from there, until unmount. What mounts itself below
// a source is not seen.
func (m *Manager) stage(s launcher.Spec) (all []*configs.Mount, err error) {
	if len(s.Binds) > 0 {
		err = mountTmp(m.binds(s.ID), "size=64k,mode=0700")
	}
	tops := map[string]bool{}
	for i, b := range s.Binds {
		at := filepath.Join(m.binds(s.ID), strconv.Itoa(i))
		if t := "/" + strings.Split(b.Target, "/")[1]; !tops[t] {
			tops[t] = true
			err = errors.Join(err, os.MkdirAll(filepath.Join(m.root(), t), 0o755))
			all = append(all, tmpfs(t, quiet|unix.MS_NOEXEC, "mode=755,size=64k,nr_inodes=256"))
		}
		if err == nil {
			err = stageOne(s, b, at)
		}
		if err != nil {
			return nil, fmt.Errorf("bind %s: %w", b.Source, err)
		}
		flags := unix.MS_RDONLY
		if b.Writable {
			flags = 0
		}
		all = append(all, bind(at, b.Target, flags))
	}
	return all, nil
}

func stageOne(s launcher.Spec, b launcher.Bind, at string) error {
	source, info, err := openAs(s, b.Source)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	tree, err := unix.OpenTree(int(source.Fd()), "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open_tree: %w", err)
	}
	defer func() { _ = unix.Close(tree) }()
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}
	if !b.Writable {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("mount_setattr: %w", err)
	}
	if info.IsDir() {
		err = os.Mkdir(at, 0o700)
	} else {
		err = touch(at)
	}
	return errors.Join(err, unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH))
}

// openAs opens a folder or regular file with the rights of the sandbox's user, for nothing but its place. The thread that does so ends with it:
// goroutines that stay locked take theirs along.
func openAs(s launcher.Spec, path string) (f *os.File, info os.FileInfo, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err = become(s); err != nil {
			return
		}
		how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
		fd, errno := unix.Openat2(unix.AT_FDCWD, path, &how)
		if err = errno; err == nil {
			f = os.NewFile(uintptr(fd), path)
			info, err = f.Stat()
		}
	}()
	<-done
	if err == nil && !info.IsDir() && !info.Mode().IsRegular() {
		err = errors.New("neither a folder nor a regular file")
	}
	if err != nil {
		_ = f.Close()
	}
	return f, info, err
}

// become gives the calling thread, and no other, the user's groups and ids for all that concerns files. The kernel takes root's rights over
// files from it with that.
func become(s launcher.Spec) error {
	err := errors.Join(unix.Setgroups(ints(s.Groups)), unix.Setfsgid(int(s.GID)), unix.Setfsuid(int(s.UID)))
	if uid, _ := unix.SetfsuidRetUid(-1); err == nil && uid != int(s.UID) {
		err = fmt.Errorf("become user %d: %w", s.UID, unix.EPERM)
	}
	return err
}

func ints(ids []uint32) []int {
	all := make([]int, len(ids))
	for i, id := range ids {
		all[i] = int(id)
	}
	return all
}
