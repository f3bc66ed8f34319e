package executor_test

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"golang.org/x/sys/unix"

	wire "github.com/gleaner-hpc/gleaner/api/executor"
	"github.com/gleaner-hpc/gleaner/api/jsonframe"
	"github.com/gleaner-hpc/gleaner/api/token"
	"github.com/gleaner-hpc/gleaner/fabric"
)

// built is where the binaries under test and the functions lie. A machine without compilers is given them in $GLEANER_TEST_BUILT.
var built string

// provider and host are what the ofi carrier is tested on.
var provider, host = os.Getenv("GLEANER_TEST_PROVIDER"), cmp.Or(os.Getenv("GLEANER_TEST_HOST"), "127.0.0.1")

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		log.Fatal(err)
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "gleaner-executor-test-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if built = os.Getenv("GLEANER_TEST_BUILT"); built == "" {
		built = dir
		if err := build(); err != nil {
			return 0, err
		}
	}
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		return 1, err
	}
	return code, nil
}

// build makes worker, executor and functions.
func build() error {
	dir := built
	sources, err := filepath.Glob("worker/*.c")
	if err != nil {
		return err
	}
	worker := append([]string{"-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-I../fabric", "-o", dir + "/worker"}, sources...)
	worker = append(worker, "../fabric/layout.c", "../fabric/ofi.c", "../fabric/libfabric.c", "-ldl", "-lpthread")
	supervisor := exec.Command("go", "build", "-o", dir+"/executor", "../cmd/executor")
	supervisor.Env = append(os.Environ(), "CGO_ENABLED=0")
	commands := []*exec.Cmd{
		exec.Command("cc", worker...), supervisor,
		exec.Command("cc", "-O1", "-shared", "-fPIC", "-o", dir+"/functions.so", "testdata/functions.c"),
		exec.Command("cc", "-O1", "-shared", "-fPIC", "-o", dir+"/hang.so", "testdata/hang.c"),
		exec.Command("cc", "-O1", "-shared", "-fPIC", "-o", dir+"/environment.so", "testdata/environment.c"),
		exec.Command("cc", "-O1", "-shared", "-fPIC", "-o", dir+"/unresolved.so", "testdata/unresolved.c"),
		exec.Command("cc", "-O1", "-shared", "-fPIC", "-o", dir+"/calls.so", "testdata/calls.c", "-lpthread"),
	}
	for _, c := range commands {
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", c.Args, err, out)
		}
	}
	return nil
}

// bench is one executor with an agent played by the test.
type bench struct {
	t       testing.TB
	process *exec.Cmd
	exited  chan struct{}
	agent   net.Conn
	ready   wire.Ready
	assign  wire.Assign
	key     ed25519.PrivateKey
	library []byte
}

type change func(*wire.Assign)

// start runs an executor as an ordinary process and assigns it a lease.
func start(t testing.TB, library string, changes ...change) *bench {
	t.Helper()
	code, err := os.ReadFile(filepath.Join(built, library))
	if err != nil {
		t.Fatal(err)
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(code)
	b := &bench{t: t, key: private, library: code, exited: make(chan struct{}), assign: wire.Assign{
		Executor: "7-1", Lease: 7, Job: 42, PublicKey: public, Symbol: "run", Digest: digest[:], CodeBytes: uint64(len(code)), BufferBytes: 8 << 20,
		Cores: 1, ListenHost: host, Provider: provider, OrphanTimeout: time.Minute,
	}}
	for _, change := range changes {
		change(&b.assign)
	}
	dir := t.TempDir()
	listener, err := net.Listen("unix", filepath.Join(dir, "agent.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	b.process = exec.Command(filepath.Join(built, "executor"), "--agent", listener.Addr().String(), "--id", "7-1", "--self", dir, "--load-timeout", "1s")
	if testing.Verbose() {
		b.process.Stderr = os.Stderr
	}
	b.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = b.process.Wait(); close(b.exited) }()
	t.Cleanup(b.stop)
	b.greet(listener)
	return b
}

// greet plays the agent up to Ready.
func (b *bench) greet(listener net.Listener) {
	b.t.Helper()
	_ = listener.(*net.UnixListener).SetDeadline(time.Now().Add(10 * time.Second))
	conn, err := listener.Accept()
	if err != nil {
		b.t.Fatal(err)
	}
	b.agent = conn
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	var hello, ready wire.FromExecutor
	if err := jsonframe.Read(conn, &hello); err != nil || hello.Hello == nil || hello.Hello.ID != "7-1" {
		b.t.Fatalf("hello: %+v, %v", hello, err)
	}
	if err := jsonframe.Write(conn, wire.FromAgent{Assign: &b.assign}); err != nil {
		b.t.Fatal(err)
	}
	if err := jsonframe.Read(conn, &ready); err != nil || ready.Ready == nil {
		b.t.Fatalf("ready: %+v, %v", ready, err)
	}
	b.ready = *ready.Ready
}

func (b *bench) stop() {
	_ = b.process.Process.Kill()
	select {
	case <-b.exited:
	case <-time.After(10 * time.Second):
		b.t.Error("executor does not end")
	}
	if b.agent != nil {
		_ = b.agent.Close()
	}
}

func (b *bench) claims() token.Claims {
	return token.Claims{Lease: b.assign.Lease, Epoch: 1, UID: 1000, Expiry: time.Now().Add(time.Hour), Digest: [32]byte(b.assign.Digest), Executor: b.assign.Executor}
}

func (b *bench) endpoint(c token.Claims) fabric.Endpoint {
	b.t.Helper()
	signed, err := token.Sign(b.key, c)
	if err != nil {
		b.t.Fatal(err)
	}
	return fabric.Endpoint{Address: b.ready.Address, Local: b.ready.Local, Token: signed}
}

func (b *bench) dial(o fabric.Options) (*fabric.Conn, error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	return fabric.Dial(ctx, b.endpoint(b.claims()), fabric.Code{Symbol: b.assign.Symbol, Library: b.library}, o)
}

// connect dials and closes at the end of the test.
func (b *bench) connect(o fabric.Options) *fabric.Conn {
	b.t.Helper()
	if o.BufferBytes == 0 {
		o.BufferBytes = 8 << 20
	}
	c, err := b.dial(o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { closeQuietly(c) })
	return c
}

func closeQuietly(c io.Closer) { _ = c.Close() }

var carriers = []string{"ring", "ofi"}

// waitBegun waits until the process has used some processor time since: its endless function runs.
func waitBegun(t testing.TB, pid string) {
	t.Helper()
	used := func() string {
		b, err := os.ReadFile("/proc/" + pid + "/schedstat")
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before := used()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		if now := used(); now != before {
			return
		}
	}
	t.Fatal("function does not begin")
}

// waitAsleep waits until a function sleeps in its own call of nanosleep.
func waitAsleep(t testing.TB, pid string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		b, err := os.ReadFile("/proc/" + pid + "/syscall")
		if err != nil {
			t.Skip("cannot see what a process waits for: ", err)
		}
		var call int
		if _, err := fmt.Sscan(string(b), &call); err == nil && (call == unix.SYS_NANOSLEEP || call == unix.SYS_CLOCK_NANOSLEEP) {
			return
		}
	}
	t.Fatal("function does not sleep")
}

func residentKiB(t testing.TB, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	var total, resident int
	if _, err := fmt.Sscan(string(b), &total, &resident); err != nil {
		t.Fatal(err)
	}
	return resident * os.Getpagesize() / 1024
}

func descriptors(t testing.TB, pid any) int {
	t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%v/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// awaitDescriptors waits until the supervisor has as few descriptors as before; -1 until it has seen its client leave.
func awaitDescriptors(t testing.TB, b *bench, want int) {
	t.Helper()
	last := 1 << 20
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		now := descriptors(t, b.process.Process.Pid)
		if want < 0 && now == last || want >= 0 && now <= want {
			return
		}
		last = now
	}
	t.Errorf("supervisor: %d descriptors, before %d", last, want)
}
