package broker

import (
	"context"
	"crypto/sha256"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/broker/store"
	"github.com/gleaner-hpc/gleaner/identity"
	"github.com/gleaner-hpc/gleaner/report"
	"github.com/gleaner-hpc/gleaner/slurmplugin/slurmctld"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const agentUID = 990

// deadline is how long a test waits for what must happen.
const deadline = 30 * time.Second

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
	b     *Broker
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
	w.b, w.addr = b, bufconn.Listen(1<<20)
	server := grpc.NewServer(ServerOptions(identity.None{}, nil)...)
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
