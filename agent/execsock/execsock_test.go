package execsock

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api/executor"
	"github.com/gleaner-hpc/gleaner/api/jsonframe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serve(t *testing.T, identify Identify) (string, chan Event) {
	dir, err := os.MkdirTemp("", "es")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	events := make(chan Event)
	path := filepath.Join(dir, "executors.sock")
	s, err := Listen(Config{Path: path, Identify: identify, Events: events, Log: slog.New(slog.DiscardHandler)})
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
	return path, events
}

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	return conn
}

func TestFramesBothWays(t *testing.T) {
	path, events := serve(t, func(unix.Ucred) (string, uint32, error) { return "7-1", 1000, nil })
	conn := dial(t, path)
	if err := jsonframe.Write(conn, executor.FromExecutor{Hello: &executor.Hello{ID: "claims another"}}); err != nil {
		t.Fatal(err)
	}
	e := <-events
	if e.Link.ID != "7-1" || e.Link.UID != 1000 || e.Frame.Hello == nil {
		t.Fatalf("event %+v", e)
	}
	if err := e.Link.Send(executor.FromAgent{Revoke: &executor.Revoke{Reason: "r"}}); err != nil {
		t.Fatal(err)
	}
	var f executor.FromAgent
	if err := jsonframe.Read(conn, &f); err != nil || f.Revoke == nil || f.Revoke.Reason != "r" {
		t.Fatalf("hears %+v, %v", f, err)
	}
	if _, err := conn.Write([]byte{3, 0, 0, 0, 'b', 'a', 'd'}); err != nil {
		t.Fatal(err)
	}
	if e := <-events; !e.Closed || e.Link.ID != "7-1" {
		t.Errorf("garbage gives %+v", e)
	}
}

// An executor that does not read costs the agent a bounded time and loses its connection.
func TestSendWaitsForNobody(t *testing.T) {
	path, events := serve(t, func(unix.Ucred) (string, uint32, error) { return "7-1", 1000, nil })
	conn := dial(t, path)
	if err := jsonframe.Write(conn, executor.FromExecutor{Hello: &executor.Hello{ID: "7-1"}}); err != nil {
		t.Fatal(err)
	}
	link := (<-events).Link
	big := executor.FromAgent{Revoke: &executor.Revoke{Reason: strings.Repeat("x", 64<<10)}}
	var err error
	for range 100 {
		begin := time.Now()
		if err = link.Send(big); err != nil {
			if took := time.Since(begin); took > time.Second {
				t.Errorf("gave up after %v", took)
			}
			break
		}
	}
	if err == nil {
		t.Error("an executor that reads nothing keeps its connection")
	}
	if e := <-events; !e.Closed {
		t.Errorf("event %+v", e)
	}
}

func TestUnidentifiedIsRefused(t *testing.T) {
	path, _ := serve(t, ByCgroup("no-such-node"))
	if _, err := dial(t, path).Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a process in no sandbox gets %v", err)
	}
}
