// Package agent is one node's: it keeps the ledger of the node's cores, memory and GPUs, starts executors on what nobody holds, and evicts
// them the moment a Slurm job claims it.
//
//	gate, hook ──▶ gatesock ─┐                        ┌─▶ launcher: start, kill, list
//	executors ───▶ execsock ─┤                        ├─▶ executors: assign, revoke
//	broker ──────▶ session ──┼─▶ one loop: ledger, ───┼─▶ broker: state, ready, records
//	launcher's exits ────────┤   book of claims       ├─▶ state file
//	results of actions ──────┘                        └─▶ gate: ack, done, failed
//
// One goroutine, the loop, owns everything that changes; it never waits. What takes time (a start, a kill, a scan) runs beside it and
// comes back as an event, so that claims of different jobs are worked on at once. The broker is on no path of an eviction: with the
// broker away the agent gates and evicts as ever. With the launcher away it admits nothing and answers Failed to a claim that would
// need a kill, upon which the gate uses force. It never asks slurmctld.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gleaner-hpc/gleaner/agent/evict"
	"github.com/gleaner-hpc/gleaner/agent/execsock"
	"github.com/gleaner-hpc/gleaner/agent/gatesock"
	"github.com/gleaner-hpc/gleaner/agent/jobs"
	"github.com/gleaner-hpc/gleaner/agent/ledger"
	"github.com/gleaner-hpc/gleaner/agent/session"
	"github.com/gleaner-hpc/gleaner/agent/slack"
	"github.com/gleaner-hpc/gleaner/agent/state"
	"github.com/gleaner-hpc/gleaner/api/launcher"
)

// listenAgain is the pause between attempts at the executors' socket.
const listenAgain = 50 * time.Millisecond

// Launcher is what the agent asks of the node's launcher. *launch.Client is one.
type Launcher interface {
	Start(ctx context.Context, spec launcher.Spec) (int, error)
	Resize(ctx context.Context, spec launcher.Spec) error
	// Kill returns the ids that it could not end before ctx's deadline.
	Kill(ctx context.Context, ids ...string) ([]string, error)
	List(ctx context.Context) ([]launcher.Sandbox, error)
	Freeze(ctx context.Context, ids ...string) error
	Thaw(ctx context.Context, ids ...string) error
	// Open ends the closure of the node by jobs whose gates used force, and returns the jobs for which it is still shut.
	Open(ctx context.Context, jobs ...uint32) ([]uint32, error)
}

// JobScanner sees which Slurm jobs run here. jobs.Scan is one.
type JobScanner interface {
	Look() jobs.Found
}

// Runner is something long-lived.
type Runner interface {
	Run(ctx context.Context) error
}

// Config is everything that an agent is given.
type Config struct {
	Node    string // as slurm.conf names it
	Version string
	Ledger  ledger.Config
	// CPUs maps each abstract core to the machine's CPU numbers. Nil means that executors are held by quota alone.
	CPUs           [][]int
	ThreadsPerCore int      // CPUs of a core for the quota; 0 means 1
	Devices        []string // device file of each GPU
	// MemoryByCores counts a job that names no memory with its cores' share of the node's, for sites where Slurm does not count
	// memory; otherwise such a job holds all of it.
	MemoryByCores bool

	Grants Grants // what leases may ask for
	// Groups gives a user's supplementary groups; nil means that functions have none.
	Groups func(ctx context.Context, uid uint32, now time.Time) ([]uint32, error)

	// Objection is why nothing may be lent here, whatever is free; "" for nothing.
	Objection string

	Socket   string // for gate and hook
	RunDir   string
	StateDir string

	ListenHost    string // where executors serve callers
	Provider      string // libfabric's
	OrphanTimeout time.Duration
	WarnTimeout   time.Duration
	Evict         evict.Policy
	Parking       Parking

	Images     Images // nil: none are offered
	Launcher   Launcher
	LauncherUp <-chan bool            // true when it can be asked (again), false when not
	Exited     <-chan launcher.Exited // ends of sandboxes
	Jobs       JobScanner
	Sampler    Sampler                                  // of what jobs really use; nil: nothing of a job's is lent
	Lending    slack.Rule                               // of a job's unused memory
	Session    func(events chan<- session.Event) Runner // the stream to the broker
	Identify   execsock.Identify                        // nil means by cgroup
	Metrics    *Metrics                                 // nil means none
	Log        *slog.Logger
}

// Agent runs one node's part.
type Agent struct {
	cfg       Config
	loop      *loop
	gate      *gatesock.Server
	executors execsock.Config
	writer    *state.Writer
	sessions  chan session.Event
}

// New makes the sockets and folders and reads the predecessor's state. Nothing runs before Run.
func New(cfg Config) (*Agent, error) {
	if cfg.Identify == nil {
		cfg.Identify = execsock.ByCgroup(cfg.Node)
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics(cfg.Version)
	}
	cfg.ThreadsPerCore = max(cfg.ThreadsPerCore, 1)
	book, err := ledger.New(cfg.Ledger)
	if err != nil {
		return nil, err
	}
	if cfg.CPUs != nil && len(cfg.CPUs) < cfg.Ledger.Cores {
		return nil, fmt.Errorf("node.cpus is %d cores, but this machine has %d to bind executors to; set node.affinity = \"no\" or fewer CPUs", cfg.Ledger.Cores, len(cfg.CPUs))
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state folder: %w", err)
	}
	a := &Agent{
		cfg: cfg, sessions: make(chan session.Event),
		writer: state.NewWriter(filepath.Join(cfg.StateDir, "state.json"), cfg.Log),
	}
	calls, links := make(chan *gatesock.Call), make(chan execsock.Event)
	a.loop = newLoop(cfg, book, a.writer, calls, links, a.sessions)
	saved, err := state.Load(a.writer.Path)
	if err != nil {
		cfg.Log.Error("predecessor's state is lost; executors that it left are ended", "error", err)
	}
	a.loop.restore(saved, bootID(), time.Now())
	if a.gate, err = gatesock.Listen(gatesock.Config{Path: cfg.Socket, Node: cfg.Node, Calls: calls, Log: cfg.Log}); err != nil {
		return nil, err
	}
	a.executors = execsock.Config{Path: execsock.Path(cfg.RunDir), Identify: cfg.Identify, Events: links, Log: cfg.Log}
	return a, nil
}

// Run works until ctx ends or a part fails. Executors are left running, for the successor to adopt.
func (a *Agent) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	writing, stop := context.WithCancel(context.Background())
	written := make(chan error, 1)
	go func() { written <- a.writer.Run(writing) }()
	group.Go(func() error { return a.gate.Run(ctx) })
	group.Go(func() error { return a.serveExecutors(ctx) })
	group.Go(func() error { return a.cfg.Session(a.sessions).Run(ctx) })
	group.Go(func() error { return a.loop.run(ctx) })
	err := group.Wait()
	stop()
	return errors.Join(err, <-written, a.writer.Flush())
}

// serveExecutors listens for executors as soon as the launcher has made the folder for that. Gates are answered meanwhile.
func (a *Agent) serveExecutors(ctx context.Context) error {
	for told := false; ; told = true {
		server, err := execsock.Listen(a.executors)
		if err == nil {
			return server.Run(ctx)
		}
		if !told {
			a.cfg.Log.Warn("executors cannot connect yet; is the launcher running, with this agent's user as --agent-uid?", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(listenAgain):
		}
	}
}

// bootID names this boot of the kernel; "" where it does not tell.
func bootID() string {
	text, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(text)
}
