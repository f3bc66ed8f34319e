package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"unsafe"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

// ErrFixed says that a Resize asks for what a sandbox keeps for life.
var ErrFixed = errors.New("user, groups, devices and binds of a sandbox cannot be changed")

// Resize gives the sandbox of this id other cores, memory, /tmp and process limits. Its figures (CPU time, start) count from now
// on. What fails leaves the sandbox with limits that may be of either kind: the caller ends it.
func (m *Manager) Resize(ctx context.Context, spec launcher.Spec) error {
	spec, err := admit(spec, m.cfg.Devices)
	if err != nil {
		return err
	}
	b := m.find(spec.ID)
	if b == nil {
		return fmt.Errorf("%w: %s", ErrNotFound, spec.ID)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-b.ready:
	}
	if b.container == nil {
		return fmt.Errorf("%w: %s", ErrNotFound, spec.ID)
	}
	b.resizing.Lock()
	defer b.resizing.Unlock()
	old := b.current()
	if old.UID != spec.UID || old.GID != spec.GID || !slices.Equal(old.Groups, spec.Groups) || len(old.Devices)+len(spec.Devices)+len(old.Binds)+len(spec.Binds) > 0 {
		return fmt.Errorf("resize sandbox %s: %w", spec.ID, ErrFixed)
	}
	if err := errors.Join(limit(b.container, spec), growTmp(b.pid, spec)); err != nil {
		return fmt.Errorf("resize sandbox %s: %w", spec.ID, err)
	}
	b.adopted(spec, b.group.cpuNanos())
	return m.remember(b)
}

// limit writes the limits of a cgroup anew; device rules stay.
func limit(c *libcontainer.Container, spec launcher.Spec) error {
	config := c.Config()
	group := *config.Cgroups
	rules := group.Resources.Devices
	group.Resources = resources(spec, rules)
	group.SkipDevices = true
	config.Cgroups = &group
	return c.Set(config)
}

// growTmp sizes /tmp and /dev/shm in the mount namespace of a process. Nothing but the setup can mount anything there, so that the
// paths lead where they led then.
func growTmp(pid int, spec launcher.Spec) error {
	for _, dir := range []string{"/tmp", "/dev/shm"} {
		path := fmt.Sprintf("/proc/%d/root%s", pid, dir)
		if err := resizeTmpfs(path, tmpBytes(spec)); err != nil {
			return &os.PathError{Op: "resize", Path: path, Err: err}
		}
	}
	return nil
}

func resizeTmpfs(path string, bytes int64) error {
	at := unix.AT_FDCWD
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	fd, _, errno := unix.Syscall(unix.SYS_FSPICK, uintptr(at), uintptr(unsafe.Pointer(name)), unix.FSPICK_CLOEXEC|unix.FSPICK_NO_AUTOMOUNT)
	if errno != 0 {
		return errno
	}
	defer func() { _ = unix.Close(int(fd)) }()
	if err := unix.FsconfigSetString(int(fd), "size", strconv.FormatInt(bytes, 10)); err != nil {
		return err
	}
	return unix.FsconfigReconfigure(int(fd))
}
