package launchtest

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

// Launcher is what the suite tests: the fake, the client, the sandbox manager.
type Launcher interface {
	Start(ctx context.Context, spec launcher.Spec) (int, error)
	Resize(ctx context.Context, spec launcher.Spec) error
	Kill(ctx context.Context, ids ...string) ([]string, error)
	Freeze(ctx context.Context, ids ...string) error
	Thaw(ctx context.Context, ids ...string) error
	List(ctx context.Context) ([]launcher.Sandbox, error)
	Exited() <-chan launcher.Exited
}

// Spec is a small sandbox that every launcher can start.
func Spec(id string) launcher.Spec {
	return launcher.Spec{ID: id, UID: 61234, GID: 61234, MilliCPUs: 500, MemoryBytes: 64 << 20, TmpBytes: 16 << 20, PIDs: 64}
}

// Conformance runs the suite. start returns an empty launcher whose executors run until they are killed.
func Conformance(t *testing.T, start func(t *testing.T) Launcher) {
	for name, test := range map[string]func(context.Context, *testing.T, Launcher){
		"a sandbox lives from Start to Kill":     life,
		"the same id twice is refused":           twice,
		"root is refused":                        root,
		"an impossible spec is refused":          impossible,
		"a running sandbox is resized":           resize,
		"killing what is not there succeeds":     killNothing,
		"an id can be used again after its exit": again,
		"freeze shows and thaw undoes it":        freeze,
		"freezing what is not there fails":       freezeNothing,
		"a frozen sandbox can be killed":         killFrozen,
		"many are killed by one call":            many,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			test(ctx, t, start(t))
		})
	}
}

func mustStart(ctx context.Context, t *testing.T, l Launcher, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if pid, err := l.Start(ctx, Spec(id)); err != nil || pid <= 0 {
			t.Fatalf("start %s: pid %d, %v", id, pid, err)
		}
	}
}

func mustKill(ctx context.Context, t *testing.T, l Launcher, ids ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if remaining, err := l.Kill(ctx, ids...); err != nil || len(remaining) > 0 {
		t.Fatalf("kill %v: %v remain, %v", ids, remaining, err)
	}
}

// ends waits until each id has been told as exited, once.
func ends(ctx context.Context, t *testing.T, l Launcher, ids ...string) map[string]launcher.Exited {
	t.Helper()
	got := map[string]launcher.Exited{}
	for len(got) < len(ids) {
		select {
		case <-ctx.Done():
			t.Fatalf("exits of %v: only %v came", ids, got)
		case e := <-l.Exited():
			if _, double := got[e.ID]; double {
				t.Fatalf("exit of %s was told twice", e.ID)
			}
			got[e.ID] = e
		}
	}
	for _, id := range ids {
		if _, ok := got[id]; !ok {
			t.Fatalf("exits of %v: got %v", ids, got)
		}
	}
	return got
}

// listed compares ids, state and spec of what List says; figures and times are the implementation's.
func listed(ctx context.Context, t *testing.T, l Launcher, want ...launcher.Sandbox) {
	t.Helper()
	got, err := l.List(ctx)
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	ignore := cmpopts.IgnoreFields(launcher.Sandbox{}, "PID", "Started", "CPUNanos", "MemoryBytes", "PeakBytes")
	if diff := cmp.Diff(want, got, ignore, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("list (-want +got):\n%s", diff)
	}
}

func running(id string) launcher.Sandbox {
	return launcher.Sandbox{ID: id, Running: true, Spec: Spec(id)}
}

func life(ctx context.Context, t *testing.T, l Launcher) {
	before := time.Now()
	listed(ctx, t, l)
	mustStart(ctx, t, l, "life-1")
	listed(ctx, t, l, running("life-1"))
	mustKill(ctx, t, l, "life-1")
	e := ends(ctx, t, l, "life-1")["life-1"]
	listed(ctx, t, l)
	if e.Code != -1 || e.Signal != 9 || e.OOM {
		t.Errorf("exit of a killed sandbox: %+v", e)
	}
	if e.Started.Before(before) || e.Ended.Before(e.Started) || time.Now().Before(e.Ended) {
		t.Errorf("times of %+v are out of order", e)
	}
}

func twice(ctx context.Context, t *testing.T, l Launcher) {
	mustStart(ctx, t, l, "twice-1")
	if _, err := l.Start(ctx, Spec("twice-1")); err == nil {
		t.Error("a second sandbox of the same id was started")
	}
	listed(ctx, t, l, running("twice-1"))
	mustKill(ctx, t, l, "twice-1")
	ends(ctx, t, l, "twice-1")
}

func root(ctx context.Context, t *testing.T, l Launcher) {
	for _, change := range []func(*launcher.Spec){
		func(s *launcher.Spec) { s.UID = 0 },
		func(s *launcher.Spec) { s.GID = 0 },
	} {
		spec := Spec("root-1")
		change(&spec)
		if _, err := l.Start(ctx, spec); err == nil {
			t.Errorf("%+v was started", spec)
		}
	}
	listed(ctx, t, l)
}

func impossible(ctx context.Context, t *testing.T, l Launcher) {
	for _, change := range []func(*launcher.Spec){
		func(s *launcher.Spec) { s.ID = "" },
		func(s *launcher.Spec) { s.MilliCPUs = 1 },
		func(s *launcher.Spec) { s.MemoryBytes = 0 },
	} {
		spec := Spec("impossible-1")
		change(&spec)
		if _, err := l.Start(ctx, spec); err == nil {
			t.Errorf("%+v was started", spec)
		}
	}
	listed(ctx, t, l)
}

func resize(ctx context.Context, t *testing.T, l Launcher) {
	mustStart(ctx, t, l, "resize-1")
	larger := Spec("resize-1")
	larger.MilliCPUs, larger.MemoryBytes, larger.PIDs = 1500, 128<<20, 100
	if err := l.Resize(ctx, larger); err != nil {
		t.Fatalf("resize: %v", err)
	}
	want := running("resize-1")
	want.Spec = larger
	listed(ctx, t, l, want)
	other := larger
	other.UID++
	if l.Resize(ctx, other) == nil {
		t.Error("a sandbox was given to another user")
	}
	if l.Resize(ctx, Spec("nobody-1")) == nil {
		t.Error("a sandbox that does not exist was resized")
	}
	listed(ctx, t, l, want)
	mustKill(ctx, t, l, "resize-1")
	ends(ctx, t, l, "resize-1")
}

func killNothing(ctx context.Context, t *testing.T, l Launcher) {
	mustKill(ctx, t, l, "nobody-1", "nobody-2")
	mustKill(ctx, t, l)
}

func again(ctx context.Context, t *testing.T, l Launcher) {
	for range 3 {
		mustStart(ctx, t, l, "again-1")
		mustKill(ctx, t, l, "again-1")
		ends(ctx, t, l, "again-1")
	}
}

func freeze(ctx context.Context, t *testing.T, l Launcher) {
	mustStart(ctx, t, l, "freeze-1")
	frozen := running("freeze-1")
	frozen.Frozen = true
	for range 2 { // repeatable
		if err := l.Freeze(ctx, "freeze-1"); err != nil {
			t.Fatalf("freeze: %v", err)
		}
		listed(ctx, t, l, frozen)
	}
	for range 2 {
		if err := l.Thaw(ctx, "freeze-1"); err != nil {
			t.Fatalf("thaw: %v", err)
		}
		listed(ctx, t, l, running("freeze-1"))
	}
	mustKill(ctx, t, l, "freeze-1")
	ends(ctx, t, l, "freeze-1")
}

func freezeNothing(ctx context.Context, t *testing.T, l Launcher) {
	if l.Freeze(ctx, "nobody-1") == nil || l.Thaw(ctx, "nobody-1") == nil {
		t.Error("a sandbox that does not exist was frozen or thawed")
	}
}

func killFrozen(ctx context.Context, t *testing.T, l Launcher) {
	mustStart(ctx, t, l, "ice-1")
	if err := l.Freeze(ctx, "ice-1"); err != nil {
		t.Fatalf("freeze: %v", err)
	}
	mustKill(ctx, t, l, "ice-1")
	ends(ctx, t, l, "ice-1")
}

func many(ctx context.Context, t *testing.T, l Launcher) {
	ids := []string{"many-1", "many-2", "many-3", "many-4"}
	mustStart(ctx, t, l, ids...)
	mustKill(ctx, t, l, ids...)
	ends(ctx, t, l, ids...)
	listed(ctx, t, l)
}
