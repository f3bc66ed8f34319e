// Package libgleaner tests the C library against real executors, started as ordinary processes under an agent that the test plays,
// and a lease that the test lends by package client/share. The C side is client/c/ctest/client_test.c, under sanitizers.
package libgleaner

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gleaner-hpc/gleaner/api"
	wire "github.com/gleaner-hpc/gleaner/api/executor"
	"github.com/gleaner-hpc/gleaner/api/jsonframe"
	"github.com/gleaner-hpc/gleaner/api/token"
	"github.com/gleaner-hpc/gleaner/client"
	"github.com/gleaner-hpc/gleaner/client/share"
)

const (
	root    = "../.."
	leaseID = 7
	buffer  = 1 << 20
)

// binaries are what the tests run, as make builds them.
var binaries = []string{"build/libexec/gleaner/executor", "build/libexec/gleaner/worker",
	"build/lib/libgleaner.so.1", "build/test/libgleaner-plain", "build/test/libgleaner-asan", "build/test/libgleaner-tsan"}

var (
	library []byte
	folder  string // of the executor's and the worker's copies: a witness of a cluster beside would take those in libexec for its own
)

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		log.Fatal(err)
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "gleaner-libgleaner-test-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	function := filepath.Join(dir, "function.so")
	for _, c := range []*exec.Cmd{
		exec.Command("make", append([]string{"-s", "-C", root}, binaries...)...),
		exec.Command("cp", filepath.Join(root, binaries[0]), filepath.Join(root, binaries[1]), dir),
		exec.Command("gcc", "-O1", "-shared", "-fPIC", "-o", function, "testdata/function.c"),
	} {
		if out, err := c.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("%v: %w: %s", c.Args, err, out)
		}
	}
	folder = dir
	if library, err = os.ReadFile(function); err != nil {
		return 0, err
	}
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		return 1, err
	}
	return code, nil
}

func binary(t *testing.T, path string) string {
	t.Helper()
	absolute, err := filepath.Abs(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return absolute
}

// world is a lease that is lent, with the key that signs its tokens.
type world struct {
	t        *testing.T
	function *client.Function
	server   *share.Server
	socket   string
	public   ed25519.PublicKey
	private  ed25519.PrivateKey
	holder   holder

	mu   sync.Mutex
	next int
	live map[string]*process
}

// holder counts what libgleaner asks of the lease's holder.
type holder struct {
	world               *world
	mu                  sync.Mutex
	refreshes           int
	ok, failed, retried uint64
}

func (h *holder) Refresh() {
	h.mu.Lock()
	h.refreshes++
	h.mu.Unlock()
	h.world.announce(time.Hour)
}

func (h *holder) Add(ok, failed, retried uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ok, h.failed, h.retried = h.ok+ok, h.failed+failed, h.retried+retried
}

func (h *holder) counts() (ok, failed, retried uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ok, h.failed, h.retried
}

// reported waits for counts: the last report may be read only after the program has ended.
func (h *holder) reported(t *testing.T, fits func(ok, failed, retried uint64) bool) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		ok, failed, retried := h.counts()
		if fits(ok, failed, retried) {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("reported %d right, %d failed, %d repeated", ok, failed, retried)
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func newWorld(t *testing.T, symbol string, timeout time.Duration) *world {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	f := &client.Function{Name: "function.so", Symbol: symbol, Library: library, Digest: sha256.Sum256(library)}
	server, err := share.New(f)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, function: f, server: server, public: public, private: private, live: map[string]*process{}}
	w.holder.world = w
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "lease.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	w.socket = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- server.Run(ctx, listener, share.Terms{Lease: leaseID, Buffer: buffer, Timeout: timeout, Executors: 2}, &w.holder)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = server.Close()
		for _, id := range w.ids() {
			w.kill(id)
		}
	})
	return w
}

// process is a running executor.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
	agent  net.Conn
	ready  wire.Ready
}

// start runs an executor and waits until it is ready; it is not announced.
func (w *world) start() string {
	w.mu.Lock()
	w.next++
	id := fmt.Sprintf("%d-%d", leaseID, w.next)
	w.mu.Unlock()
	dir, err := os.MkdirTemp("", "gleaner-x") // short: its socket's path is bounded
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	listener, err := net.Listen("unix", filepath.Join(dir, "agent.sock"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	p := &process{exited: make(chan struct{})}
	p.cmd = exec.Command(filepath.Join(folder, "executor"), "--agent", listener.Addr().String(), "--id", id, "--self", dir)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.exited) }()
	if err := w.greet(p, listener, id); err != nil {
		w.t.Fatalf("executor %s: %v", id, err)
	}
	w.mu.Lock()
	w.live[id] = p
	w.mu.Unlock()
	return id
}

// greet plays the agent up to Ready.
func (w *world) greet(p *process, listener net.Listener, id string) error {
	_ = listener.(*net.UnixListener).SetDeadline(time.Now().Add(20 * time.Second))
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	p.agent = conn
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	var hello, ready wire.FromExecutor
	if err := jsonframe.Read(conn, &hello); err != nil {
		return err
	}
	assign := wire.Assign{Executor: id, Lease: leaseID, PublicKey: w.public, Symbol: w.function.Symbol, Digest: w.function.Digest[:],
		CodeBytes: uint64(len(library)), BufferBytes: buffer, Cores: 1, ListenHost: "127.0.0.1", OrphanTimeout: time.Minute}
	if err := jsonframe.Write(conn, wire.FromAgent{Assign: &assign}); err != nil {
		return err
	}
	if err := jsonframe.Read(conn, &ready); err != nil {
		return err
	}
	if ready.Ready == nil {
		return fmt.Errorf("said %+v", ready)
	}
	p.ready = *ready.Ready
	return conn.SetDeadline(time.Time{})
}

func (w *world) ids() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ids []string
	for id := range w.live {
		ids = append(ids, id)
	}
	return ids
}

// announce tells libgleaner of every executor, with tokens that live so long.
func (w *world) announce(life time.Duration) {
	for _, id := range w.ids() {
		w.mu.Lock()
		p := w.live[id]
		w.mu.Unlock()
		if p == nil {
			continue
		}
		signed, err := token.Sign(w.private, token.Claims{Lease: leaseID, Epoch: 1, UID: 1000, Expiry: time.Now().Add(life), Digest: w.function.Digest, Executor: id})
		if err != nil {
			w.t.Error(err)
			return
		}
		w.server.Ready(&api.Executor{Id: id, Node: "n1", Address: p.ready.Address, Local: p.ready.Local, Token: signed})
	}
}

// evict takes an executor away as an agent does: notice, then death; the broker's word comes last.
func (w *world) evict(id string) {
	w.mu.Lock()
	p := w.live[id]
	w.mu.Unlock()
	_ = jsonframe.Write(p.agent, wire.FromAgent{Revoke: &wire.Revoke{Reason: "evicted: job 12 needed cores 0-3"}})
	w.kill(id)
	w.server.Gone(id, api.EndReason_EVICTED, "job 12 needed cores 0-3")
}

// stop stops all executors and their workers, without ending them.
func (w *world) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.live {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGSTOP)
		workers, _ := exec.Command("pgrep", "-P", strconv.Itoa(p.cmd.Process.Pid)).Output()
		for pid := range strings.FieldsSeq(string(workers)) {
			if n, err := strconv.Atoi(pid); err == nil {
				_ = syscall.Kill(-n, syscall.SIGSTOP) // a worker has a process group of its own
			}
		}
	}
}

// kill ends an executor and its worker without a word.
func (w *world) kill(id string) {
	w.mu.Lock()
	p := w.live[id]
	delete(w.live, id)
	w.mu.Unlock()
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	select {
	case <-p.exited:
	case <-time.After(10 * time.Second):
		w.t.Errorf("executor %s does not end", id)
	}
	_ = p.agent.Close()
}

// command is a part of client_test.c in one of its builds.
func (w *world) command(kind, carrier string, args ...string) *exec.Cmd {
	cmd := exec.Command(binary(w.t, "build/test/libgleaner-"+kind), args...)
	cmd.Env = append(os.Environ(), "GLEANER_LEASE="+w.socket, "CARRIER="+carrier, "TSAN_OPTIONS=halt_on_error=1 suppressions="+w.suppressions())
	return cmd
}

// suppressions are for libfabric, whose locks the sanitizer does not see.
func (w *world) suppressions() string {
	path, err := filepath.Abs("testdata/tsan.txt")
	if err != nil {
		w.t.Fatal(err)
	}
	return path
}

// passes runs a command that has to end well within the time.
func passes(t *testing.T, cmd *exec.Cmd, limit time.Duration) {
	t.Helper()
	stop := time.AfterFunc(limit, func() { _ = cmd.Process.Signal(syscall.SIGABRT) })
	out, err := cmd.CombinedOutput()
	if !stop.Stop() {
		t.Errorf("not done within %v", limit)
	}
	if err != nil || strings.Contains(string(out), "not ok") {
		t.Errorf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
}
