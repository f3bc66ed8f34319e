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
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // enters the namespaces before the Go runtime starts
	"github.com/opencontainers/runc/libcontainer/seccomp"
	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

var (
	// ErrBusy says that another launcher serves this run directory.
	ErrBusy = errors.New("another launcher serves this run directory")
	// ErrExists says that a sandbox of this id is there already.
	ErrExists = errors.New("sandbox exists already")
	// ErrNotFound says that there is no sandbox of this id.
	ErrNotFound = errors.New("no such sandbox")
	// ErrNoSeccomp says that the binary was built without -tags seccomp.
	ErrNoSeccomp = errors.New("built without seccomp: build with cgo and -tags seccomp")
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
	Command      []string     // the executor's command line, in which %i stands for the sandbox's id; empty means DefaultCommand
	Devices      []string     // device files that a Spec may name: paths or patterns of filepath.Match below /dev
	AgentUID     int          // who makes the socket that sandboxes see at /run/gleaner/agent
	AgentGID     int          // its group, which alone may enter the folder above
	Fair         bool         // sandboxes compete for cores like everybody else; otherwise they get what nobody wants
	SetupID      uint32       // host uid and gid that is root in the sandboxes during setup; owned by nobody; 0 means 2147483646
	Log          *slog.Logger // nil means silence
}

// DefaultCommand is the executor as Gleaner installs it.
var DefaultCommand = []string{"/gleaner/executor", "--agent", "/run/gleaner/agent/executors.sock", "--id", "%i"}

func (c Config) withDefaults() Config {
	if len(c.Command) == 0 {
		c.Command = DefaultCommand
	}
	if c.SetupID == 0 {
		c.SetupID = 2147483646
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Manager starts, watches and ends the sandboxes of one node. Its methods may be called from many goroutines.
type Manager struct {
	cfg    Config
	lock   *os.File // held for as long as this manager serves the run directory
	exits  chan launcher.Exited
	closed chan struct{}
	wg     sync.WaitGroup

	mu     sync.Mutex
	boxes  map[string]*box
	kills  int           // under way
	calmed chan struct{} // closed when there is none
}

// Supported says what this process lacks to make sandboxes, nil when nothing.
func Supported() error {
	if !seccomp.Enabled {
		return ErrNoSeccomp
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
	cfg = cfg.withDefaults()
	if err := validate(cfg); err != nil {
		return nil, err
	}
	if err := Supported(); err != nil {
		return nil, err
	}
	m := &Manager{cfg: cfg, exits: make(chan launcher.Exited, 1024), closed: make(chan struct{}), boxes: map[string]*box{}, calmed: make(chan struct{})}
	close(m.calmed)
	if err := m.prepare(); err != nil {
		m.unlock()
		return nil, err
	}
	if err := m.adopt(); err != nil {
		m.unlock()
		return nil, err
	}
	return m, nil
}

// prepare makes the folders that all sandboxes share.
func (m *Manager) prepare() error {
	for _, dir := range []struct {
		path string
		mode os.FileMode
	}{{m.cfg.RunDir, 0o755}, {m.dir(), 0o711}, {m.states(), 0o711}, {m.names(), 0o711}, {m.selves(), 0o711}, {filepath.Join(m.dir(), "binds"), 0o700}} {
		if err := os.MkdirAll(dir.path, dir.mode); err != nil {
			return fmt.Errorf("make run directory: %w", err)
		}
		if dir.path == m.cfg.RunDir {
			continue // not ours alone: the mode is its owner's matter
		}
		if err := os.Chmod(dir.path, dir.mode); err != nil {
			return fmt.Errorf("make run directory: %w", err)
		}
	}
	if err := m.makeNodeGroup(); err != nil {
		return err
	}
	if err := m.takeLock(); err != nil {
		return err
	}
	if err := searchable(m.dir()); err != nil {
		return err
	}
	return errors.Join(m.makeAgentDir(), makeSkeleton(m.root()))
}

// makeAgentDir makes the folder of the executors' socket, the agent's own, in one that only the agent's group can enter: users of the
// node reach the socket from inside a sandbox, through its mount, and from nowhere else.
func (m *Manager) makeAgentDir() error {
	outer := filepath.Dir(m.agentDir())
	return errors.Join(os.MkdirAll(m.agentDir(), 0o755), os.Chown(outer, 0, m.cfg.AgentGID), os.Chmod(outer, 0o710),
		os.Chown(m.agentDir(), m.cfg.AgentUID, m.cfg.AgentGID), os.Chmod(m.agentDir(), 0o755))
}

// lockTime is what the last of a launcher that was killed may take to go: what it was about to start holds the lock too.
const lockTime = time.Second

func (m *Manager) takeLock() error {
	path := filepath.Join(m.dir(), "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock run directory: %w", err)
	}
	err = unix.EWOULDBLOCK
	for until := time.Now().Add(lockTime); errors.Is(err, unix.EWOULDBLOCK) && time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("%w: %s is locked", ErrBusy, path)
		}
		return fmt.Errorf("lock %s: %w", path, err)
	}
	m.lock = f
	return nil
}

func (m *Manager) unlock() {
	if m.lock != nil {
		_ = m.lock.Close()
	}
}

// searchable checks that an unprivileged id can reach path, as the setup of a sandbox does.
func searchable(path string) error {
	for dir := path; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("check run directory: %w", err)
		}
		if info.Mode()&0o001 == 0 {
			return fmt.Errorf("run directory %s: %s has mode %04o, and sandboxes cannot pass it: chmod o+x %s", path, dir, info.Mode().Perm(), dir)
		}
		if dir == "/" {
			return nil
		}
	}
}

func (m *Manager) dir() string      { return filepath.Join(m.cfg.RunDir, "launch") }
func (m *Manager) root() string     { return filepath.Join(m.dir(), "root") }
func (m *Manager) states() string   { return filepath.Join(m.dir(), "sandboxes") }
func (m *Manager) names() string    { return filepath.Join(m.dir(), "names") }
func (m *Manager) agentDir() string { return filepath.Join(m.cfg.RunDir, "agent", "sockets") }
func (m *Manager) selves() string   { return filepath.Join(m.cfg.RunDir, "executors") }

// Exited gives the end of every sandbox, after its cgroup and folders are gone. The caller reads it all the time: 1024 wait there at most.
func (m *Manager) Exited() <-chan launcher.Exited { return m.exits }

// Close stops watching and leaves the sandboxes running, for the next Manager to adopt.
func (m *Manager) Close() {
	close(m.closed)
	m.mu.Lock()
	for _, b := range m.boxes {
		b.abandon()
	}
	m.mu.Unlock()
	m.wg.Wait()
	m.unlock()
}

// List reports every sandbox, ordered by id.
func (m *Manager) List(ctx context.Context) ([]launcher.Sandbox, error) {
	m.mu.Lock()
	boxes := make([]*box, 0, len(m.boxes))
	for _, b := range m.boxes {
		boxes = append(boxes, b)
	}
	m.mu.Unlock()
	all := make([]launcher.Sandbox, 0, len(boxes))
	for _, b := range boxes {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if s, ok := b.report(); ok {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b launcher.Sandbox) int { return cmp.Compare(a.ID, b.ID) })
	return all, nil
}

// Freeze stops every process of the sandboxes until Thaw.
func (m *Manager) Freeze(ctx context.Context, ids ...string) error {
	return m.each(ctx, ids, func(c *libcontainer.Container) error {
		err := c.Pause()
		if status, _ := c.Status(); status == libcontainer.Paused {
			return nil
		}
		return err
	})
}

// Thaw lets frozen sandboxes go on.
func (m *Manager) Thaw(ctx context.Context, ids ...string) error {
	return m.each(ctx, ids, func(c *libcontainer.Container) error {
		if err := c.Resume(); !errors.Is(err, libcontainer.ErrNotPaused) {
			return err
		}
		return nil
	})
}

// each does act to all the sandboxes at the same time.
func (m *Manager) each(ctx context.Context, ids []string, act func(*libcontainer.Container) error) error {
	errs := make([]error, len(ids))
	var wg sync.WaitGroup
	for i, id := range ids {
		b := m.find(id)
		if b == nil {
			errs[i] = fmt.Errorf("%w: %s", ErrNotFound, id)
			continue
		}
		wg.Go(func() {
			select {
			case <-ctx.Done():
				errs[i] = ctx.Err()
			case <-b.ready:
				if b.container == nil {
					errs[i] = fmt.Errorf("%w: %s", ErrNotFound, id)
				} else if err := act(b.container); err != nil {
					errs[i] = fmt.Errorf("sandbox %s: %w", id, err)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (m *Manager) find(id string) *box {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.boxes[id]
}

// now is when things happen; the wall clock is only reported, never decided upon.
func now() time.Time { return time.Now().Round(0) }
