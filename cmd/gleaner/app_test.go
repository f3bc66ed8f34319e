package main

import (
	"bytes"
	"context"
	"flag"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/client"
	"github.com/gleaner-hpc/gleaner/identity"
)

var testdata, _ = filepath.Abs("testdata") // tests change folders

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) {
	time.Local = time.UTC // what listings show does not depend on the machine
	goleak.VerifyTestMain(m)
}

// broker is a broker over TCP that has one executor for each lease.
type broker struct {
	api.UnimplementedLeasesServer
	api.UnimplementedClusterServer

	mu       sync.Mutex
	refuse   error
	keeps    error         // answer to Release
	slow     time.Duration // until Acquire answers
	slurm    string        // why slurmctld cannot be read
	acquired []*api.AcquireRequest
	released int
	over     chan struct{}
}

func startBroker(t *testing.T) (*broker, string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &broker{over: make(chan struct{})}
	server := grpc.NewServer(grpc.UnaryInterceptor(identity.Unary(identity.None{})), grpc.StreamInterceptor(identity.Stream(identity.None{})))
	api.RegisterLeasesServer(server, b)
	api.RegisterClusterServer(server, b)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	t.Cleanup(func() { close(b.over); server.Stop(); <-served })
	return b, listener.Addr().String()
}

func (b *broker) Acquire(_ context.Context, r *api.AcquireRequest) (*api.Lease, error) {
	time.Sleep(b.slow)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse != nil {
		return nil, b.refuse
	}
	b.acquired = append(b.acquired, r)
	request := proto.Clone(r).(*api.AcquireRequest)
	request.Ttl = durationpb.New(30 * time.Second)
	return &api.Lease{Id: uint64(41 + len(b.acquired)), State: api.LeaseState_PENDING, Request: request}, nil
}

func (b *broker) Watch(r *api.WatchRequest, stream grpc.ServerStreamingServer[api.LeaseEvent]) error {
	if err := stream.Send(&api.LeaseEvent{Kind: api.LeaseEvent_EXECUTOR_READY, Executor: &api.Executor{Id: "42-0", Node: "n1"}}); err != nil {
		return err
	}
	select {
	case <-stream.Context().Done():
	case <-b.over:
	}
	return nil
}

func (b *broker) Release(context.Context, *api.ReleaseRequest) (*api.Lease, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.keeps != nil {
		return nil, b.keeps
	}
	b.released++
	return &api.Lease{State: api.LeaseState_ENDED}, nil
}

func (b *broker) ReportTasks(context.Context, *api.ReportTasksRequest) (*api.ReportTasksResponse, error) {
	return &api.ReportTasksResponse{}, nil
}

var someDay = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func (b *broker) List(context.Context, *api.ListRequest) (*api.ListResponse, error) {
	request := &api.AcquireRequest{Executors: 8, Cores: 1, MemoryBytes: 512 << 20, Function: &api.Function{Name: "libthumbnailer.so", Symbol: "thumbnailer"}}
	return &api.ListResponse{Leases: []*api.Lease{
		{Id: 41, State: api.LeaseState_ENDED, EndReason: api.EndReason_JOB_ENDED, Detail: "job 7 is over", Uid: 4000000001, JobId: 7, Account: "physics", Request: request,
			Created: timestamppb.New(someDay), Ended: timestamppb.New(someDay.Add(time.Minute)), Evictions: 3},
		{Id: 42, State: api.LeaseState_ACTIVE, Uid: 4000000001, Request: request, Created: timestamppb.New(someDay), Expires: timestamppb.New(someDay.Add(time.Minute)),
			Executors: []*api.Executor{{Id: "42-0", Node: "n1"}, {Id: "42-1", Node: "n2"}}, Spin: durationpb.New(1500 * time.Millisecond)},
	}}, nil
}

func (b *broker) Nodes(context.Context, *api.NodesRequest) (*api.NodesResponse, error) {
	return &api.NodesResponse{SlurmAsOf: timestamppb.New(someDay), SlurmError: b.slurm, Nodes: []*api.NodeStatus{
		{Node: "n1", SlurmState: "mixed", Connected: true, Admitting: true, Executors: 2, AgentVersion: "v1",
			Total: &api.Resources{Cores: 8, MemoryBytes: 16 << 30, Gpus: 2}, Slurm: &api.Resources{Cores: 3, MemoryBytes: 4 << 30, Gpus: 1},
			Leased: &api.Resources{Cores: 2, MemoryBytes: 1 << 30}, Free: &api.Resources{Cores: 3, MemoryBytes: 10 << 30, Gpus: 1}},
		{Node: "n2", SlurmState: "drained", Connected: true, WhyNot: "node is drained", Total: &api.Resources{Cores: 128, MemoryBytes: 512 << 30}},
		{Node: "n3", SlurmState: "idle", Note: "2 of 2 GPUs not lent: /dev/nvidia0 does not exist"},
	}}, nil
}

func (b *broker) Explain(_ context.Context, r *api.ExplainRequest) (*api.Explanation, error) {
	if r.GetLeaseId() != 42 {
		return nil, status.Error(codes.NotFound, "no such lease")
	}
	return &api.Explanation{Summary: "Task 7 was evicted once and then succeeded.", Advice: "Nothing to do.", History: []*api.Explanation_Entry{
		{Time: timestamppb.New(someDay), What: "ran on n1", Why: "evicted: job 12 needed cores 0-3"}, {Time: timestamppb.New(someDay.Add(time.Second)), What: "ran on n2"}}}, nil
}

// upper is an executor whose function answers in upper case and refuses "bad".
type upper struct{ gone chan struct{} }

func (upper) Invoke(_ context.Context, input, result []byte, _ time.Duration) (int, error) {
	if string(input) == "bad" {
		return 0, &client.FunctionError{Detail: "bad input"}
	}
	return copy(result, bytes.ToUpper(input)), nil
}
func (upper) Slots() int              { return 2 }
func (u upper) Gone() <-chan struct{} { return u.gone }
func (upper) Err() error              { return nil }
func (upper) Close() error            { return nil }

func connect(context.Context, *api.Executor, *client.Function, client.Path) (client.Conn, error) {
	return upper{make(chan struct{})}, nil
}

type outcome struct {
	code           int
	stdout, stderr string
}

func gleaner(t *testing.T, env map[string]string, stdin string, args ...string) outcome {
	t.Helper()
	return gleanerContext(t.Context(), env, stdin, args...)
}

func gleanerContext(ctx context.Context, env map[string]string, stdin string, args ...string) outcome {
	var stdout, stderr bytes.Buffer
	a := &app{stdin: strings.NewReader(stdin), stdout: &stdout, stderr: &stderr, connector: connect,
		getenv: func(name string) string { return env[name] }}
	code := a.main(ctx, append([]string{"--identity", "none"}, args...))
	return outcome{code, stdout.String(), stderr.String()}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join(testdata, name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got, -update rewrites it):\n%s", path, diff)
	}
}

func TestListings(t *testing.T) {
	_, address := startBroker(t)
	for name, args := range map[string][]string{"nodes": {"nodes"}, "leases": {"leases", "--all"}, "explain": {"explain", "42.7"}} {
		for _, mode := range []string{"text", "json", "csv"} {
			t.Run(name+" "+mode, func(t *testing.T) {
				got := gleaner(t, map[string]string{"GLEANER_BROKER": address, "GLEANER_OUTPUT_MODE": mode}, "", args...)
				if got.code != 0 || got.stderr != "" {
					t.Fatalf("exit %d, %s", got.code, got.stderr)
				}
				golden(t, name+"."+mode, got.stdout)
			})
		}
	}
}

func TestSnippet(t *testing.T) {
	got := gleaner(t, nil, "", "slurm-snippet", "--prefix", "/opt/gleaner")
	if got.code != 0 {
		t.Fatalf("%+v", got)
	}
	golden(t, "slurm-snippet", got.stdout)
	conf, _, _ := strings.Cut(got.stdout, "# ---- plugstack.conf")
	lines := regexp.MustCompile(`(?m)^[^#\n].*\n`).FindAllString(conf, -1)
	readme, err := os.ReadFile("../../README.md")
	if shown := "```\n" + strings.ReplaceAll(strings.Join(lines, ""), "/opt/gleaner", "/usr/local") + "```\n"; err != nil || !strings.Contains(string(readme), shown) {
		t.Errorf("README.md does not show these lines for slurm.conf: %s%v", shown, err)
	}
}

var seconds = regexp.MustCompile(`in [0-9.]+(µs|ms|s)`)

func TestMapInvokeAndResume(t *testing.T) {
	b, address := startBroker(t)
	library := libc(t)
	dir := t.TempDir()
	t.Chdir(dir)
	env := map[string]string{"GLEANER_BROKER": address, "SLURM_JOB_ID": "77", "GLEANER_EXECUTORS": "3", "GLEANER_MEM_PER_EXECUTOR": "1G"}
	lines := "one\nbad\nthree\n"
	args := []string{"map", library + ":qsort", "--lines", "-", "--out", "out/{index}.txt", "--summary", "summary.json", "--failed-list", "failed"}

	first := gleaner(t, env, lines, args...)
	second := gleaner(t, env, lines, args...)
	third := gleaner(t, env, lines, append(args, "--force", "--output", "csv")...)
	invoked := gleaner(t, env, "abc", "invoke", library+":qsort", "-")

	story := "first:\n" + first.stdout + first.stderr + "second:\n" + second.stdout + second.stderr + "invoke:\n" + invoked.stdout
	golden(t, "map", seconds.ReplaceAllString(story, "in TIME"))
	if first.code != exitFailed || second.code != exitFailed || third.code != exitFailed || invoked.code != exitOK {
		t.Errorf("exit codes %d, %d, %d, %d", first.code, second.code, third.code, invoked.code)
	}
	if text, err := os.ReadFile("out/3.txt"); err != nil || string(text) != "THREE" {
		t.Errorf("result %q, %v", text, err)
	}
	if text, err := os.ReadFile("failed"); err != nil || string(text) != "line 2\n" {
		t.Errorf("failed list %q, %v", text, err)
	}
	if _, err := os.Stat("summary.json"); err != nil {
		t.Error(err)
	}
	if len(b.acquired) != 4 || b.released != 4 {
		t.Fatalf("%d leases acquired, %d released", len(b.acquired), b.released)
	}
	r := b.acquired[0]
	if r.JobId != 77 || r.Executors != 3 || r.MemoryBytes != 1<<30 || r.Function.Symbol != "qsort" {
		t.Errorf("request %v", r)
	}
	if b.acquired[1].Executors != 1 {
		t.Errorf("asked for %d executors for one task", b.acquired[1].Executors)
	}
}

// libc is a shared library that every machine has.
func libc(t *testing.T) string {
	t.Helper()
	for _, pattern := range []string{"/lib/*/libc.so.6", "/lib64/libc.so.6", "/usr/lib/libc.so.6"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0]
		}
	}
	t.Skip("no libc.so.6 in a usual place")
	return ""
}

func TestExitCodes(t *testing.T) {
	b, address := startBroker(t)
	library := libc(t) + ":qsort"
	env := map[string]string{"GLEANER_BROKER": address}
	input := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(input, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	mapTo := func(template string) []string { return []string{"map", library, input, "--out", template} }
	tests := map[string]struct {
		refuse error
		args   []string
		code   int
		stderr string
	}{
		"version":             {nil, []string{"version"}, exitOK, ""},
		"no such command":     {nil, []string{"node"}, exitUsage, `did you mean "nodes"`},
		"no such flag":        {nil, []string{"nodes", "--all"}, exitUsage, "unknown flag"},
		"too few arguments":   {nil, []string{"map"}, exitUsage, "see 'gleaner map --help'"},
		"bad output mode":     {nil, []string{"nodes", "--output", "xml"}, exitUsage, "want text, json or csv"},
		"no out":              {nil, []string{"map", library, input}, exitUsage, "--out is missing"},
		"no inputs":           {nil, []string{"map", library, "--out", "x{stem}"}, exitUsage, "no inputs"},
		"bad memory":          {nil, []string{"invoke", library, "--mem-per-executor", "lots"}, exitUsage, "memory size"},
		"no such function":    {nil, []string{"invoke", libc(t) + ":nope"}, exitUsage, `exports no function "nope"`},
		"bad lease":           {nil, []string{"release", "x"}, exitUsage, "want a number"},
		"unknown lease":       {nil, []string{"explain", "43"}, exitUsage, "no such lease"},
		"bad time":            {nil, []string{"report", "--since", "yore"}, exitUsage, "want now-1hour"},
		"unreachable":         {nil, []string{"nodes", "--broker", "127.0.0.1:1"}, exitUnreachable, "Is the broker running"},
		"denied":              {status.Error(codes.PermissionDenied, "limit max_leases_per_user"), []string{"invoke", library}, exitDenied, "max_leases_per_user"},
		"never":               {status.Error(codes.FailedPrecondition, "largest node has 8 cores"), []string{"invoke", library}, exitDenied, "gleaner nodes"},
		"function fails":      {nil, []string{"map", library, "--lines", "testdata/bad.txt", "--out", t.TempDir() + "/{index}"}, exitFailed, ""},
		"not now":             {status.Error(codes.Aborted, "job_id: whose job"), mapTo(t.TempDir() + "/{index}"), exitUnreachable, "gleaner: acquire a lease: job_id: whose job\n"},
		"never, map":          {status.Error(codes.FailedPrecondition, "largest node has 8 cores"), mapTo(t.TempDir() + "/{index}"), exitDenied, "gleaner nodes"},
		"no room for results": {nil, mapTo("/proc/none/{index}"), exitUsage, "result folder"},
		"input is a folder":   {nil, []string{"map", library, "testdata", "--out", t.TempDir() + "/{name}"}, exitUsage, "testdata/*"},
		"buffer too large":    {nil, []string{"invoke", library, "--buffer", "100M"}, exitUsage, "try --mem-per-executor 448M"},
		"no port":             {nil, []string{"nodes", "--broker", "head"}, exitUsage, "want host:port"},
		"relative prefix":     {nil, []string{"slurm-snippet", "--prefix", "opt"}, exitUsage, "absolute path"},
		"check what":          {nil, []string{"check"}, exitUsage, "check what"},
		"check config":        {nil, []string{"check", "config", "../../contrib/config/broker.toml"}, exitOK, ""},
		"check broken config": {nil, []string{"check", "config", "testdata/bad.txt"}, exitUsage, "testdata/bad.txt"},
		"check no config":     {nil, []string{"check", "config"}, exitUsage, "which file"},
		"no summary":          {nil, append(mapTo(t.TempDir()+"/{index}"), "--summary", "/proc/none/s.json"), exitUsage, "--summary: "},
		"no list of failed":   {nil, append(mapTo(t.TempDir()+"/{index}"), "--failed-list", "testdata"), exitUsage, "--failed-list: testdata: is a folder"},
		"no lines":            {nil, []string{"map", library, "--lines", os.DevNull, "--out", "x{index}"}, exitUsage, "has only empty lines"},
		"no input":            {nil, []string{"map", library, "none", "--out", "x{index}"}, exitUsage, "input none: no such file"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b.mu.Lock()
			b.refuse = test.refuse
			b.mu.Unlock()
			got := gleaner(t, env, "", test.args...)
			if got.code != test.code || !strings.Contains(got.stderr, test.stderr) {
				t.Errorf("exit %d, want %d; %s", got.code, test.code, got.stderr)
			}
		})
	}
}

// TestBrokerHasToAsk: whoever waits for a lease is told at once what for, and the broker's answer is not taken for none.
func TestBrokerHasToAsk(t *testing.T) {
	b, address := startBroker(t)
	b.slow, b.slurm, b.refuse = 3*answerNotice, "connection refused", status.Error(codes.Aborted, "job_id: whose job 77 is cannot be known while slurmctld cannot be read")
	waits := "gleaner: the broker waits to hear whose job 77 is from slurmctld, which cannot be read: connection refused\n"
	said := "gleaner: acquire a lease: job_id: whose job 77 is cannot be known while slurmctld cannot be read\n"
	for _, args := range [][]string{{"map", libc(t) + ":qsort", "app.go", "--out", t.TempDir() + "/{index}"}, {"invoke", libc(t) + ":qsort"}} {
		got := gleaner(t, map[string]string{"GLEANER_BROKER": address, "SLURM_JOB_ID": "77"}, "", args...)
		if got.code != exitUnreachable || got.stderr != waits+said {
			t.Errorf("%s: exit %d, %q", args[0], got.code, got.stderr)
		}
	}
}

// TestLeaseStays: a lease that cannot be given back is no failure of the map, and does not go without a word.
func TestLeaseStays(t *testing.T) {
	b, address := startBroker(t)
	b.keeps = status.Error(codes.Unavailable, "connection refused")
	got := gleaner(t, map[string]string{"GLEANER_BROKER": address}, "", "map", libc(t)+":qsort", "app.go", "--out", t.TempDir()+"/{index}")
	want := "gleaner: warning: release lease 42: broker not reachable: connection refused; it ends by itself, at the latest 30s after the broker is there again\n"
	if got.code != exitOK || got.stderr != want {
		t.Errorf("exit %d, %q", got.code, got.stderr)
	}
}

func TestInterrupt(t *testing.T) {
	b, address := startBroker(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	got := gleanerContext(ctx, map[string]string{"GLEANER_BROKER": address}, "a\nb\n", "map", libc(t)+":qsort", "--lines", "-", "--out", t.TempDir()+"/{index}")
	if got.code != exitInterrupted || !strings.Contains(got.stderr, "run the same command again") {
		t.Errorf("%+v", got)
	}
	if len(b.acquired) != b.released {
		t.Errorf("%d leases acquired, %d released", len(b.acquired), b.released)
	}
}
