package plugin

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/gleaner-hpc/gleaner/policies"
	"github.com/gleaner-hpc/gleaner/policies/policytest"
)

// TestMain makes this binary a plugin where it is started as one. Its name says how it behaves.
func TestMain(m *testing.M) {
	if os.Getenv(handshake().MagicCookieKey) != MagicCookie {
		os.Exit(m.Run())
	}
	switch filepath.Base(os.Args[0]) {
	case "careful":
		Serve(policies.Careful{})
	case "dies":
		Serve(dies{})
	case "hangs":
		Serve(hangs{})
	}
	os.Exit(1)
}

type dies struct{ policies.Idle }

func (dies) Evict(policies.Overlap, []policies.Executor) []string { os.Exit(3); return nil }

type hangs struct{ policies.Idle }

func (hangs) Harvest(policies.View) []policies.Offer { select {} }

// program returns the path of a plugin that behaves as its name says.
func program(t *testing.T, name string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.Link(self, path); err != nil { // another file system
		in, err := os.Open(self)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(out, in); err != nil {
			t.Fatal(err)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// run starts a plugin and returns it with the channel that hears of its starts.
func run(t *testing.T, path string, sum []byte) (*Plugin, <-chan struct{}) {
	t.Helper()
	started := make(chan struct{}, 16)
	p, err := New(Config{Path: path, SHA256: sum, Started: func() { started <- struct{}{} }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p, started
}

func wait(t *testing.T, started <-chan struct{}) {
	t.Helper()
	select {
	case <-started:
	case <-time.After(time.Minute):
		t.Fatal("the plugin was not started within a minute")
	}
}

func checksum(t *testing.T, path string) []byte {
	t.Helper()
	text, err := Sum(path)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// A policy answers the same through the wire as without it, and conforms.
func TestThroughTheWire(t *testing.T) {
	path := program(t, "careful")
	p, started := run(t, path, checksum(t, path))
	wait(t, started)
	for _, r := range policytest.Conform(p, time.Minute, 100) {
		if r.Err != nil {
			t.Errorf("%s: %v", r.Name, r.Err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		view := policytest.View(t)
		got, err := p.Harvest(context.Background(), view)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(policies.Careful{}.Harvest(view), got, equateEmpty, equateNoOffers); diff != "" {
			t.Fatal(diff)
		}
	})
}

var equateEmpty = cmp.FilterValues(func(a, b []string) bool { return len(a) == 0 && len(b) == 0 }, cmp.Ignore())
var equateNoOffers = cmp.FilterValues(func(a, b []policies.Offer) bool { return len(a) == 0 && len(b) == 0 }, cmp.Ignore())

// What is sent arrives as it was.
func TestWire(t *testing.T) {
	empty := cmp.Options{
		equateEmpty, equateNoOffers,
		cmp.FilterValues(func(a, b []policies.Executor) bool { return len(a)+len(b) == 0 }, cmp.Ignore()),
		cmp.FilterValues(func(a, b []policies.Job) bool { return len(a)+len(b) == 0 }, cmp.Ignore()),
		cmp.FilterValues(func(a, b []policies.Clash) bool { return len(a)+len(b) == 0 }, cmp.Ignore()),
		cmp.FilterValues(func(a, b []policies.Node) bool { return len(a)+len(b) == 0 }, cmp.Ignore()),
	}
	rapid.Check(t, func(t *rapid.T) {
		view := policytest.View(t)
		if diff := cmp.Diff(view, viewOf(wireView(view)), empty); diff != "" {
			t.Fatal(diff)
		}
		offers := policies.Pressure{}.Harvest(view)
		r := policies.Request{Now: view.Now, Lease: 1, UID: 2, Account: "a", Function: "f", Length: 3, Executors: 4, Each: policies.Resources{Cores: 5}, Avoid: []string{"n"}}
		q := wireRequest(r, offers)
		if diff := cmp.Diff(r, requestOf(q), empty); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff(offers, each(q.GetOffers(), offerOf), empty); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestDiesAndComesBack(t *testing.T) {
	p, started := run(t, program(t, "dies"), nil)
	for range 2 {
		wait(t, started)
		if _, err := p.Harvest(context.Background(), policies.View{}); err != nil {
			t.Fatalf("it runs: %v", err)
		}
		if _, err := p.Evict(context.Background(), policies.Overlap{}, nil); err == nil {
			t.Fatal("it was to die")
		}
	}
	wait(t, started)
}

func TestHangs(t *testing.T) {
	p, started := run(t, program(t, "hangs"), nil)
	wait(t, started)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := p.Harvest(ctx, policies.View{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want that it is late", err)
	}
	if _, err := p.Place(context.Background(), policies.Request{}, nil); err != nil {
		t.Errorf("one question that hangs holds up others: %v", err)
	}
}

// TestLateForTheOtherSide is what a slow machine shows: the policy's process has found the deadline past, our context not yet.
func TestLateForTheOtherSide(t *testing.T) {
	if err := asked(context.Background(), status.Error(codes.DeadlineExceeded, "stream ended")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want that it is late", err)
	}
}

func TestPinned(t *testing.T) {
	path := program(t, "careful")
	p, started := run(t, path, make([]byte, 32))
	if _, err := p.Harvest(context.Background(), policies.View{}); !errors.Is(err, ErrAway) {
		t.Errorf("got %v, want %v", err, ErrAway)
	}
	if err := p.Once(context.Background()); err == nil {
		t.Error("a program of another content was started")
	}
	select {
	case <-started:
		t.Error("a program of another content was started")
	default:
	}
}

func TestNew(t *testing.T) {
	loose := filepath.Join(t.TempDir(), "loose")
	if err := os.WriteFile(loose, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(loose, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]Config{
		"relative":        {Path: "policy"},
		"absent":          {Path: filepath.Join(t.TempDir(), "none")},
		"writable by all": {Path: loose},
		"short checksum":  {Path: program(t, "careful"), SHA256: []byte{1}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(c); err == nil {
				t.Error("no error")
			}
		})
	}
}
