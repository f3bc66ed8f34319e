package launchtest

import "testing"

func TestFakeConforms(t *testing.T) {
	Conformance(t, func(*testing.T) Launcher { return NewFake() })
}

func TestFakeExit(t *testing.T) {
	f := NewFake()
	mustStart(t.Context(), t, f, "a-0", "a-1")
	if !f.Exit("a-0", 3, false) || !f.Exit("a-1", 0, true) || f.Exit("a-2", 0, false) {
		t.Fatal("Exit does not tell what exists")
	}
	got := ends(t.Context(), t, f, "a-0", "a-1")
	if e := got["a-0"]; e.Code != 3 || e.Signal != 0 || e.OOM {
		t.Errorf("exit: %+v", e)
	}
	if e := got["a-1"]; e.Code != -1 || e.Signal != 9 || !e.OOM {
		t.Errorf("exit by OOM: %+v", e)
	}
}

func TestFakeStick(t *testing.T) {
	f := NewFake()
	mustStart(t.Context(), t, f, "a-0", "a-1")
	f.Stick("a-0")
	if remaining, err := f.Kill(t.Context(), "a-0", "a-1"); err != nil || len(remaining) != 1 || remaining[0] != "a-0" {
		t.Fatalf("remaining %v, %v", remaining, err)
	}
	f.Unstick("a-0")
	mustKill(t.Context(), t, f, "a-0")
}
