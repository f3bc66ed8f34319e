package gatesock

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gleaner-hpc/gleaner/api/gate"
)

// TestMain lets the test binary stand in for a caller who is not root.
func TestMain(m *testing.M) {
	if path := os.Getenv("GATESOCK_TEST_DIAL"); path != "" {
		conn, err := net.Dial("unix", path)
		if errors.Is(err, os.ErrPermission) {
			os.Exit(10)
		}
		if err != nil {
			os.Exit(11)
		}
		b, _ := (&gate.Frame{Kind: gate.Ping}).Append(nil)
		_, _ = conn.Write(b)
		if _, err := gate.Read(conn); err != nil {
			os.Exit(12)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func serve(t *testing.T) (*Server, chan *Call) {
	dir, err := os.MkdirTemp("", "gs")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	calls := make(chan *Call)
	s, err := Listen(Config{Path: filepath.Join(dir, "agent.sock"), Node: "n1", Calls: calls, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s, calls
}

func dial(t *testing.T, s *Server, f gate.Frame) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", s.cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	b, err := f.Append(nil)
	if err == nil {
		_, err = conn.Write(b)
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	return conn
}

func TestConversations(t *testing.T) {
	s, calls := serve(t)
	tests := map[string]struct {
		kind    gate.Kind
		answers []gate.Kind
	}{
		"claim":   {gate.Claim, []gate.Kind{gate.Ack, gate.Failed}},
		"warning": {gate.Warn, []gate.Kind{gate.Ack}},
		"release": {gate.Release, []gate.Kind{gate.Failed}},
		"ping":    {gate.Ping, []gate.Kind{gate.Failed}},
		"answer":  {gate.Done, nil},
		"nothing": {99, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, s, gate.Frame{Kind: test.kind, Job: 7, Step: 8, UID: 9})
			if len(test.answers) > 0 {
				c := <-calls
				if c.Frame.Job != 7 || c.Received.IsZero() {
					t.Errorf("call %+v", c.Frame)
				}
				c.Accept(0)
				c.Answer(gate.Failed, 3)
				c.Answer(gate.Done, 4) // only the first counts
			}
			for _, want := range test.answers {
				f, err := gate.Read(conn)
				if err != nil || f.Kind != want || f.Job != 7 || f.Step != 8 || f.UID != 9 || f.Nanos == 0 {
					t.Fatalf("got %+v, %v; want kind %d", f, err, want)
				}
				if want == gate.Failed && f.Evicted != 3 {
					t.Errorf("evicted %d", f.Evicted)
				}
			}
			if f, err := gate.Read(conn); !errors.Is(err, io.EOF) {
				t.Errorf("then came %+v, %v", f, err)
			}
		})
	}
}

// A caller that says nothing is dropped; the next is served meanwhile.
func TestSilentCaller(t *testing.T) {
	s, calls := serve(t)
	silent, err := net.Dial("unix", s.cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	conn := dial(t, s, gate.Frame{Kind: gate.Ping})
	c := <-calls
	c.Accept(0)
	c.Answer(gate.Done, 0)
	if f, err := gate.Read(conn); err != nil || f.Kind != gate.Done {
		t.Errorf("got %+v, %v", f, err)
	}
	_ = silent.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := silent.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a silent caller gets %v", err)
	}
}

func TestOtherUsersAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to dial as another user")
	}
	s, _ := serve(t)
	exe := filepath.Join(filepath.Dir(s.cfg.Path), "dial")
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(exe, self, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	exit := func() int {
		cmd := exec.CommandContext(t.Context(), exe)
		cmd.Env = []string{"GATESOCK_TEST_DIAL=" + s.cfg.Path}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 61234, Gid: 61234}}
		var status *exec.ExitError
		if err := cmd.Run(); !errors.As(err, &status) {
			t.Fatalf("dialling as another user: %v", err)
		}
		return status.ExitCode()
	}
	if code := exit(); code != 10 {
		t.Errorf("another user's dial ends with %d, want permission denied", code)
	}
	// Even with the mode of the socket changed.
	if err := os.Chmod(s.cfg.Path, 0o666); err != nil {
		t.Fatal(err)
	}
	if code := exit(); code != 12 || s.Refused() != 1 {
		t.Errorf("another user's frame ends with %d, %d refused", code, s.Refused())
	}
}
