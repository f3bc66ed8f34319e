package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/system"
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

	container  *libcontainer.Container // nil when the start failed
	child      *libcontainer.Process   // empty when adopted
	pid        int
	log        *os.File // nil when adopted
	pidfd      *os.File
	mounts     *os.File    // keeps the mount namespace when the last process has gone; nil when it could not be opened
	everFrozen atomic.Bool // or may have been, by an earlier Manager

	mu   sync.Mutex       // held for all of a Resize
	memo launcher.Sandbox // its spec, when that was given to it, and the CPU time that it had used by then
}

// memoLabel names the memo among the labels that libcontainer keeps with its state, for a later Manager.
const memoLabel = "gleaner"

func labels(memo launcher.Sandbox) []string {
	text, _ := json.Marshal(memo) // nothing in it can fail
	return []string{memoLabel + "=" + string(text)}
}

func (m *Manager) newBox(memo launcher.Sandbox) *box {
	return &box{id: memo.ID, group: m.group(memo.ID), memo: memo, ready: make(chan struct{}), dead: make(chan struct{})}
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
	b := m.newBox(launcher.Sandbox{ID: spec.ID, Spec: spec, Started: time.Now()})
	m.mu.Lock()
	if m.boxes[b.id] != nil {
		m.mu.Unlock()
		return 0, fmt.Errorf("sandbox %s exists already", b.id)
	}
	m.boxes[b.id] = b
	m.mu.Unlock()
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
	s := b.memo.Spec
	if b.log, err = makeSelf(m.selves(b.id), s); err != nil {
		return err
	}
	defer func() { _ = unmount(m.binds(b.id)) }() // the sandbox has mounts of its own by then; what fails is tried again at its end
	config, err := m.container(b.memo)
	if err != nil {
		return err
	}
	if b.container, err = libcontainer.Create(m.states(""), b.id, config); err != nil {
		return err
	}
	if err := m.makeNames(s); err != nil {
		return err
	}
	b.child = &libcontainer.Process{
		Init: true, Args: strings.Fields(strings.ReplaceAll(m.cfg.Command, "%i", b.id)), Cwd: "/tmp",
		UID: int(s.UID), GID: int(s.GID), AdditionalGroups: ints(s.Groups), Stdout: b.log, Stderr: b.log,
		Env: []string{"PATH=/usr/bin:/bin", "HOME=/tmp", "TMPDIR=/tmp", "LANG=C.UTF-8", fmt.Sprint("USER=u", s.UID), "GLEANER_INSTANCE_ID=" + b.id},
	}
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
	m.rush(0) // the cgroups above it are there now, and no lighter while others are killed
	pid, err := b.child.Pid()
	return errors.Join(err, b.hold(pid))
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
	container, err := libcontainer.Load(m.states(""), id)
	if err != nil {
		return nil, err
	}
	b := m.newBox(launcher.Sandbox{ID: id})
	b.everFrozen.Store(true)
	b.container, b.child = container, &libcontainer.Process{}
	text, _ := utils.SearchLabels(container.Config().Labels, memoLabel)
	state, err := container.State()
	err = errors.Join(err, json.Unmarshal([]byte(text), &b.memo), b.hold(state.InitProcessPid))
	// Only now that the descriptor holds the process can its identity be checked for good.
	status, serr := container.Status()
	if err = errors.Join(err, serr); err != nil || status != libcontainer.Running && status != libcontainer.Paused {
		_, _ = b.pidfd.Close(), b.mounts.Close()
		return nil, fmt.Errorf("it is %s: %w", status, err)
	}
	close(b.ready)
	return b, nil
}

// openPidfd gives a descriptor on which the runtime can wait, without a thread, for the end of a process.
func openPidfd(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	return os.NewFile(uintptr(fd), "pidfd"), os.NewSyscallError("pidfd_open", err) // the file is nil where there is no descriptor
}

// awaitExit blocks until the process has ended. It reports false when the descriptor was closed before.
func awaitExit(pidfd *os.File) bool {
	raw, err := pidfd.SyscallConn()
	return err == nil && raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || err != nil && err != unix.EINTR
	}) == nil
}

// strike kills the first process, whose death is everybody's in its pid namespace: no list has to be read for it. It takes
// microseconds, so that the last of many sandboxes is struck as soon as the first.
func (b *box) strike() {
	if !closed(b.ready) {
		return
	}
	if raw, err := b.pidfd.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
	}
}

const (
	startAlone   = 200 * time.Millisecond // for a start to be over, before what has come into its cgroup by then is killed
	strikeAlone  = 8 * time.Millisecond   // for the first strike, before the rest is tried too
	largeSandbox = 64 << 20               // bytes from which on several sides free its memory
)

// end kills the box, again and again until it is dead; one that is just starting as soon as it has started, or when that takes long: its
// user may have stopped it from outside. The first strike is enough for most: what else can be done costs CPUs that the dying need, and
// comes when they are not dead soon, are large, or may be frozen.
func (b *box) end(ctx context.Context) {
	select {
	case <-b.ready:
	case <-time.After(startAlone):
	case <-ctx.Done():
		return
	}
	b.strike()
	if b.everFrozen.Load() || b.group.charged() >= largeSandbox {
		b.group.kill()
	}
	for pause := strikeAlone; ; pause = min(2*pause, 50*time.Millisecond) {
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

// watch waits for the end of a sandbox that runs, and reports it. The first process's end is everybody's: with it the kernel kills
// the whole pid namespace before anybody is told.
func (m *Manager) watch(b *box) {
	m.wg.Go(func() {
		<-b.ready
		if !awaitExit(b.pidfd) {
			return
		}
		if err := b.group.settle(b.mounts); err != nil { // for another reason than this sandbox
			m.cfg.Log.Warn("memory is still charged", "task", b.id, "error", err)
		}
		close(b.dead)
		end := launcher.Exited{ID: b.id, Code: -1, Ended: time.Now()}
		// The remains go once the kills under way have been answered, 200 ms at most: it takes the kernel longer than the kills themselves.
		for n := 0; n == 0 || n < 40 && m.kills.Load() > 0; n++ {
			time.Sleep(5 * time.Millisecond)
		}
		if state, _ := b.child.Wait(); state != nil {
			end.Code = state.ExitCode()
			end.Signal = max(0, int(state.Sys().(syscall.WaitStatus).Signal()))
		}
		_ = b.pidfd.Close()
		was := b.describe()
		end.Started, end.CPUNanos, end.PeakBytes, end.OOM = was.Started, was.CPUNanos, was.PeakBytes, b.group.oomKills() > 0
		if end.Code > 0 || end.Signal > 0 && end.Signal != int(unix.SIGKILL) { // nobody asked for it: what did the executor say last?
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
	s := b.memo
	b.mu.Unlock()
	if !closed(b.ready) || b.container == nil {
		return s
	}
	used := b.group.cpuNanos()
	s.PID, s.CPUNanos = b.pid, used-min(used, s.CPUNanos)
	s.MemoryBytes, s.PeakBytes = b.group.memory()
	status, err := b.container.Status()
	s.Running = err == nil && status != libcontainer.Stopped
	s.Frozen = err == nil && status == libcontainer.Paused
	return s
}

// Resize gives the sandbox of this id other cores, memory, /tmp and process limits. Its figures (CPU time, start) count from now
// on. What fails leaves the sandbox with limits that may be of either kind: the caller ends it.
func (m *Manager) Resize(_ context.Context, spec launcher.Spec) error {
	if err := admit(spec, m.cfg.Devices); err != nil {
		return err
	}
	b, err := m.started(spec.ID)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.memo.Spec
	if old.UID != spec.UID || old.GID != spec.GID || !slices.Equal(old.Groups, spec.Groups) || len(old.Devices)+len(spec.Devices)+len(old.Binds)+len(spec.Binds)+len(old.Image)+len(spec.Image) > 0 {
		return fmt.Errorf("resize sandbox %s: user, groups, devices, binds and image cannot be changed", b.id)
	}
	next := launcher.Sandbox{ID: b.id, Spec: spec, Started: time.Now(), CPUNanos: b.group.cpuNanos()}
	config := b.container.Config()
	group := *config.Cgroups
	group.Resources = resources(spec, group.Resources.Devices)
	group.SkipDevices = true // their rules stay
	config.Cgroups, config.Labels = &group, labels(next)
	// Nothing but the setup can mount anything in a sandbox, so that /tmp and /dev/shm lead where they led then: without an image, whose links
	// could lead to the host's, and while the process lives, as Set has seen.
	err = b.container.Set(config)
	for _, dir := range []string{"/tmp", "/dev/shm"} {
		fd := -1
		if err == nil {
			fd, err = unix.Fspick(unix.AT_FDCWD, fmt.Sprintf("/proc/%d/root%s", b.pid, dir), unix.FSPICK_CLOEXEC|unix.FSPICK_NO_AUTOMOUNT|unix.FSPICK_SYMLINK_NOFOLLOW)
		}
		if err == nil {
			err = errors.Join(unix.FsconfigSetString(fd, "size", strconv.FormatInt(spec.TmpBytes, 10)), unix.FsconfigReconfigure(fd), unix.Close(fd))
		}
	}
	if err != nil {
		return fmt.Errorf("resize sandbox %s: %w", b.id, err)
	}
	b.memo = next
	return nil
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
