package sandbox

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/runc/libcontainer/system"
	"golang.org/x/sys/unix"
)

// Kill ends sandboxes, all at the same time. It returns when their processes are gone and their memory is free, or at ctx's end with
// those that remain. Ids that do not exist count as ended.
func (m *Manager) Kill(ctx context.Context, ids ...string) (remaining []string, err error) {
	var boxes []*box
	for _, id := range ids {
		if b := m.find(id); b != nil {
			b.strike()
			boxes = append(boxes, b)
		}
	}
	m.rush(1)
	defer m.rush(-1)
	var wg sync.WaitGroup
	for _, b := range boxes {
		wg.Go(func() { b.end(ctx) })
	}
	wg.Wait()
	for _, b := range boxes {
		if !closed(b.dead) {
			remaining = append(remaining, b.id)
		}
	}
	return remaining, nil
}

// rush counts the kills that are under way, and weighs the node's cgroups by whether there is one.
func (m *Manager) rush(more int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch m.kills.Add(more) {
	case 0:
		m.weigh(last)
	case more:
		m.weigh(among)
	}
}

// strike kills the first process, whose death is everybody's in its pid namespace: no list has to be read for it. It takes
// microseconds, so that the last of many sandboxes is struck as soon as the first.
func (b *box) strike() {
	b.doomed.Store(true)
	if !closed(b.ready) {
		return
	}
	if raw, err := b.pidfd.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
	}
}

const (
	strikeAlone  = 3 * time.Millisecond // for the first strike, before the rest is tried too
	largeSandbox = 64 << 20             // bytes from which on several sides free its memory
)

// end kills the box, again and again until it is dead; one that is just starting as soon as it has started. The first strike is
// enough for most: what else can be done costs CPUs that the dying need, and comes when they are not dead soon, or are large.
func (b *box) end(ctx context.Context) {
	select {
	case <-b.ready:
	case <-ctx.Done():
		return
	}
	b.strike()
	b.group.wake()
	pause := strikeAlone
	if charged, _ := b.group.memory(); charged >= largeSandbox {
		pause = 0
	}
	for ; ; pause = min(max(2*pause, 5*time.Millisecond), 50*time.Millisecond) {
		select {
		case <-b.dead:
			return
		case <-ctx.Done():
			return
		case <-time.After(pause):
			b.group.kill()
		}
	}
}

// release frees a dying process's memory from this side, at the same time as the process does so itself. The kernel refuses it
// for a process that is not dying, so that a pid used again is in no danger.
func release(pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(fd) }()
	for errno := unix.EAGAIN; errno == unix.EAGAIN || errno == unix.EINTR; {
		_, _, errno = unix.Syscall(unix.SYS_PROCESS_MRELEASE, uintptr(fd), 0, 0)
	}
}

// reapStages takes away the zombies of starts that failed early. libcontainer's first stage makes the second one our child and tells
// its pid only when all went well; nobody else waits for it then. It is called after a failed start.
func reapStages() {
	files, _ := filepath.Glob("/proc/self/task/*/children")
	for _, file := range files {
		children, _ := os.ReadFile(file)
		for field := range strings.FieldsSeq(string(children)) {
			pid, _ := strconv.Atoi(field)
			if stat, err := system.Stat(pid); err == nil && stat.State == system.Zombie && stat.Name == "runc:[1:CHILD]" {
				_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
			}
		}
	}
}
