package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/gleaner-hpc/gleaner/agent/execsock"
	"github.com/gleaner-hpc/gleaner/agent/jobs"
	"github.com/gleaner-hpc/gleaner/agent/launch/launchtest"
	"github.com/gleaner-hpc/gleaner/agent/ledger"
	"github.com/gleaner-hpc/gleaner/agent/session"
	"github.com/gleaner-hpc/gleaner/api"
	apiexec "github.com/gleaner-hpc/gleaner/api/executor"
	"github.com/gleaner-hpc/gleaner/api/gate"
	"github.com/gleaner-hpc/gleaner/api/jsonframe"
	"github.com/gleaner-hpc/gleaner/api/launcher"
	"github.com/gleaner-hpc/gleaner/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 5 * time.Second

// broker is one that a test speaks through.
type broker struct {
	api.UnimplementedAgentsServer
	from chan *api.AgentMessage
	key  []byte
	kept []*api.AgentMessage // of await

	mu      sync.Mutex
	current grpc.BidiStreamingServer[api.AgentMessage, api.BrokerMessage]
	keep    []string
	watch   *durationpb.Duration
}

func (b *broker) Session(s grpc.BidiStreamingServer[api.AgentMessage, api.BrokerMessage]) error {
	first, err := s.Recv()
	if err != nil {
		return err
	}
	if err := b.welcome(s, first); err != nil {
		return err
	}
	b.from <- first
	for {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		b.from <- m
	}
}

// welcome is what a session hears first: send waits for it.
func (b *broker) welcome(s grpc.BidiStreamingServer[api.AgentMessage, api.BrokerMessage], first *api.AgentMessage) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.current = s
	keep := slices.Clone(b.keep)
	for _, e := range first.GetRegister().GetExecutors() {
		keep = append(keep, e.GetId())
	}
	return s.Send(&api.BrokerMessage{Message: &api.BrokerMessage_Welcome{Welcome: &api.Welcome{PublicKey: b.key, Keep: keep, Watch: b.watch}}})
}

func (b *broker) send(t testing.TB, m *api.BrokerMessage) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.current.Send(m); err != nil {
		t.Fatal(err)
	}
}

// await returns the first message that fits. Other records than the one awaited wait for their own turn; states are forgotten.
func (b *broker) await(t testing.TB, what string, fits func(*api.AgentMessage) bool) *api.AgentMessage {
	t.Helper()
	if i := slices.IndexFunc(b.kept, fits); i >= 0 {
		m := b.kept[i]
		b.kept = slices.Delete(b.kept, i, i+1)
		return m
	}
	deadline := time.After(patience)
	for {
		select {
		case m := <-b.from:
			if fits(m) {
				return m
			}
			if m.GetRecord() > 0 {
				b.kept = append(b.kept, m)
			}
		case <-deadline:
			t.Fatalf("broker hears no %s", what)
		}
	}
}

// scanner finds what a test says.
type scanner struct {
	mu    sync.Mutex
	found jobs.Found
}

func (s *scanner) Look() jobs.Found {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.found
}

func (s *scanner) set(found jobs.Found) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found = found
}

// node is an agent with everything around it.
type node struct {
	t      testing.TB
	cfg    Config
	fake   *launchtest.Fake
	up     chan bool
	broker *broker
	server *grpc.Server
	pipe   *bufconn.Listener
	jobs   *scanner
	agent  *Agent
	stop   func()

	mu   sync.Mutex
	next string // sandbox of the next executor that dials
}

const (
	testCores  = 8
	testMemory = 4 << 30
	testUID    = 61234
)

func newNode(t testing.TB) *node {
	n := &node{
		t: t, fake: launchtest.NewFake(), up: make(chan bool, 1), jobs: &scanner{},
		broker: &broker{from: make(chan *api.AgentMessage, 4096), key: make([]byte, 32)},
	}
	dir, err := os.MkdirTemp("", "gl") // short: a Unix socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	n.startBroker()
	n.cfg = Config{
		Node: "n1", Version: "test", Ledger: ledger.Config{Cores: testCores, Memory: testMemory, GPUs: 2},
		Devices: []string{"/dev/null", "/dev/zero"},
		Socket:  filepath.Join(dir, "agent.sock"), RunDir: dir, StateDir: filepath.Join(dir, "state"),
		ListenHost: "127.0.0.1", OrphanTimeout: time.Minute, WarnTimeout: 5 * time.Second,
		Launcher: n.fake, LauncherUp: n.up, Exited: n.fake.Exited(), Jobs: n.jobs,
		Session: func(events chan<- session.Event) Runner {
			return session.New(session.Config{
				Address: "passthrough:///broker", Credentials: identity.PerRPC{Method: identity.None{}}, Events: events,
				Log: slog.New(slog.DiscardHandler), FirstRetry: time.Millisecond, LastRetry: 10 * time.Millisecond,
				Options: []grpc.DialOption{
					grpc.WithTransportCredentials(insecure.NewCredentials()),
					grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
						n.mu.Lock()
						pipe := n.pipe
						n.mu.Unlock()
						return pipe.DialContext(ctx)
					}),
				},
			})
		},
		Identify: func(unix.Ucred) (string, uint32, error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.next, testUID, nil
		},
		Log: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	t.Cleanup(func() { n.server.Stop() })
	return n
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b[:len(b)-1])
	return len(b), nil
}

func (n *node) startBroker() {
	pipe := bufconn.Listen(1 << 20)
	n.mu.Lock()
	n.pipe = pipe
	n.mu.Unlock()
	n.server = grpc.NewServer()
	api.RegisterAgentsServer(n.server, n.broker)
	server := n.server
	go func() { _ = server.Serve(pipe) }()
}

// start runs the agent with the launcher there, and waits until it has registered and admits.
func (n *node) start() {
	n.t.Helper()
	n.run()
	n.up <- true
	n.admits()
}

func (n *node) admits() *api.NodeState {
	n.t.Helper()
	m := n.broker.await(n.t, "admitting state", func(m *api.AgentMessage) bool {
		return m.GetState().GetAdmitting() || m.GetRegister().GetState().GetAdmitting()
	})
	if m.GetState() != nil {
		return m.GetState()
	}
	return m.GetRegister().GetState()
}

func (n *node) run() {
	n.t.Helper()
	a, err := New(n.cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	n.agent = a
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	var once sync.Once
	n.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				n.t.Errorf("agent ended with %v", err)
			}
		})
	}
	n.t.Cleanup(n.stop)
	n.broker.await(n.t, "registration", func(m *api.AgentMessage) bool { return m.GetRegister() != nil })
}

// box is an executor in its sandbox.
type box struct {
	t    testing.TB
	id   string
	conn net.Conn
}

func (n *node) dial(id string) *box {
	n.t.Helper()
	n.mu.Lock()
	n.next = id
	n.mu.Unlock()
	conn, err := net.Dial("unix", execsock.Path(n.cfg.RunDir))
	for deadline := time.Now().Add(patience); err != nil && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
		conn, err = net.Dial("unix", execsock.Path(n.cfg.RunDir))
	}
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = conn.Close() })
	b := &box{n.t, id, conn}
	b.say(apiexec.FromExecutor{Hello: &apiexec.Hello{ID: id}})
	return b
}

func (b *box) say(f apiexec.FromExecutor) {
	b.t.Helper()
	if err := jsonframe.Write(b.conn, f); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) hear() (f apiexec.FromAgent, err error) {
	_ = b.conn.SetReadDeadline(time.Now().Add(patience))
	err = jsonframe.Read(b.conn, &f)
	return f, err
}

func start(id string, cores uint32, mib uint64) *api.Start {
	return &api.Start{
		Id: id, LeaseId: 7, Uid: testUID, Gid: testUID, Cores: cores, MemoryBytes: mib << 20, BufferBytes: 4096, JobId: 3,
		Function: &api.Function{Symbol: "f", Name: "libf.so", Digest: make([]byte, 32), SizeBytes: 100},
	}
}

func (n *node) ask(s *api.Start) {
	n.t.Helper()
	n.broker.send(n.t, &api.BrokerMessage{Message: &api.BrokerMessage_Start{Start: s}})
}

// ready brings an executor all the way up.
func (n *node) ready(id string, cores uint32, mib uint64) *box {
	n.t.Helper()
	n.ask(start(id, cores, mib))
	n.waitFor("sandbox "+id, func() bool { return n.sandbox(id) != nil })
	b := n.dial(id)
	f, err := b.hear()
	if err != nil || f.Assign == nil || f.Assign.Executor != id || f.Assign.Lease != 7 {
		n.t.Fatalf("executor %s hears %+v, %v", id, f, err)
	}
	b.say(apiexec.FromExecutor{Ready: &apiexec.Ready{Address: "127.0.0.1:4000", Local: "/run/gleaner/self/control.sock"}})
	n.broker.await(n.t, "ready", func(m *api.AgentMessage) bool { return m.GetReady().GetId() == id })
	return b
}

func (n *node) sandbox(id string) *launcher.Sandbox {
	all, _ := n.fake.List(context.Background())
	for _, s := range all {
		if s.ID == id {
			return &s
		}
	}
	return nil
}

func (n *node) waitFor(what string, ok func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("no %s", what)
		}
	}
}

func (n *node) ended(id string) *api.ExecutorEnded {
	n.t.Helper()
	return n.broker.await(n.t, "end of "+id, func(m *api.AgentMessage) bool { return m.GetEnded().GetId() == id }).GetEnded()
}

// gateConn is one conversation of gate or hook.
type gateConn struct {
	t    testing.TB
	conn net.Conn
}

func (n *node) gate(f gate.Frame) *gateConn {
	n.t.Helper()
	conn, err := net.Dial("unix", n.cfg.Socket)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = conn.Close() })
	b, err := f.Append(nil)
	if err == nil {
		_, err = conn.Write(b)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return &gateConn{n.t, conn}
}

func (g *gateConn) hear(want gate.Kind) *gate.Frame {
	g.t.Helper()
	_ = g.conn.SetReadDeadline(time.Now().Add(patience))
	f, err := gate.Read(g.conn)
	if err != nil || f.Kind != want {
		g.t.Fatalf("gate hears %+v, %v; want kind %d", f, err, want)
	}
	return f
}

// claim asks and returns the final answer.
func (n *node) claim(job uint32, cores string, mib uint64, want gate.Kind) *gate.Frame {
	n.t.Helper()
	g := n.gate(gate.Frame{Kind: gate.Claim, Job: job, Cores: cores, MiB: mib, Node: "n1"})
	g.hear(gate.Ack)
	return g.hear(want)
}

func (n *node) describe() string {
	all, _ := n.fake.List(context.Background())
	return fmt.Sprint(all)
}

func specOf(id string) *launcher.Spec {
	return &launcher.Spec{ID: id, UID: testUID, GID: testUID, MilliCPUs: 1000, MemoryBytes: 64 << 20}
}
