package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

// box is one sandbox, from the moment its id is taken until every trace of it is gone.
//
//	Start ──▶ ready ──▶ (the executor runs) ──▶ dead ──▶ gone
//	   └── fails: ready, dead and gone at once
type box struct {
	id    string
	ready chan struct{} // closed when the start is over; what is below is set by then and constant
	dead  chan struct{} // closed when its processes are gone and their memory is free
	gone  chan struct{} // closed when cgroup and folders are gone and Exited is sent

	container *libcontainer.Container // nil when the start failed
	child     *libcontainer.Process   // nil when adopted
	group     group
	pid       int
	log       *os.File // nil when adopted
	pidfd     *os.File
	mounts    *os.File // keeps the mount namespace when the last process has gone; nil when it could not be opened

	resizing sync.Mutex

	mu     sync.Mutex
	doomed bool // killed by us
	memo
}

// memo is what a later Manager has to know, beside what libcontainer keeps.
type memo struct {
	Spec    launcher.Spec `json:"spec"`
	Started time.Time     `json:"started"` // or its last Resize
	Before  uint64        `json:"before"`  // CPU nanoseconds that it had used by then
}

// current is the sandbox's spec.
func (b *box) current() launcher.Spec {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Spec
}

// adopted gives the sandbox another spec; its figures count from here.
func (b *box) adopted(spec launcher.Spec, used uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.memo = memo{Spec: spec, Started: now(), Before: used}
}

// note is what is to be remembered of the sandbox.
func (b *box) note() memo {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.memo
}

// used is the CPU time in nanoseconds that counts.
func (b *box) used(since memo) uint64 {
	total := b.group.cpuNanos()
	return total - min(total, since.Before)
}

func newBox(spec launcher.Spec, started time.Time) *box {
	return &box{id: spec.ID, memo: memo{Spec: spec, Started: started}, ready: make(chan struct{}), dead: make(chan struct{}), gone: make(chan struct{})}
}

// Start creates and starts one sandbox. It returns the executor's pid on the host as soon as that runs.
func (m *Manager) Start(ctx context.Context, spec launcher.Spec) (int, error) {
	spec, err := admit(spec, m.cfg.Devices)
	if err != nil {
		return 0, err
	}
	b := newBox(spec, now())
	m.mu.Lock()
	taken := m.boxes[spec.ID] != nil
	if !taken {
		m.boxes[spec.ID] = b
	}
	m.mu.Unlock()
	if taken {
		return 0, fmt.Errorf("%w: %s", ErrExists, spec.ID)
	}
	if err = m.open(ctx); err == nil {
		err = m.launch(ctx, b)
	}
	if err != nil {
		b.group.kill()
		b.container = nil
		m.wipe(b)
		reapStages()
		close(b.ready)
		close(b.dead)
		close(b.gone)
		return 0, fmt.Errorf("start sandbox %s: %w", spec.ID, err)
	}
	close(b.ready)
	m.watch(b)
	return b.pid, nil
}

func (m *Manager) launch(ctx context.Context, b *box) error {
	spec := b.current()
	self := filepath.Join(m.selves(), b.id)
	names, err := makeNames(m.names(), spec.UID, spec.GID)
	if err != nil {
		return err
	}
	if b.log, err = makeSelf(self, spec); err != nil {
		return err
	}
	binds, err := m.stage(spec)
	defer func() {
		if err := m.unstage(b.id); err != nil {
			m.cfg.Log.Error("clean up binds", "task", b.id, "error", err)
		}
	}()
	if err != nil {
		return err
	}
	config, err := m.container(spec, self, names)
	if err != nil {
		return err
	}
	config.Mounts = append(config.Mounts, binds...)
	if b.container, err = libcontainer.Create(m.states(), b.id, config); err != nil {
		return err
	}
	if err := m.remember(b); err != nil {
		return err
	}
	b.child = m.process(b)
	if err = b.container.Start(b.child); err == nil {
		if err = m.open(ctx); err == nil { // now that a gate's force meets it
			err = b.container.Exec()
		}
		if err != nil {
			_ = b.child.Signal(unix.SIGKILL)
			_, _ = b.child.Wait()
		}
	}
	if state, serr := b.container.State(); serr == nil {
		b.group = maps.Clone(group(state.CgroupPaths))
	}
	if err != nil {
		return err
	}
	m.weigh(last)
	if b.pid, err = b.child.Pid(); err != nil {
		return err
	}
	b.pidfd, err = openPidfd(b.pid)
	b.keepMounts()
	return err
}

// keepMounts holds the sandbox's mount namespace. Otherwise the last process would take it apart before it is seen to be dead, a
// millisecond each and one sandbox after the other, while a job waits; so wipe does it once the kill has been answered.
func (b *box) keepMounts() {
	b.mounts, _ = os.Open(fmt.Sprintf("/proc/%d/ns/mnt", b.pid))
}

// dropMounts lets the file systems go, and what is in them with the memory that they hold.
func (b *box) dropMounts() { _ = b.mounts.Close() }

func (m *Manager) process(b *box) *libcontainer.Process {
	spec := b.current()
	args := make([]string, len(m.cfg.Command))
	for i, a := range m.cfg.Command {
		args[i] = strings.ReplaceAll(a, "%i", b.id)
	}
	groups := make([]int, len(spec.Groups))
	for i, g := range spec.Groups {
		groups[i] = int(g)
	}
	return &libcontainer.Process{
		Init: true, Args: args, Cwd: "/tmp", UID: int(spec.UID), GID: int(spec.GID), AdditionalGroups: groups,
		Env: []string{
			"PATH=/usr/bin:/bin", "HOME=/tmp", "TMPDIR=/tmp", "LANG=C.UTF-8", "USER=u" + strconv.Itoa(int(spec.UID)),
			"GLEANER_INSTANCE_ID=" + b.id,
		},
		Stdout: b.log, Stderr: b.log,
	}
}

func (m *Manager) remember(b *box) error {
	text, err := json.Marshal(b.note())
	if err != nil {
		return err
	}
	return os.WriteFile(m.memoPath(b.id), text, 0o600)
}

func (m *Manager) memoPath(id string) string { return filepath.Join(m.states(), id, "gleaner.json") }

// openPidfd gives a descriptor on which the runtime can wait, without a thread, for the end of a process.
func openPidfd(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch process %d: %w", pid, err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// awaitExit blocks until the process has ended. It reports false when the descriptor was closed before.
func awaitExit(pidfd *os.File) bool {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return false
	}
	return raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return n > 0 || err != nil && err != unix.EINTR
	}) == nil
}

// abandon ends the watch without ending the sandbox.
func (b *box) abandon() {
	select {
	case <-b.ready:
		if b.pidfd != nil {
			_ = b.pidfd.Close()
		}
		b.dropMounts()
	default:
	}
}

// watch waits for the end of a sandbox that runs, and reports it. The first process's end is everybody's: with it the kernel kills
// the whole pid namespace before anybody is told.
func (m *Manager) watch(b *box) {
	m.wg.Go(func() {
		if !awaitExit(b.pidfd) {
			return
		}
		end := launcher.Exited{ID: b.id, Code: -1}
		if b.child != nil {
			if state, err := b.child.Wait(); state != nil {
				end.Code, end.Signal = exitStatus(state)
			} else if err != nil {
				m.cfg.Log.Warn("exit status lost", "task", b.id, "error", err)
			}
		}
		_ = b.pidfd.Close()
		m.settle(b)
		close(b.dead)
		end.Ended = now()
		m.yield(b)
		note := b.note()
		end.Started, end.OOM, end.CPUNanos = note.Started, b.group.oomKills() > 0, b.used(note)
		_, end.PeakBytes = b.group.memory()
		m.complain(b, end)
		m.wipe(b)
		select {
		case m.exits <- end:
		case <-m.closed:
		}
		close(b.gone)
	})
}

// settle waits until nothing of the sandbox's memory is charged any more. What lingers then, if anything, lingers for another
// reason than this sandbox, and its removal goes on.
func (m *Manager) settle(b *box) {
	deadline := time.Now().Add(2 * time.Second)
	for pause := 100 * time.Microsecond; len(b.group.pids()) > 0 || !b.group.uncharged(); pause = min(2*pause, 10*time.Millisecond) {
		if time.Now().After(deadline) {
			m.cfg.Log.Warn("memory is still charged", "task", b.id)
			return
		}
		b.dropMounts() // what was written to /tmp is charged until it is unmounted
		b.group.kill()
		select {
		case <-m.closed:
			return
		case <-time.After(pause):
		}
	}
}

// yield lets the kills under way be answered before the remains of a killed sandbox are removed, which takes the kernel longer than
// the kill itself.
func (m *Manager) yield(b *box) {
	b.mu.Lock()
	asked := b.doomed
	b.mu.Unlock()
	if !asked {
		return
	}
	limit := time.NewTimer(yieldMost)
	defer limit.Stop()
	select {
	case <-m.calm():
	case <-limit.C:
		return
	case <-m.closed:
		return
	}
	select {
	case <-time.After(yieldLeast):
	case <-m.closed:
	}
}

const (
	yieldLeast = 5 * time.Millisecond   // from a kill to the answer at the gate
	yieldMost  = 200 * time.Millisecond // for kills of others
)

func exitStatus(state *os.ProcessState) (code, signal int) {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return -1, int(ws.Signal())
	}
	return state.ExitCode(), 0
}

// complain logs an end that nobody asked for, with the last that the executor said.
func (m *Manager) complain(b *box, end launcher.Exited) {
	b.mu.Lock()
	asked := b.doomed
	b.mu.Unlock()
	if asked || end.Code == 0 {
		return
	}
	m.cfg.Log.Warn("executor failed", "task", b.id, "code", end.Code, "signal", end.Signal, "oom", end.OOM, "log", tail(b.log))
}

func tail(f *os.File) string {
	if f == nil {
		return ""
	}
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	text, _ := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-2048), 2048))
	return strings.ToValidUTF8(string(text), "?")
}

// wipe removes every trace of a sandbox whose processes are dead or dying, and frees its id.
func (m *Manager) wipe(b *box) {
	if b.log != nil {
		_ = b.log.Close()
	}
	b.dropMounts()
	if err := m.erase(b.id, b.group); err != nil {
		m.cfg.Log.Error("clean up sandbox", "task", b.id, "error", err)
	}
	m.mu.Lock()
	delete(m.boxes, b.id)
	m.mu.Unlock()
}

func (m *Manager) erase(id string, g group) error {
	return errors.Join(g.remove(), removeSelf(filepath.Join(m.selves(), id)), os.RemoveAll(filepath.Join(m.states(), id)))
}

// report describes a sandbox for List, unless it has not started or has ended.
func (b *box) report() (launcher.Sandbox, bool) {
	note := b.note()
	select {
	case <-b.dead:
		return launcher.Sandbox{}, false
	case <-b.ready:
	default:
		return launcher.Sandbox{ID: b.id, Started: note.Started, Spec: note.Spec}, true
	}
	if b.container == nil {
		return launcher.Sandbox{}, false
	}
	s := launcher.Sandbox{ID: b.id, PID: b.pid, Started: note.Started, Spec: note.Spec, CPUNanos: b.used(note)}
	s.MemoryBytes, s.PeakBytes = b.group.memory()
	status, err := b.container.Status()
	s.Running = err == nil && status != libcontainer.Stopped
	s.Frozen = err == nil && status == libcontainer.Paused
	return s, true
}
