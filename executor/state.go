package executor

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	maxConnections = 64
	runRunning     = 1
	runCondemned   = 2
)

// page mirrors struct gf_state of fabric/wire.h: what the worker says about itself without being asked.
type page struct {
	run         atomic.Uint64
	connection  atomic.Uint64
	seq         atomic.Uint64
	deadline    atomic.Int64
	loaded      atomic.Uint32
	faultSignal atomic.Uint32
	faultGuard  atomic.Uint32
	wakeAsleep  atomic.Uint32
	commands    atomic.Uint32
	reserved    uint32
	invocations atomic.Uint64
	busyNS      atomic.Uint64
	spinNS      atomic.Uint64
	begun       [maxConnections]atomic.Uint64
}

// request names one request of one connection.
type request struct {
	connection uint32
	seq        uint64
}

// sharedPage is a page in a memfd that worker processes map; each worker gets one of its own.
type sharedPage struct {
	*page
	memory []byte
	file   *os.File
}

func newSharedPage() (*sharedPage, error) {
	file, err := memfd("gleaner-state")
	if err != nil {
		return nil, err
	}
	size := os.Getpagesize()
	if err := file.Truncate(int64(size)); err != nil {
		return nil, fmt.Errorf("size state page: %w", err)
	}
	if err := seal(file, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW); err != nil { // a shorter one would be a fault in the supervisor
		return nil, err
	}
	memory, err := unix.Mmap(int(file.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map state page: %w", err)
	}
	return &sharedPage{page: (*page)(unsafe.Pointer(&memory[0])), memory: memory, file: file}, nil
}

func (s *sharedPage) close() {
	_ = unix.Munmap(s.memory)
	_ = s.file.Close()
}

func memfd(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("create memfd %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// seal fixes what is named, and the set of seals.
func seal(file *os.File, what int) error {
	if _, err := unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, what|unix.F_SEAL_SEAL); err != nil {
		return fmt.Errorf("seal memfd %s: %w", file.Name(), err)
	}
	return nil
}

// running is the request that the worker has begun and not ended, and its deadline on the monotonic clock, 0 for none.
func (p *page) running() (r request, deadline int64, generation uint64, ok bool) {
	run := p.run.Load()
	r = request{connection: uint32(p.connection.Load()), seq: p.seq.Load()}
	deadline = p.deadline.Load()
	return r, deadline, run, run&runRunning != 0 && p.run.Load() == run
}

// condemn takes the request of that generation from the worker; false when it has ended meanwhile.
func (p *page) condemn(generation uint64) bool {
	return p.run.CompareAndSwap(generation, generation|runCondemned)
}

// monotonic is the clock of deadlines in the state page.
func monotonic() int64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) != nil {
		return 0
	}
	return t.Nano()
}

// tick is how long the supervisor may wait before it looks at the deadline again.
const tick = 10 * time.Millisecond
