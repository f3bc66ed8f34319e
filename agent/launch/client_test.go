package launch

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// listen gives a socket and each connection that is made to it.
func listen(t *testing.T, path string) (net.Listener, <-chan net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conns := make(chan net.Conn, 8)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns <- conn
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l, conns
}

func receive(conn net.Conn, req *launcher.Request) error { return json.NewDecoder(conn).Decode(req) }

func dialed(t *testing.T, path string) *Client {
	t.Helper()
	c := Dial(path)
	t.Cleanup(c.Close)
	return c
}

func up(t *testing.T, c *Client, want bool) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case got := <-c.Up():
			if got == want {
				return
			}
		case <-timeout:
			t.Fatalf("never up=%t", want)
		}
	}
}

func TestDownAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.sock")
	c := dialed(t, path)
	_, err := c.List(t.Context())
	var down *DownError
	if !errors.Is(err, ErrDown) || !errors.As(err, &down) || down.Path != path {
		t.Errorf("list: %v", err)
	}
}

func TestComesUpLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	c := dialed(t, path)
	_, conns := listen(t, path)
	up(t, c, true)
	conn := <-conns
	defer func() { _ = conn.Close() }()
	go func() {
		var req launcher.Request
		if receive(conn, &req) == nil {
			_ = json.NewEncoder(conn).Encode(launcher.Reply{ID: req.ID, Sandboxes: []launcher.Sandbox{{ID: "a-0"}}})
		}
	}()
	if all, err := c.List(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("list: %v, %v", all, err)
	}
}

// TestConnectionLost: a call under way fails with ErrDown, and the next connection serves the next call.
func TestConnectionLost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	_, conns := listen(t, path)
	c := dialed(t, path)
	up(t, c, true)
	first := <-conns
	go func() {
		var req launcher.Request
		_ = receive(first, &req)
		_ = first.Close()
	}()
	if err := c.Thaw(t.Context()); !errors.Is(err, ErrDown) {
		t.Errorf("thaw: %v", err)
	}
	up(t, c, true)
	second := <-conns
	defer func() { _ = second.Close() }()
	if err := json.NewEncoder(second).Encode(launcher.Reply{Exited: &launcher.Exited{ID: "a-0", Code: 3}}); err != nil {
		t.Fatal(err)
	}
	if e := <-c.Exited(); e.ID != "a-0" || e.Code != 3 {
		t.Errorf("exited: %+v", e)
	}
}

// TestExitsDoNotHoldUpReplies: nobody reads exits, and calls go on.
func TestExitsDoNotHoldUpReplies(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	_, conns := listen(t, path)
	c := dialed(t, path)
	conn := <-conns
	defer func() { _ = conn.Close() }()
	go func() {
		for range 100 {
			_ = json.NewEncoder(conn).Encode(launcher.Reply{Exited: &launcher.Exited{ID: "x"}})
		}
		var req launcher.Request
		if receive(conn, &req) == nil {
			_ = json.NewEncoder(conn).Encode(launcher.Reply{ID: req.ID})
		}
	}()
	if err := c.Thaw(t.Context()); err != nil {
		t.Error(err)
	}
	for range 100 {
		<-c.Exited()
	}
}

// TestContextEndsACall, and the answer that comes too late harms nobody. Kill's deadline on the wire is before ctx's.
func TestContextEndsACall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	_, conns := listen(t, path)
	c := dialed(t, path)
	conn := <-conns
	defer func() { _ = conn.Close() }()
	asked := make(chan launcher.Request, 2)
	go func() {
		var req launcher.Request
		for receive(conn, &req) == nil {
			asked <- req
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	remaining, err := c.Kill(ctx, "a-0")
	if !errors.Is(err, context.DeadlineExceeded) || len(remaining) != 1 {
		t.Errorf("kill: %v, %v", remaining, err)
	}
	req := <-asked
	if req.Deadline <= 0 || req.Deadline > 46*time.Millisecond {
		t.Errorf("deadline on the wire: %v", req.Deadline)
	}
	if err := json.NewEncoder(conn).Encode(launcher.Reply{ID: req.ID}); err != nil {
		t.Error(err)
	}
}

func TestClosed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	_, conns := listen(t, path)
	c := Dial(path)
	conn := <-conns
	defer func() { _ = conn.Close() }()
	c.Close()
	if err := c.Thaw(t.Context()); !errors.Is(err, ErrDown) {
		t.Errorf("after Close: %v", err)
	}
}

// TestDefaults: what a Spec leaves open is said on the wire, where the launcher guesses nothing.
func TestDefaults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	_, conns := listen(t, path)
	c := dialed(t, path)
	conn := <-conns
	defer func() { _ = conn.Close() }()
	asked := make(chan launcher.Spec, 1)
	go func() {
		var req launcher.Request
		_ = receive(conn, &req)
		asked <- req.Spec
		_ = json.NewEncoder(conn).Encode(launcher.Reply{ID: req.ID, Error: "a symbolic link: " + syscall.ELOOP.Error()})
	}()
	_, err := c.Start(t.Context(), launcher.Spec{ID: "a-0", MemoryBytes: 64 << 20})
	if err == nil || !strings.Contains(err.Error(), "name the real path") {
		t.Errorf("start: %v", err)
	}
	if spec := <-asked; spec.TmpBytes != 16<<20 || spec.PIDs != 256 {
		t.Errorf("asked for %+v", spec)
	}
}

// TestHangingStarts: a kill gets through however many starts hang, also of callers that have given up, and the next start does when one is over.
func TestHangingStarts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	_, conns := listen(t, path)
	c := dialed(t, path)
	conn := <-conns
	defer func() { _ = conn.Close() }()
	requests := json.NewDecoder(conn)
	next := func() (req launcher.Request) {
		if err := requests.Decode(&req); err != nil {
			t.Error(err)
		}
		return req
	}
	answer := func(req launcher.Request) {
		if err := json.NewEncoder(conn).Encode(launcher.Reply{ID: req.ID}); err != nil {
			t.Error(err)
		}
	}
	gone, leave := context.WithCancel(t.Context())
	ended := make(chan error, maxStarts)
	var hanging launcher.Request
	for range maxStarts {
		go func() {
			_, err := c.Start(gone, launcher.Spec{ID: "a-0"})
			ended <- err
		}()
		hanging = next()
	}
	leave()
	for range maxStarts {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	brief, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Start(brief, launcher.Spec{ID: "a-1"}); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "under way") {
		t.Errorf("one start more: %v", err)
	}
	go func() { answer(next()) }()
	if left, err := c.Kill(t.Context(), "a-0"); err != nil || len(left) > 0 {
		t.Errorf("kill: %v, %v", left, err)
	}
	answer(hanging)
	go func() { answer(next()) }()
	if _, err := c.Start(t.Context(), launcher.Spec{ID: "a-2"}); err != nil {
		t.Errorf("start when another is over: %v", err)
	}
}
