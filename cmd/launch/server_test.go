package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gleaner-hpc/gleaner/agent/launch"
	"github.com/gleaner-hpc/gleaner/agent/launch/launchtest"
	"github.com/gleaner-hpc/gleaner/api/launcher"
	"github.com/gleaner-hpc/gleaner/executor/sandbox"
)

// The test binary is also libcontainer's init, and the launcher itself.
func TestMain(m *testing.M) {
	if sandbox.IsInit() || os.Getenv("LAUNCH_TEST_MAIN") != "" {
		main()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// serveFake serves m on a socket until the test ends, and returns the socket's path.
func serveFake(t *testing.T, m manager, uid int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "launch.sock")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- (&server{manager: m, uid: uint32(uid), log: slog.New(slog.DiscardHandler)}).serve(ctx, path)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	awaitSocket(t, path)
	return path
}

func awaitSocket(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if conn, err := net.Dial("unix", path); err == nil {
			_ = conn.Close()
			return
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// TestSocketComesBack: a launcher whose socket was removed can be reached again, and keeps the connections that it has.
func TestSocketComesBack(t *testing.T) {
	path := serveFake(t, launchtest.NewFake(), os.Getuid())
	old := dial(t, path)
	awaitUp(t, old, true)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	awaitSocket(t, path)
	if _, err := old.List(t.Context()); err != nil {
		t.Errorf("the connection from before: %v", err)
	}
	awaitUp(t, dial(t, path), true)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the new socket: %v, %v", info.Mode(), err)
	}
}

func dial(t *testing.T, path string) *launch.Client {
	t.Helper()
	c := launch.Dial(path)
	t.Cleanup(c.Close)
	return c
}

// TestSocketConforms: what holds for the fake holds through server, socket and client.
func TestSocketConforms(t *testing.T) {
	launchtest.Conformance(t, func(t *testing.T) launchtest.Launcher {
		return dial(t, serveFake(t, launchtest.NewFake(), os.Getuid()))
	})
}

func TestKillSaysWhatRemains(t *testing.T) {
	f := launchtest.NewFake()
	c := dial(t, serveFake(t, f, os.Getuid()))
	for _, id := range []string{"a-0", "a-1"} {
		if _, err := c.Start(t.Context(), launchtest.Spec(id)); err != nil {
			t.Fatal(err)
		}
	}
	f.Stick("a-1")
	if remaining, err := c.Kill(t.Context(), "a-0", "a-1"); err != nil || len(remaining) != 1 || remaining[0] != "a-1" {
		t.Errorf("remaining %v, %v", remaining, err)
	}
}

// Without an agent sandboxes end, whatever runs in them; with one, or with one that comes back in time, they stay.
func TestSandboxesEndWithoutAnAgent(t *testing.T) {
	f := launchtest.NewFake()
	s := &server{manager: f, uid: uint32(os.Getuid()), log: slog.New(slog.DiscardHandler), orphanTimeout: 200 * time.Millisecond}
	path := filepath.Join(t.TempDir(), "launch.sock")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.serve(ctx, path) }()
	t.Cleanup(func() { cancel(); <-done })
	awaitSocket(t, path)

	first := launch.Dial(path)
	if _, err := first.Start(ctx, launchtest.Spec("a-0")); err != nil {
		t.Fatal(err)
	}
	first.Close()
	second := launch.Dial(path) // in time
	awaitUp(t, second, true)
	awaited := time.NewTimer(2 * s.orphanTimeout)
	<-awaited.C
	if all, err := second.List(ctx); err != nil || len(all) != 1 || len(f.Kills()) > 0 {
		t.Fatalf("with an agent: %v, %v, kills %v", all, err, f.Kills())
	}
	gone := time.Now()
	second.Close()
	for deadline := time.Now().Add(5 * time.Second); len(f.Kills()) == 0; {
		if time.Now().After(deadline) {
			t.Fatal("a sandbox lives on without an agent")
		}
		time.Sleep(time.Millisecond)
	}
	if after := time.Since(gone); after < s.orphanTimeout {
		t.Errorf("ended after %v, before the timeout", after)
	}
}

func TestRefusalNamesTheReason(t *testing.T) {
	f := launchtest.NewFake()
	f.Refuse(errors.New("milli_cpus 5: want 10 to 1024000"))
	c := dial(t, serveFake(t, f, os.Getuid()))
	_, err := c.Start(t.Context(), launchtest.Spec("a-0"))
	var refused *launch.RefusedError
	if !errors.As(err, &refused) || refused.Verb != launcher.Start || !strings.Contains(refused.Reason, "milli_cpus 5") {
		t.Errorf("start: %v", err)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to make a socket for another")
	}
	conn, err := net.Dial("unix", serveFake(t, launchtest.NewFake(), os.Getuid()+1))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_ = json.NewEncoder(conn).Encode(launcher.Request{ID: 1, Verb: launcher.List})
	var reply launcher.Reply
	if err := json.NewDecoder(conn).Decode(&reply); err == nil {
		t.Errorf("a stranger is answered: %+v", reply)
	}
}

func TestGarbage(t *testing.T) {
	path := serveFake(t, launchtest.NewFake(), os.Getuid())
	for name, bytes := range map[string]string{
		"not JSON": "oops\n", "no object": "7\n", "cut short": `{"id":1,"verb":"li`, "HTTP": "GET / HTTP/1.0\r\n\r\n",
		"too long": `{"id":1,"verb":"list","ids":["` + strings.Repeat("x", launcher.MaxRequest) + "\"]}\n",
	} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(conn, bytes)
		_ = conn.(*net.UnixConn).CloseWrite()
		if rest, err := io.ReadAll(conn); errors.Is(err, os.ErrDeadlineExceeded) || len(rest) > 0 {
			t.Errorf("%s: answered %q, %v", name, rest, err)
		}
		_ = conn.Close()
	}
	for _, req := range []launcher.Request{{ID: 1, Verb: "dance"}, {ID: 2, Verb: launcher.Start}} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		var reply launcher.Reply
		if err := errors.Join(json.NewEncoder(conn).Encode(req), json.NewDecoder(conn).Decode(&reply)); err != nil || reply.ID != req.ID || reply.Error == "" {
			t.Errorf("%+v: %+v, %v", req, reply, err)
		}
		_ = conn.Close()
	}
}

// real is a launcher process of its own.
type real struct {
	cmd    *exec.Cmd
	socket string
	args   []string
}

func startReal(t *testing.T) *real {
	t.Helper()
	if err := sandbox.Supported(); err != nil {
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("", "launch")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r := &real{socket: filepath.Join(dir, "launch.sock"), args: []string{
		"--socket", filepath.Join(dir, "launch.sock"), "--run-dir", filepath.Join(dir, "run"), "--libexec", "/usr/bin", "--command", "/usr/bin/sleep 1000", "--fair",
		"--cgroup-parent", "gleaner-test", "--node", fmt.Sprintf("l%d-%s", os.Getpid(), filepath.Base(dir)), "--agent-uid", fmt.Sprint(os.Getuid()),
	}}
	r.start(t)
	t.Cleanup(func() {
		r.stop(t, os.Interrupt)
		if out, err := r.command("--cleanup").CombinedOutput(); err != nil {
			t.Errorf("cleanup: %v: %s", err, out)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *real) command(more ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", append(r.args, more...)...)
	cmd.Env = append(os.Environ(), "LAUNCH_TEST_MAIN=1")
	return cmd
}

func (r *real) start(t *testing.T) {
	t.Helper()
	r.cmd = r.command()
	r.cmd.Stderr = os.Stderr
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

func (r *real) stop(t *testing.T, sig os.Signal) {
	t.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil {
		t.Error(err)
	}
	_ = r.cmd.Wait()
}

// client waits until the launcher answers.
func (r *real) client(t *testing.T) *launch.Client {
	t.Helper()
	c := dial(t, r.socket)
	awaitUp(t, c, true)
	return c
}

func awaitUp(t *testing.T, c *launch.Client, want bool) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case up := <-c.Up():
			if up == want {
				return
			}
		case <-timeout:
			t.Fatalf("the launcher is not up=%t", want)
		}
	}
}

// TestRealConforms runs the suite on real sandboxes in one launcher process.
func TestRealConforms(t *testing.T) {
	r := startReal(t)
	launchtest.Conformance(t, func(t *testing.T) launchtest.Launcher { return r.client(t) })
}

// TestLauncherKilled: sandboxes survive kill -9 of the launcher, the next one adopts them, reports their end, and can kill them.
func TestLauncherKilled(t *testing.T) {
	r := startReal(t)
	c := r.client(t)
	var pid int
	for _, id := range []string{"a-0", "a-1"} {
		var err error
		if pid, err = c.Start(t.Context(), launchtest.Spec(id)); err != nil {
			t.Fatal(err)
		}
	}
	r.stop(t, os.Kill)
	awaitUp(t, c, false)
	if _, err := c.List(t.Context()); !errors.Is(err, launch.ErrDown) {
		t.Errorf("list without a launcher: %v", err)
	}
	r.start(t)
	awaitUp(t, c, true)
	all, err := c.List(t.Context())
	if err != nil || len(all) != 2 || !all[0].Running || !all[1].Running || all[1].PID != pid {
		t.Fatalf("list: %+v, %v", all, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if remaining, err := c.Kill(ctx, "a-0", "a-1"); err != nil || len(remaining) > 0 {
		t.Errorf("kill: %v, %v", remaining, err)
	}
	for range 2 {
		select {
		case <-c.Exited():
		case <-ctx.Done():
			t.Fatal("the exit of an adopted sandbox is not told")
		}
	}
}

func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		err  string
	}{
		"nothing":        {},
		"device twice":   {args: []string{"--device", "/dev/infiniband/uverbs*", "--device", "/dev/nvidia0"}},
		"stray argument": {args: []string{"now"}, err: `unexpected argument "now"`},
		"agent by name":  {args: []string{"--agent-uid", "root"}},
		"no such agent":  {args: []string{"--agent-uid", "no such user"}, err: "invalid value"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(c.args, slog.New(slog.DiscardHandler))
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("parse %q: %v, want %q", c.args, err, c.err)
			}
		})
	}
}
