package broker

import (
	"context"
	"crypto/sha256"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/broker/store"
	"github.com/gleaner-hpc/gleaner/identity"
	"github.com/gleaner-hpc/gleaner/report"
	"github.com/gleaner-hpc/gleaner/slurmplugin/slurmctld"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const agentUID = 990

// deadline is how long a test waits for what must happen.
const deadline = 10 * time.Second

// clock is a broker's time, moved by hand.
type clock struct {
	mu   sync.Mutex
	now  time.Time
	tick chan time.Time
}

func newClock() *clock {
	return &clock{now: time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC), tick: make(chan time.Time)}
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// advance moves the time and returns when the broker has taken notice.
func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	c.now = c.now.Add(d)
	c.mu.Unlock()
	c.tick <- c.now
	c.tick <- c.now // taken once the first has been dealt with
}

// records is a Recorder that keeps everything.
type records struct {
	mu        sync.Mutex
	fail      error
	intervals []report.Interval
	executors []report.Executor
	claims    []report.Claim
	tasks     []report.Tasks
	drains    []report.Drain
}

func add[T any](r *records, to *[]T, v T) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail == nil {
		*to = append(*to, v)
	}
	return r.fail
}
func (r *records) AddInterval(_ context.Context, v report.Interval) error {
	return add(r, &r.intervals, v)
}
func (r *records) AddExecutor(_ context.Context, v report.Executor) error {
	return add(r, &r.executors, v)
}
func (r *records) AddClaim(_ context.Context, v report.Claim) error { return add(r, &r.claims, v) }
func (r *records) AddTasks(_ context.Context, v report.Tasks) error { return add(r, &r.tasks, v) }
func (r *records) AddDrain(_ context.Context, v report.Drain) error { return add(r, &r.drains, v) }

func (r *records) count() (executors, claims int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.executors), len(r.claims)
}

// slurmFake is a slurmctld that says what the test wants.
type slurmFake struct {
	mu   sync.Mutex
	view *slurmctld.View
	err  error
}

func (f *slurmFake) set(v *slurmctld.View, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.view, f.err = v, err
}

func (f *slurmFake) Read(context.Context) (*slurmctld.View, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.view, true, f.err
}

// world is a running broker. stop may be called early, for a restart on the same state.
type world struct {
	t     testing.TB
	clock *clock
	rec   *records
	dir   string
	addr  *bufconn.Listener
	stop  func()

	broken bool // Run may return an error
}

func newWorld(t testing.TB, configure func(*Config)) *world {
	w := &world{t: t, clock: newClock(), rec: &records{}, dir: t.TempDir()}
	w.start(configure)
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *world) start(configure func(*Config)) {
	w.t.Helper()
	db, err := store.Open(filepath.Join(w.dir, "broker.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	cfg := Config{
		Store: db, Recorder: w.rec, Now: w.clock.Now, Tick: w.clock.tick, Agents: []uint32{agentUID}, Version: "test",
		UserName: func(uint32) string { return "alice" },
	}
	if configure != nil {
		configure(&cfg)
	}
	b, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.addr = bufconn.Listen(1 << 20)
	server := grpc.NewServer(ServerOptions(identity.None{})...)
	b.Serve(server)
	ctx, cancel := context.WithCancel(context.Background())
	ran, served := make(chan error, 1), make(chan error, 1)
	go func() { ran <- b.Run(ctx) }()
	go func() { served <- server.Serve(w.addr) }()
	var once sync.Once
	w.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ran; err != nil && !w.broken {
				w.t.Errorf("run: %v", err)
			}
			server.Stop()
			<-served
			if err := db.Close(); err != nil {
				w.t.Error(err)
			}
		})
	}
}

// dial connects as a user.
func (w *world) dial(uid uint32) *grpc.ClientConn {
	w.t.Helper()
	addr := w.addr
	conn, err := grpc.NewClient("passthrough:///broker",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return addr.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithPerRPCCredentials(identity.PerRPC{Method: identity.None{As: &uid}}))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 3*deadline)
	w.t.Cleanup(cancel)
	return ctx
}

func (w *world) user(uid uint32) api.LeasesClient { return api.NewLeasesClient(w.dial(uid)) }

// eventually waits for a condition.
func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(deadline); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("timed out: %s", what)
		}
	}
}

func asked(executors uint32) *api.AcquireRequest {
	digest := sha256.Sum256([]byte("code"))
	return &api.AcquireRequest{Executors: executors, Function: &api.Function{Symbol: "f", Digest: digest[:], SizeBytes: 4, Name: "libf.so"}}
}

// fakeAgent keeps a ledger of one node, as the real one does, and starts executors at once.
type fakeAgent struct {
	w      *world
	name   string
	boot   string
	stream api.Agents_SessionClient
	cancel context.CancelFunc
	done   chan struct{}
	met    chan struct{} // closed by Welcome

	mu      sync.Mutex
	total   int
	slurm   int
	running map[string]*api.Start
	most    int // cores leased at the same time
	record  uint64
	acked   uint64
	keep    []string
	pushed  []*api.SlurmJobs
	refuse  bool
	hold    bool // starts are taken but not made ready
	unacked []*api.AgentMessage
}

func (w *world) agent(name string, cores int) *fakeAgent {
	a := &fakeAgent{w: w, name: name, boot: "boot-" + name, total: cores, running: map[string]*api.Start{}}
	a.connect()
	w.t.Cleanup(a.disconnect)
	return a
}

func (a *fakeAgent) connect() {
	a.w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := api.NewAgentsClient(a.w.dial(agentUID)).Session(ctx)
	if err != nil {
		a.w.t.Fatal(err)
	}
	a.mu.Lock()
	a.stream, a.cancel, a.done, a.met = stream, cancel, make(chan struct{}), make(chan struct{})
	r := &api.Register{Node: a.name, Version: "1", BootId: a.boot, State: a.state()}
	for id, s := range a.running {
		r.Executors = append(r.Executors, &api.RunningExecutor{Id: id, LeaseId: s.LeaseId, Ready: a.readiness(id)})
	}
	a.sendLocked(&api.AgentMessage{Message: &api.AgentMessage_Register{Register: r}})
	for _, m := range a.unacked {
		a.sendLocked(m)
	}
	a.mu.Unlock()
	go a.serve()
	select {
	case <-a.met:
	case <-a.done:
		a.w.t.Fatalf("%s is not welcome", a.name)
	}
}

func (a *fakeAgent) disconnect() {
	a.cancel()
	<-a.done
}

func (a *fakeAgent) sendLocked(m *api.AgentMessage) { _ = a.stream.Send(m) }

func (a *fakeAgent) recordLocked(m *api.AgentMessage) {
	a.record++
	m.Record = a.record
	a.unacked = append(a.unacked, m)
	a.sendLocked(m)
}

func (a *fakeAgent) readiness(id string) *api.ExecutorReady {
	return &api.ExecutorReady{Id: id, Address: a.name + ":5000", Local: "/run/" + id, Startup: durationpb.New(20 * time.Millisecond)}
}

func (a *fakeAgent) leased() int {
	n := 0
	for _, s := range a.running {
		n += int(s.Cores)
	}
	return n
}

func (a *fakeAgent) state() *api.NodeState {
	amount := func(cores int) *api.Resources {
		return &api.Resources{Cores: uint32(max(0, cores)), MemoryBytes: uint64(max(0, cores)) << 30}
	}
	st := &api.NodeState{
		Total: amount(a.total), Slurm: amount(a.slurm), Leased: amount(a.leased()), Free: amount(a.total - a.slurm - a.leased()), Admitting: true,
	}
	if a.slurm > 0 {
		st.Jobs = []*api.JobHold{{JobId: 77, CoreCount: uint32(a.slurm)}}
	}
	return st
}

func (a *fakeAgent) sendState() {
	a.sendLocked(&api.AgentMessage{Message: &api.AgentMessage_State{State: a.state()}})
}

func (a *fakeAgent) serve() {
	defer close(a.done)
	for {
		m, err := a.stream.Recv()
		if err != nil {
			return
		}
		a.mu.Lock()
		a.handle(m)
		a.mu.Unlock()
	}
}

func (a *fakeAgent) handle(m *api.BrokerMessage) {
	switch v := m.Message.(type) {
	case *api.BrokerMessage_Welcome:
		a.keep = v.Welcome.Keep
		close(a.met)
		for id := range a.running {
			if !slices.Contains(a.keep, id) {
				a.end(id, api.EndReason_STOPPED, "the broker forgot it")
			}
		}
	case *api.BrokerMessage_Start:
		s := v.Start
		if a.refuse || a.leased()+int(s.Cores) > a.total-a.slurm {
			a.recordLocked(ended(s.Id, api.EndReason_REFUSED, "no room", false))
			return
		}
		a.running[s.Id] = s
		a.most = max(a.most, a.leased())
		if !a.hold {
			a.sendLocked(&api.AgentMessage{Message: &api.AgentMessage_Ready{Ready: a.readiness(s.Id)}})
		}
		a.sendState()
	case *api.BrokerMessage_Stop:
		if a.running[v.Stop.Id] != nil {
			a.end(v.Stop.Id, v.Stop.Reason, "stopped")
		}
	case *api.BrokerMessage_SlurmJobs:
		a.pushed = append(a.pushed, v.SlurmJobs)
	case *api.BrokerMessage_Ack:
		a.acked = v.Ack.Record
		for len(a.unacked) > 0 && a.unacked[0].Record <= a.acked {
			a.unacked = a.unacked[1:]
		}
	}
}

func (a *fakeAgent) end(id string, reason api.EndReason, detail string) {
	delete(a.running, id)
	a.recordLocked(ended(id, reason, detail, true))
	a.sendState()
}

// claim takes cores for a job and evicts what is in the way.
func (a *fakeAgent) claim(cores int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.slurm = cores
	var evicted []string
	for id := range a.running {
		if a.leased() > a.total-a.slurm {
			evicted = append(evicted, id)
			delete(a.running, id)
			a.recordLocked(ended(id, api.EndReason_EVICTED, "job 77 needed the cores", true))
		}
	}
	a.recordLocked(&api.AgentMessage{Message: &api.AgentMessage_Claim{Claim: &api.Claim{
		JobId: 77, Path: "gate", Time: timestamppb.Now(), Duration: durationpb.New(3 * time.Millisecond), Evicted: evicted, Complete: true,
	}}})
	a.sendState()
}

func (a *fakeAgent) get(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

func (a *fakeAgent) count() (n int) {
	a.get(func() { n = len(a.running) })
	return n
}

func ended(id string, reason api.EndReason, detail string, ran bool) *api.AgentMessage {
	e := &api.ExecutorEnded{Id: id, Reason: reason, Detail: detail}
	if ran {
		e.Started, e.Ended, e.CpuNanoseconds = timestamppb.New(time.Now().Add(-time.Second)), timestamppb.Now(), 5e8
	}
	return &api.AgentMessage{Message: &api.AgentMessage_Ended{Ended: e}}
}
