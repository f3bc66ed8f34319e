package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

// force does what a gate does: it leaves its mark, and kills until nothing is left.
func force(t *testing.T, m *Manager, job uint32) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(m.group("").dir("freezer"), fmt.Sprintf("shut.%d", job)), 0o755); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		pids := harvested(m)
		if len(pids) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%v do not die", pids)
			return
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

func harvested(m *Manager) []int {
	var pids []int
	groups, _ := filepath.Glob(filepath.Join(m.group("").dir("freezer"), "*"))
	for _, group := range groups {
		found, _ := cgroups.GetPids(group)
		pids = append(pids, found...)
	}
	return pids
}

func TestShutNodeStartsNothing(t *testing.T) {
	m := newManager(t, testConfig(t, "sleep"))
	force(t, m, 5)
	if _, err := m.Start(t.Context(), spec("shut-1")); !errors.Is(err, launcher.ErrShut) {
		t.Fatalf("start: %v", err)
	}
	if left, err := m.Open(t.Context(), 6); err != nil || len(left) != 1 || left[0] != 5 {
		t.Fatalf("opened for another job: %v, %v", left, err)
	}
	if left, err := m.Open(t.Context(), 5); err != nil || len(left) > 0 {
		t.Fatalf("open: %v, %v", left, err)
	}
	mustStart(t, m, spec("shut-1"))
}

// Whenever force meets a start, its executor is among the dead, or never runs.
func TestForceMeetsAStart(t *testing.T) {
	m := newManager(t, testConfig(t, "sleep"))
	for n := range 24 {
		over := make(chan struct{})
		go func() {
			defer close(over)
			time.Sleep(time.Duration(n) * time.Millisecond) // wherever the start is by then
			force(t, m, 5)
		}()
		id := fmt.Sprintf("met-%d", n)
		_, err := m.Start(t.Context(), spec(id))
		<-over
		switch {
		case err == nil:
			select {
			case <-m.Exited():
			case <-time.After(10 * time.Second):
				t.Fatalf("%d ms into the start: the executor outlives the force", n)
			}
		case len(harvested(m)) > 0:
			t.Fatalf("%d ms into the start: %v, and %v run", n, err, harvested(m))
		}
		if _, err := m.Open(t.Context(), 5); err != nil {
			t.Fatal(err)
		}
	}
}
