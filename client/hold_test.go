package client

import (
	"context"
	"sync"
	"testing"

	"github.com/gleaner-hpc/gleaner/api"
)

// listener is an Observer that notes what it hears.
type listener struct {
	mu    sync.Mutex
	ready map[string]int
	gone  map[string]api.EndReason
}

func (l *listener) Ready(e *api.Executor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ready[e.GetId()]++
}

func (l *listener) Gone(id string, reason api.EndReason, _ string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone[id] = reason
}

func (l *listener) heard(id string) (ready int, gone api.EndReason) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ready[id], l.gone[id]
}

// A lease that is held for others tells of executors, connects to none, and reports what others did.
func TestHoldConnectsToNobody(t *testing.T) {
	w, c := newWorld(t, reverse)
	o := &listener{ready: map[string]int{}, gone: map[string]api.EndReason{}}
	l, err := c.Hold(t.Context(), Request{Function: anyFunction, Executors: 2}, o)
	if err != nil {
		t.Fatal(err)
	}
	id := w.arrive()
	eventually(t, "executor announced", func() bool { n, _ := o.heard(id); return n > 0 })
	before, _ := o.heard(id)
	l.Refresh()
	eventually(t, "announced again, with a fresh token", func() bool { n, _ := o.heard(id); return n > before })
	w.mu.Lock()
	if w.live[id] != nil {
		t.Error("somebody has connected")
	}
	w.mu.Unlock()
	w.remove(id, api.EndReason_EVICTED, "job 12")
	eventually(t, "executor taken back", func() bool { _, why := o.heard(id); return why == api.EndReason_EVICTED })
	if counts := l.Counts(); counts.Evicted != 1 {
		t.Errorf("counts %+v, want one eviction", counts)
	}
	l.Add(10, 2, 3)
	if err := l.Release(context.Background()); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.reports) != 1 || w.reports[0].Ok != 10 || w.reports[0].Failed != 2 || w.reports[0].Retried != 3 {
		t.Errorf("reports %v, want one of 10, 2, 3", w.reports)
	}
}
