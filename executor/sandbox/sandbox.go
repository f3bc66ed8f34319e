// Package sandbox runs executors where they can harm nobody: each in user, pid, mount, ipc, uts and cgroup namespaces, on a
// read-only root made of the host's /usr, as its owner's unprivileged uid without any capability, behind a seccomp filter, with
// limits on cores, memory, processes and devices that are imposed from outside. It owns the cgroups below <parent>/<node> in every
// hierarchy (never Slurm's) and the folders launch/ and executors/ of the run directory. The network namespace is the host's: the
// fabric needs its addresses and devices, so what an executor may connect to is not this package's to limit.
//
// It is the only importer of libcontainer and is linked into the launcher alone: libcontainer runs C code before main and
// re-executes the binary with argv[1] == "init", for which main calls Init first of all.
//
// Sandboxes outlive their Manager. A later one with the same Config adopts what still runs and cleans up what does not.
package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // enters the namespaces before the Go runtime starts
	"github.com/opencontainers/runc/libcontainer/seccomp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

// libcontainer sends threads of this process into a sandbox's mount namespace and lets them die there. The main thread cannot
// die: it would stay, and keep the sandbox's file systems and their memory for ever. Locked here, it never goes.
func init() { runtime.LockOSThread() }

// IsInit reports whether this process is libcontainer's, on its way into a sandbox. Such a process calls Init and nothing else.
func IsInit() bool { return len(os.Args) > 1 && os.Args[1] == "init" }

// Init sets the sandbox up from inside and becomes the executor. It does not return.
func Init() { libcontainer.Init() }

// Config says where sandboxes live and what may be asked for.
type Config struct {
	RunDir       string       // every folder above it must be searchable by all: sandboxes are set up by an unprivileged id
	Libexec      string       // folder of the executor, /gleaner in the sandbox
	CgroupParent string       // one path component
	Node         string       // one path component
	Command      string       // the executor's command line, in which %i stands for the sandbox's id
	Devices      []string     // device files that a Spec may name: paths or patterns of filepath.Match below /dev
	AgentUID     int          // who makes the socket that sandboxes see at /run/gleaner/agent
	AgentGID     int          // its group, which alone may enter the folder above
	Fair         bool         // sandboxes compete for cores like everybody else; otherwise they get what nobody wants
	Log          *slog.Logger // never nil
}

// DefaultCommand is the executor as Gleaner installs it.
const DefaultCommand = "/gleaner/executor --agent /run/gleaner/agent/executors.sock --id %i"

// Manager starts, watches and ends the sandboxes of one node. Its methods may be called from many goroutines.
type Manager struct {
	cfg    Config
	lock   *os.File // held for as long as this manager serves the run directory
	exits  chan launcher.Exited
	closed chan struct{}
	wg     sync.WaitGroup

	mu    sync.Mutex
	boxes map[string]*box
	kills atomic.Int32 // under way; changed with mu held
}

// Supported says what this process lacks to make sandboxes, nil when nothing.
func Supported() error {
	if !seccomp.Enabled {
		return errors.New("built without seccomp: build with cgo and -tags seccomp")
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root: sandboxes are made of cgroups and mounts")
	}
	probe, err := openPidfd(os.Getpid())
	if err != nil {
		return fmt.Errorf("%w: Linux 5.10 or later is needed", err)
	}
	return probe.Close()
}

// New locks the run directory, adopts the sandboxes that run there and removes what is left of those that do not.
func New(cfg Config) (*Manager, error) {
	m, err := claim(cfg)
	if err != nil {
		return nil, err
	}
	_, err = makeSkeleton(m.root())
	if err = errors.Join(err, m.makeNodeGroup(), m.adopt()); err != nil {
		m.Close()
		return nil, err
	}
	m.rush(0) // the one before may have been killed while it killed
	return m, nil
}

// CleanUp ends every sandbox of the node and removes all traces, whoever left them. It needs no memory of the past.
func CleanUp(cfg Config) error {
	m, err := claim(cfg)
	if err != nil {
		return err
	}
	defer m.Close()
	errs := []error{m.sweep()}
	for _, dir := range m.group("").dirs() {
		errs = append(errs, cgroups.RemovePath(dir))
		_ = unix.Rmdir(filepath.Dir(dir)) // fails while another node of this host has sandboxes
	}
	return errors.Join(errs...)
}

// lockTime is what the last of a launcher that was killed may take to go: what it was about to start holds the lock too.
const lockTime = time.Second

// claim makes the folders that all sandboxes share, and locks them. The executors' socket is the agent's to make, in a folder that
// only the agent's group can enter: users of the node reach it from inside a sandbox, through its mount, and from nowhere else.
func claim(cfg Config) (*Manager, error) {
	m := &Manager{cfg: cfg, exits: make(chan launcher.Exited, 1024), closed: make(chan struct{}), boxes: map[string]*box{}}
	if err := errors.Join(validate(cfg), Supported()); err != nil {
		return nil, err
	}
	// The run directory is not ours alone: its mode is its owner's matter. The states are shut: everybody may write to the fifo that
	// libcontainer makes there, and could hold up a start for ever.
	for _, dir := range []struct {
		path     string
		mode     os.FileMode
		uid, gid int
	}{
		{m.at("launch"), 0o711, 0, 0}, {m.states(""), 0o700, 0, 0}, {m.selves(""), 0o711, 0, 0}, {m.binds(""), 0o700, 0, 0},
		{filepath.Dir(m.agentDir()), 0o710, 0, cfg.AgentGID}, {m.agentDir(), 0o755, cfg.AgentUID, cfg.AgentGID},
	} {
		if err := errors.Join(os.MkdirAll(cfg.RunDir, 0o755), os.MkdirAll(dir.path, dir.mode), os.Chown(dir.path, dir.uid, dir.gid), os.Chmod(dir.path, dir.mode)); err != nil {
			return nil, fmt.Errorf("make run directory: %w", err)
		}
	}
	for dir := cfg.RunDir; dir != "/"; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err != nil || info.Mode()&0o001 == 0 {
			return nil, fmt.Errorf("run directory %s: sandboxes cannot pass %s: chmod o+x %s", cfg.RunDir, dir, dir)
		}
	}
	// What this process may have, sandboxes inherit. Pinned memory of the fabric counts towards the memory limit like any other.
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 16, Max: 1 << 16})
	_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
	lock, err := os.OpenFile(m.at("launch/lock"), os.O_CREATE|os.O_RDWR, 0o600)
	for until := time.Now().Add(lockTime); err == nil; time.Sleep(10 * time.Millisecond) {
		if m.lock = lock; unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			return m, nil
		}
		if time.Now().After(until) {
			err = errors.New("another launcher serves it")
		}
	}
	_ = lock.Close()
	return nil, fmt.Errorf("lock run directory %s: %w", cfg.RunDir, err)
}

func (m *Manager) at(parts ...string) string {
	return filepath.Join(m.cfg.RunDir, filepath.Join(parts...))
}

// Of an id, and without one the folder of all.
func (m *Manager) states(id string) string { return m.at("launch/sandboxes", id) }
func (m *Manager) binds(id string) string  { return m.at("launch/binds", id) }
func (m *Manager) selves(id string) string { return m.at("executors", id) }

func (m *Manager) root() string     { return m.at("launch/root") }
func (m *Manager) agentDir() string { return m.at("agent/sockets") }

// Exited gives the end of every sandbox, after its cgroup and folders are gone. The caller reads it all the time: 1024 wait there at most.
func (m *Manager) Exited() <-chan launcher.Exited { return m.exits }

// Close stops watching and leaves the sandboxes running, for the next Manager to adopt. No other call is under way; what has ended is
// removed first.
func (m *Manager) Close() {
	close(m.closed)
	for _, b := range m.all() {
		_, _ = b.pidfd.Close(), b.mounts.Close()
	}
	m.wg.Wait()
	_ = m.lock.Close()
}

// adopt takes over the sandboxes of an earlier Manager that still run, and removes all that is left of others.
func (m *Manager) adopt() error {
	entries, err := os.ReadDir(m.states(""))
	for _, e := range entries {
		b, err := m.load(e.Name())
		if err != nil {
			m.cfg.Log.Info("remains of a sandbox", "task", e.Name(), "why", err)
			continue
		}
		m.boxes[b.id] = b
	}
	for _, b := range m.all() {
		m.watch(b)
	}
	return errors.Join(err, m.sweep())
}

// sweep removes what belongs to no box: cgroups with all that runs in them, mounts, folders. Gates' marks stay.
func (m *Manager) sweep() error {
	var errs []error
	for _, dir := range append(m.group("").dirs(), m.selves(""), m.binds(""), m.states("")) {
		entries, err := os.ReadDir(dir)
		for _, e := range entries {
			if id := e.Name(); e.IsDir() && m.find(id) == nil && !strings.HasPrefix(id, "shut.") {
				errs = append(errs, m.erase(id))
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// erase ends what runs in the sandbox of this id, if anything does, and removes every trace of it.
func (m *Manager) erase(id string) error {
	return errors.Join(m.group(id).remove(), unmount(m.selves(id)), unmount(m.binds(id)), os.RemoveAll(m.states(id)))
}

func (m *Manager) find(id string) *box {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.boxes[id]
}

func (m *Manager) all() []*box {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Values(m.boxes), func(a, b *box) int { return strings.Compare(a.id, b.id) })
}

// List reports every sandbox, ordered by id.
func (m *Manager) List(ctx context.Context) ([]launcher.Sandbox, error) {
	var all []launcher.Sandbox
	for _, b := range m.all() {
		if !closed(b.dead) {
			all = append(all, b.describe())
		}
	}
	return all, ctx.Err()
}

// Freeze stops every process of the sandboxes until Thaw. On cgroup v1 that can fail for a while, above all where processes are born.
func (m *Manager) Freeze(ctx context.Context, ids ...string) error {
	return m.each(ctx, ids, (*libcontainer.Container).Pause, libcontainer.Paused)
}

// Thaw lets frozen sandboxes go on.
func (m *Manager) Thaw(ctx context.Context, ids ...string) error {
	return m.each(ctx, ids, (*libcontainer.Container).Resume, libcontainer.Running)
}

// each brings all the sandboxes to a state, at the same time.
func (m *Manager) each(ctx context.Context, ids []string, act func(*libcontainer.Container) error, want libcontainer.Status) error {
	var all errgroup.Group
	for _, id := range ids {
		all.Go(func() error {
			b, err := m.started(id)
			for err == nil {
				b.everFrozen.Store(true)
				tried := act(b.container)
				status, _ := b.container.Status()
				if status == want {
					return nil
				}
				if status == libcontainer.Stopped || ctx.Err() != nil {
					err = fmt.Errorf("sandbox %s is %s: %w", id, status, cmp.Or(tried, libcontainer.ErrNotRunning))
				}
			}
			return err
		})
	}
	return all.Wait()
}

// started is the sandbox of this id, once it has started.
func (m *Manager) started(id string) (*box, error) {
	if b := m.find(id); b != nil && closed(b.ready) && b.container != nil {
		return b, nil
	}
	return nil, fmt.Errorf("no sandbox %s runs", id)
}

// Kill ends sandboxes, all at the same time. It returns when their processes are gone and their memory is free, or at ctx's end with
// those that remain. Ids that do not exist count as ended.
func (m *Manager) Kill(ctx context.Context, ids ...string) (remaining []string, err error) {
	var boxes []*box
	for _, id := range slices.Compact(slices.Sorted(slices.Values(ids))) {
		if b := m.find(id); b != nil {
			b.strike()
			boxes = append(boxes, b)
		}
	}
	m.rush(1)
	defer m.wg.Go(func() { m.rush(-1) }) // beside the answer
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
