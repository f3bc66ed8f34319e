package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"unsafe"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

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
		at := m.binds(s.ID, strconv.Itoa(i))
		if t := top(b.Target); !tops[t] {
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
	source, folder, err := openAs(s, b.Source)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(source) }()
	tree, err := unix.OpenTree(source, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
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
	if folder {
		err = os.Mkdir(at, 0o700)
	} else {
		err = os.WriteFile(at, nil, 0o600)
	}
	if err != nil {
		return err
	}
	return unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// openAs opens a folder or regular file with the rights of the sandbox's user, for nothing but its place. The thread that does so ends with it:
// goroutines that stay locked take theirs along.
func openAs(s launcher.Spec, path string) (fd int, folder bool, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err = become(s); err != nil {
			return
		}
		how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
		if fd, err = unix.Openat2(unix.AT_FDCWD, path, &how); err != nil {
			if errors.Is(err, unix.ELOOP) {
				err = errors.New("a symbolic link is in the way: name the real path")
			}
			return
		}
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Mode&unix.S_IFMT != unix.S_IFREG {
			err = errors.New("neither a folder nor a regular file")
		}
		folder = st.Mode&unix.S_IFMT == unix.S_IFDIR
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	<-done
	return fd, folder, err
}

// become gives the calling thread the user's groups and ids for all that concerns files. The kernel takes root's rights over files
// from it with that.
func become(s launcher.Spec) error {
	groups := s.Groups
	if len(groups) == 0 {
		groups = []uint32{s.GID}
	}
	// The raw call: package syscall's would change every thread.
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0); errno != 0 {
		return fmt.Errorf("take groups %v: %w", groups, errno)
	}
	if err := errors.Join(unix.Setfsgid(int(s.GID)), unix.Setfsuid(int(s.UID))); err != nil {
		return err
	}
	if uid, err := unix.SetfsuidRetUid(-1); err != nil || uid != int(s.UID) {
		return fmt.Errorf("become user %d: %w", s.UID, errors.Join(err, unix.EPERM))
	}
	return nil
}
