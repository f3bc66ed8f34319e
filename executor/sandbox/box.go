package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/utils"
	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

// box is one sandbox, from the moment its id is taken until every trace of it is gone.
//
//	Start ──▶ ready ──▶ (the executor runs) ──▶ dead ──▶ gone
//	   └── fails: gone, dead and ready at once
type box struct {
	id    string
	group group
	ready chan struct{} // closed when the start is over; what is below is set by then and constant
	dead  chan struct{} // closed when its processes are gone and their memory is free

	container *libcontainer.Container // nil when the start failed
	child     *libcontainer.Process   // nil when adopted
	pid       int
	log       *os.File // nil when adopted
	pidfd     *os.File
	mounts    *os.File // keeps the mount namespace when the last process has gone; nil when it could not be opened

	doomed atomic.Bool // killed by us

	mu sync.Mutex // held for all of a Resize
	memo
}

// memo is what a later Manager has to know, beside what libcontainer keeps.
type memo struct {
	Spec    launcher.Spec `json:"spec"`
	Started time.Time     `json:"started"` // or its last Resize
	Before  uint64        `json:"before"`  // CPU nanoseconds that it had used by then
}

// memoLabel names the memo among the labels that libcontainer keeps with its state.
const memoLabel = "gleaner"

func (n memo) labels() []string {
	text, _ := json.Marshal(n) // nothing in it can fail
	return []string{memoLabel + "=" + string(text)}
}

func (m *Manager) newBox(id string, note memo) *box {
	return &box{id: id, group: m.group(id), memo: note, ready: make(chan struct{}), dead: make(chan struct{})}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Start creates and starts one sandbox. It returns the executor's pid on the host as soon as that runs.
func (m *Manager) Start(ctx context.Context, spec launcher.Spec) (int, error) {
	if err := admit(spec, m.cfg.Devices); err != nil {
		return 0, err
	}
	b := m.newBox(spec.ID, memo{Spec: spec, Started: time.Now()})
	m.mu.Lock()
	taken := m.boxes[b.id] != nil
	if !taken {
		m.boxes[b.id] = b
	}
	m.mu.Unlock()
	if taken {
		return 0, fmt.Errorf("%w: %s", ErrExists, b.id)
	}
	defer close(b.ready)
	if err := m.launch(ctx, b); err != nil {
		b.container = nil
		m.wipe(b)
		reapStages()
		close(b.dead)
		return 0, fmt.Errorf("start sandbox %s: %w", b.id, err)
	}
	m.watch(b)
	return b.pid, nil
}

func (m *Manager) launch(ctx context.Context, b *box) (err error) {
	if err := m.open(ctx); err != nil {
		return err
	}
	if b.log, err = makeSelf(m.selves(b.id), b.Spec); err != nil {
		return err
	}
	defer func() { _ = unmount(m.binds(b.id)) }() // the sandbox has mounts of its own by then; what fails is tried again at its end
	config, err := m.container(b.memo)
	if err != nil {
		return err
	}
	if b.container, err = libcontainer.Create(m.states(), b.id, config); err != nil {
		return err
	}
	if err := m.makeNames(b.Spec); err != nil {
		return err
	}
	b.child = m.process(b)
	if err := b.container.Start(b.child); err != nil {
		return err
	}
	if err = m.open(ctx); err == nil { // now that a gate's force meets it
		err = b.container.Exec()
	}
	if err != nil {
		_ = b.child.Signal(unix.SIGKILL)
		_, _ = b.child.Wait()
		return err
	}
	m.weigh(last)
	pid, err := b.child.Pid()
	return errors.Join(err, b.hold(pid))
}

func (m *Manager) process(b *box) *libcontainer.Process {
	args := slices.Clone(m.cfg.Command)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "%i", b.id)
	}
	return &libcontainer.Process{
		Init: true, Args: args, Cwd: "/tmp", UID: int(b.Spec.UID), GID: int(b.Spec.GID), AdditionalGroups: ints(b.Spec.Groups),
		Env: []string{
			"PATH=/usr/bin:/bin", "HOME=/tmp", "TMPDIR=/tmp", "LANG=C.UTF-8", "USER=u" + strconv.Itoa(int(b.Spec.UID)),
			"GLEANER_INSTANCE_ID=" + b.id,
		},
		Stdout: b.log, Stderr: b.log,
	}
}

// hold opens the first process, and the sandbox's mount namespace. Otherwise that process would take it apart before it is seen to be
// dead, a millisecond each and one sandbox after the other, while a job waits; so wipe does it once the kill has been answered.
func (b *box) hold(pid int) (err error) {
	b.pid = pid
	b.mounts, _ = os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	b.pidfd, err = openPidfd(pid)
	return err
}

// load finds a sandbox that an earlier Manager has started and that runs.
func (m *Manager) load(id string) (*box, error) {
	container, err := libcontainer.Load(m.states(), id)
	if err != nil {
		return nil, err
	}
	var note memo
	text, _ := utils.SearchLabels(container.Config().Labels, memoLabel)
	if err := json.Unmarshal([]byte(text), &note); err != nil {
		return nil, err
	}
	b := m.newBox(id, note)
	b.container = container
	state, err := container.State()
	if err == nil {
		err = b.hold(state.InitProcessPid)
	}
	// Only now that the descriptor holds the process can its identity be checked for good.
	if status, serr := container.Status(); err != nil || serr != nil || status != libcontainer.Running && status != libcontainer.Paused {
		_, _ = b.pidfd.Close(), b.mounts.Close()
		return nil, fmt.Errorf("not running: %v, %w", status, errors.Join(err, serr))
	}
	close(b.ready)
	return b, nil
}

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
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || err != nil && err != unix.EINTR
	}) == nil
}

// The remains of a killed sandbox are removed once the kills under way have been answered, or after so many waits of so long: it takes
// the kernel longer than the kill itself.
const (
	yieldTime = 5 * time.Millisecond
	yields    = 40
)

// watch waits for the end of a sandbox that runs, and reports it. The first process's end is everybody's: with it the kernel kills
// the whole pid namespace before anybody is told.
func (m *Manager) watch(b *box) {
	m.wg.Go(func() {
		<-b.ready
		if !awaitExit(b.pidfd) {
			return
		}
		end := launcher.Exited{ID: b.id, Code: -1}
		if b.child != nil {
			if state, _ := b.child.Wait(); state != nil {
				end.Code = state.ExitCode()
				end.Signal = max(0, int(state.Sys().(syscall.WaitStatus).Signal()))
			}
		}
		_ = b.pidfd.Close()
		m.settle(b)
		close(b.dead)
		end.Ended = time.Now()
		for n := 0; b.doomed.Load() && n < yields && (n == 0 || m.kills.Load() > 0); n++ {
			time.Sleep(yieldTime)
		}
		last := b.describe()
		end.Started, end.CPUNanos, end.PeakBytes, end.OOM = last.Started, last.CPUNanos, last.PeakBytes, b.group.oomKills() > 0
		if !b.doomed.Load() && end.Code != 0 && b.log != nil { // nobody asked for it: what did the executor say last?
			text, _ := io.ReadAll(io.NewSectionReader(b.log, 0, selfBytes))
			said := strings.ToValidUTF8(string(text[max(0, len(text)-2048):]), "?")
			m.cfg.Log.Warn("executor failed", "task", b.id, "code", end.Code, "signal", end.Signal, "oom", end.OOM, "log", said)
		}
		m.wipe(b)
		select {
		case m.exits <- end:
		case <-m.closed:
		}
	})
}

// settle waits until nothing of the sandbox's memory is charged any more. What lingers then, if anything, lingers for another
// reason than this sandbox, and its removal goes on.
func (m *Manager) settle(b *box) {
	until := time.Now().Add(2 * time.Second)
	for pause := 100 * time.Microsecond; !b.group.free(); pause = min(2*pause, 10*time.Millisecond) {
		if time.Now().After(until) {
			m.cfg.Log.Warn("memory is still charged", "task", b.id)
			return
		}
		_ = b.mounts.Close() // what was written to /tmp is charged until it is unmounted
		b.group.kill()
		time.Sleep(pause)
	}
}

// wipe removes every trace of a sandbox whose processes are dead or dying, and frees its id.
func (m *Manager) wipe(b *box) {
	_, _ = b.log.Close(), b.mounts.Close()
	if err := m.erase(b.id); err != nil {
		m.cfg.Log.Error("clean up sandbox", "task", b.id, "error", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.boxes, b.id)
}

// describe is what is to be said of a sandbox; of one that is just starting, no more than what was asked for.
func (b *box) describe() launcher.Sandbox {
	b.mu.Lock()
	s, before := launcher.Sandbox{ID: b.id, Started: b.Started, Spec: b.Spec}, b.Before
	b.mu.Unlock()
	if !closed(b.ready) || b.container == nil {
		return s
	}
	used := b.group.cpuNanos()
	s.PID, s.CPUNanos = b.pid, used-min(used, before)
	s.MemoryBytes, s.PeakBytes = b.group.memory()
	status, err := b.container.Status()
	s.Running = err == nil && status != libcontainer.Stopped
	s.Frozen = err == nil && status == libcontainer.Paused
	return s
}

// Resize gives the sandbox of this id other cores, memory, /tmp and process limits. Its figures (CPU time, start) count from now
// on. What fails leaves the sandbox with limits that may be of either kind: the caller ends it.
func (m *Manager) Resize(ctx context.Context, spec launcher.Spec) error {
	if err := admit(spec, m.cfg.Devices); err != nil {
		return err
	}
	b, err := m.started(ctx, spec.ID)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.Spec.UID != spec.UID || b.Spec.GID != spec.GID || !slices.Equal(b.Spec.Groups, spec.Groups) ||
		len(b.Spec.Devices)+len(spec.Devices)+len(b.Spec.Binds)+len(spec.Binds) > 0 {
		return fmt.Errorf("resize sandbox %s: %w", b.id, ErrFixed)
	}
	next := memo{Spec: spec, Started: time.Now(), Before: b.group.cpuNanos()}
	config := b.container.Config()
	group := *config.Cgroups
	group.Resources = resources(spec, group.Resources.Devices)
	group.SkipDevices = true // their rules stay
	config.Cgroups, config.Labels = &group, next.labels()
	if err := errors.Join(b.container.Set(config), b.growTmp(spec.TmpBytes)); err != nil {
		return fmt.Errorf("resize sandbox %s: %w", b.id, err)
	}
	b.memo = next
	return nil
}

// growTmp sizes /tmp and /dev/shm. Nothing but the setup can mount anything in a sandbox, so that the paths lead where they led then.
func (b *box) growTmp(bytes int64) error {
	for _, dir := range []string{"/tmp", "/dev/shm"} {
		path := fmt.Sprintf("/proc/%d/root%s", b.pid, dir)
		fd, err := unix.Fspick(unix.AT_FDCWD, path, unix.FSPICK_CLOEXEC|unix.FSPICK_NO_AUTOMOUNT)
		if err == nil {
			err = errors.Join(unix.FsconfigSetString(fd, "size", strconv.FormatInt(bytes, 10)), unix.FsconfigReconfigure(fd), unix.Close(fd))
		}
		if err != nil {
			return &os.PathError{Op: "resize", Path: path, Err: err}
		}
	}
	return nil
}
