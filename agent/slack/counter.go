package slack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// openCounter is a counter of the kernel's.
type openCounter struct{ f *os.File }

// OpenCounter opens a counter that counts on its CPU whatever runs there (perf_event_open(2)). That wants CAP_PERFMON, or
// kernel.perf_event_paranoid at 0 or below. Without either the kernel is not asked: it would end the agent where a unit's list of system
// calls is from before the agent counted.
func OpenCounter(e Event) (Counter, error) {
	if err := mayCount(); err != nil {
		return nil, err
	}
	attr := unix.PerfEventAttr{
		Type: e.Type, Size: unix.PERF_ATTR_SIZE_VER1, Config: e.Config[0], Ext1: e.Config[1], Ext2: e.Config[2],
		Read_format: unix.PERF_FORMAT_TOTAL_TIME_ENABLED | unix.PERF_FORMAT_TOTAL_TIME_RUNNING,
	}
	fd, err := unix.PerfEventOpen(&attr, -1, e.CPU, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("perf_event_open: %w", err)
	}
	return openCounter{os.NewFile(uintptr(fd), "perf")}, nil
}

// mayCount says why this process may not count.
func mayCount() error {
	text, err := os.ReadFile("/proc/sys/kernel/perf_event_paranoid")
	if err != nil {
		return errors.New("the kernel has no perf")
	}
	paranoid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err == nil && paranoid <= 0 {
		return nil
	}
	var sets [2]unix.CapUserData // of 32 capabilities each
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &sets[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	for _, c := range []uint{unix.CAP_PERFMON, unix.CAP_SYS_ADMIN} {
		if sets[c/32].Effective&(1<<(c%32)) != 0 {
			return nil
		}
	}
	return errors.New("the agent has no CAP_PERFMON")
}

// Read is one read of 24 bytes: value, time enabled, time running.
func (c openCounter) Read() (Count, error) {
	var b [24]byte
	n, err := unix.Read(int(c.f.Fd()), b[:])
	if err != nil || n != len(b) {
		return Count{}, fmt.Errorf("read a counter: %d bytes, %w", n, err)
	}
	return Count{binary.NativeEndian.Uint64(b[:]), binary.NativeEndian.Uint64(b[8:]), binary.NativeEndian.Uint64(b[16:])}, nil
}

func (c openCounter) Close() error { return c.f.Close() }
