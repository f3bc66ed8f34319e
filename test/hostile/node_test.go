// Package hostile attacks one node with all that a function, a library or a caller can do to it: the real launcher, executors and
// workers in their sandboxes, with agent and broker played by the test. Each attack is contained, whoever made it is told by name what
// became of it soon after his deadline, a neighbour's lease answers all the while, and nothing is left behind.
package hostile

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/agent/execsock"
	"github.com/gleaner-hpc/gleaner/agent/launch"
	wire "github.com/gleaner-hpc/gleaner/api/executor"
	"github.com/gleaner-hpc/gleaner/api/launcher"
	"github.com/gleaner-hpc/gleaner/api/token"
	"github.com/gleaner-hpc/gleaner/fabric"
	"github.com/gleaner-hpc/gleaner/fabric/channel"
)

const (
	parent = "gleaner-hostile"
	// firstUID is the first lease's owner; each lease has one of its own, so that what is left of it can be told.
	firstUID = 61400
	// patience is for a busy machine, and for an emulated one. What is waited for takes milliseconds.
	patience = time.Minute
	// late is how much longer than its deadline a call may take. It is a second where the machine is not emulated or busy.
	late = 40 * time.Second
)

// built holds the programs and libraries of the test; a machine without compilers is given them in $GLEANER_TEST_BUILT.
var built string

func TestMain(m *testing.M) {
	if os.Getenv("GLEANER_STRANGER") != "" {
		fmt.Print(stranger())
		return
	}
	code, err := buildAndRun(m)
	if err != nil {
		log.Fatal(err)
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	if built = os.Getenv("GLEANER_TEST_BUILT"); built == "" {
		dir, err := os.MkdirTemp("", "gleaner-hostile-build-")
		if err != nil {
			return 0, err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		built = dir
		if out, err := exec.Command("./build", dir).CombinedOutput(); err != nil {
			return 0, fmt.Errorf("build what is attacked: %w: %s", err, out)
		}
	}
	return m.Run(), nil
}

// node is the part of a node that runs sandboxes.
type node struct {
	t        *testing.T
	dir      string
	name     string
	launcher *exec.Cmd
	client   *launch.Client
	key      ed25519.PrivateKey
	public   ed25519.PublicKey
	latest   time.Duration // the latest answer after its deadline

	mu     sync.Mutex
	leases map[string]*lease
	count  int
}

// lease is one executor with its owner.
type lease struct {
	n       *node
	id      string
	uid     uint32
	number  uint64
	assign  wire.Assign
	library []byte
	pid     int

	said   chan wire.FromExecutor
	ready  wire.Ready
	exited chan launcher.Exited
}

func newNode(t *testing.T) *node {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: sandboxes are made of cgroups and mounts")
	}
	dir, err := os.MkdirTemp("", "gleaner-hostile-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	n := &node{t: t, dir: dir, name: filepath.Base(dir), leases: map[string]*lease{}}
	if n.public, n.key, err = ed25519.GenerateKey(nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), n.installExecutor()); err != nil {
		t.Fatal(err)
	}
	n.startAgent()
	n.startLauncher()
	return n
}

func (n *node) run(parts ...string) string {
	return filepath.Join(append([]string{n.dir, "run"}, parts...)...)
}

// installExecutor gives the launcher a folder that holds what sandboxes may see, and no more.
func (n *node) installExecutor() error {
	dir := filepath.Join(n.dir, "libexec")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"executor", "worker"} {
		text, err := os.ReadFile(filepath.Join(built, "libexec/gleaner", name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) launcherArgs() []string {
	return []string{
		"--socket", n.run("launch.sock"), "--run-dir", n.run(), "--libexec", filepath.Join(n.dir, "libexec"), "--cgroup-parent", parent, "--node", n.name,
		"--command", "/gleaner/executor --agent /run/gleaner/agent/executors.sock --id %i --load-timeout " + loading.String(),
	}
}

func (n *node) startLauncher() {
	n.t.Helper()
	n.launcher = exec.Command(filepath.Join(built, "libexec/gleaner/launch"), n.launcherArgs()...)
	said := &strings.Builder{}
	n.launcher.Stdout, n.launcher.Stderr = said, said
	n.launcher.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := n.launcher.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.await("the launcher listens", func() bool { return exists(n.run("launch.sock")) })
	n.client = launch.Dial(n.run("launch.sock"))
	done := make(chan struct{})
	go n.hearExits(done)
	n.t.Cleanup(func() {
		n.client.Close()
		close(done)
		_ = n.launcher.Process.Signal(syscall.SIGTERM)
		_ = n.launcher.Wait()
		if out, err := exec.Command(filepath.Join(built, "libexec/gleaner/launch"), append(n.launcherArgs(), "--cleanup")...).CombinedOutput(); err != nil {
			n.t.Errorf("clean up: %v: %s", err, out)
		}
		if n.t.Failed() {
			n.t.Logf("the launcher said: %s", said)
		}
		for _, trace := range n.traces(n.name) {
			n.t.Errorf("left behind: %s", trace)
		}
		for _, root := range hierarchies() {
			_ = os.Remove(filepath.Join(root, parent))
		}
	})
}

func (n *node) hearExits(done <-chan struct{}) {
	for {
		select {
		case x := <-n.client.Exited():
			n.mu.Lock()
			if l := n.leases[x.ID]; l != nil {
				l.exited <- x
			}
			n.mu.Unlock()
		case <-done:
			return
		}
	}
}

// startAgent serves the executors' socket as the agent does: whose executor speaks is told by its cgroup.
func (n *node) startAgent() {
	n.t.Helper()
	events := make(chan execsock.Event, 64)
	server, err := execsock.Listen(execsock.Config{
		Path: n.run("agent", "sockets", "executors.sock"), Identify: execsock.ByCgroup(n.name), Events: events, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { _ = server.Run(ctx) })
	group.Go(func() {
		for {
			select {
			case e := <-events:
				n.heard(e)
			case <-ctx.Done():
				return
			}
		}
	})
	n.t.Cleanup(func() { cancel(); group.Wait() })
}

func (n *node) heard(e execsock.Event) {
	n.mu.Lock()
	l := n.leases[e.Link.ID]
	n.mu.Unlock()
	switch {
	case l == nil || e.Closed:
	case e.Frame.Hello != nil && (e.Frame.Hello.ID != l.id || e.Link.UID != l.uid):
		e.Link.Close()
	case e.Frame.Hello != nil:
		_ = e.Link.Send(wire.FromAgent{Assign: &l.assign})
	default:
		select {
		case l.said <- *e.Frame:
		default:
		}
	}
}

// lease starts an executor for a library and waits until it is ready.
func (n *node) lease(library string, changes ...func(*launcher.Spec, *wire.Assign)) *lease {
	n.t.Helper()
	code, err := os.ReadFile(filepath.Join(built, library))
	if err != nil {
		n.t.Fatal(err)
	}
	digest := sha256.Sum256(code)
	n.mu.Lock()
	n.count++
	l := &lease{
		n: n, id: fmt.Sprintf("%d-1", n.count), uid: firstUID + uint32(n.count), number: uint64(n.count), library: code,
		said: make(chan wire.FromExecutor, 16), exited: make(chan launcher.Exited, 1),
	}
	spec := launcher.Spec{ID: l.id, UID: l.uid, GID: l.uid, MilliCPUs: 1000, MemoryBytes: 96 << 20, TmpBytes: 16 << 20, PIDs: 64}
	l.assign = wire.Assign{
		Executor: l.id, Lease: l.number, Epoch: 2, Job: 42, PublicKey: n.public, Symbol: "run", Digest: digest[:], CodeBytes: uint64(len(code)),
		BufferBytes: 1 << 20, Cores: 1, ListenHost: "127.0.0.1", Provider: "tcp;ofi_rxm", OrphanTimeout: time.Minute,
	}
	for _, change := range changes {
		change(&spec, &l.assign)
	}
	n.leases[l.id] = l
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if l.pid, err = n.client.Start(ctx, spec); err != nil {
		n.t.Fatalf("start: %v", err)
	}
	for l.ready == (wire.Ready{}) {
		select {
		case f := <-l.said:
			if f.Ready != nil {
				l.ready = *f.Ready
			}
		case <-time.After(patience):
			log, _ := os.ReadFile(n.run("executors", l.id, "log"))
			n.t.Fatalf("executor %s is not ready; it says: %s", l.id, log)
		}
	}
	return l
}

// claims are those of the token that the broker would sign for the lease.
func (l *lease) claims() token.Claims {
	return token.Claims{Lease: l.number, Epoch: 2, UID: l.uid, Expiry: time.Now().Add(time.Hour), Digest: [32]byte(l.assign.Digest), Executor: l.id}
}

func (l *lease) sign(c token.Claims, key ed25519.PrivateKey) []byte {
	l.n.t.Helper()
	signed, err := token.Sign(key, c)
	if err != nil {
		l.n.t.Fatal(err)
	}
	return signed
}

// control is the host's path of the executor's socket.
func (l *lease) control() string { return l.n.run("executors", l.id, "control.sock") }

func (l *lease) dial(signed []byte, carrier string) (*fabric.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	at := fabric.Endpoint{Address: l.ready.Address, Local: l.control(), Token: signed}
	return fabric.Dial(ctx, at, fabric.Code{Symbol: l.assign.Symbol, Library: l.library}, fabric.Options{Carrier: carrier, BufferBytes: 1 << 20})
}

func (l *lease) connect(carrier string) *fabric.Conn {
	l.n.t.Helper()
	c, err := l.dial(l.sign(l.claims(), l.n.key), carrier)
	if err != nil {
		l.n.t.Fatalf("connect to executor %s: %v", l.id, err)
	}
	return c
}

// end kills the sandbox and looks for what is left of it.
func (l *lease) end() launcher.Exited {
	t := l.n.t
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if left, err := l.n.client.Kill(ctx, l.id); err != nil || len(left) > 0 {
		t.Errorf("end executor %s: %v, %v remain", l.id, err, left)
	}
	var x launcher.Exited
	select {
	case x = <-l.exited:
	case <-time.After(patience):
		t.Errorf("the launcher does not tell the end of executor %s", l.id)
	}
	var left []string
	n := l.n
	n.await("nothing is left of the lease", func() bool {
		left = append(n.traces(l.id), ownedBy(l.uid)...)
		return len(left) == 0
	}, func() string { return strings.Join(left, ", ") })
	n.mu.Lock()
	delete(n.leases, l.id)
	n.mu.Unlock()
	return x
}

// await waits for a condition, with a deadline.
func (n *node) await(what string, ok func() bool, details ...func() string) {
	n.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			for _, detail := range details {
				what += ": " + detail()
			}
			n.t.Errorf("in vain: %s", what)
			return
		}
	}
}

func closeQuietly(c io.Closer) { _ = c.Close() }

// reach connects as a caller does.
func (l *lease) reach(ctx context.Context, network string) (net.Conn, error) {
	if network == "unix" {
		return net.DialTimeout(network, l.control(), patience)
	}
	return channel.Open(ctx, l.ready.Address)
}
