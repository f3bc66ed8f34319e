package dispatch

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestSpreadsBeforeItQueuesBehind(t *testing.T) {
	m := New(Config{})
	m.Join("a", 8)
	m.Join("b", 8)
	for id := range uint64(6) {
		m.Submit(id)
	}
	want := []Assignment{{0, "a"}, {1, "b"}, {2, "a"}, {3, "b"}}
	// With six tasks each executor has one running; a second is queued behind while more than two tasks are left.
	if diff := cmp.Diff(want, m.Assign()); diff != "" {
		t.Error(diff)
	}
	if m.Queued() != 2 {
		t.Errorf("%d tasks queued, want 2", m.Queued())
	}
	m.Finish(0, Succeeded)
	if got := m.Assign(); got != nil {
		t.Errorf("assigned %v behind a running task although only one task per executor is left", got)
	}
	m.Finish(2, Succeeded)
	if diff := cmp.Diff([]Assignment{{4, "a"}}, m.Assign()); diff != "" {
		t.Error(diff)
	}
}

func TestVerdicts(t *testing.T) {
	tests := map[string]struct {
		config   Config
		outcomes []Outcome
		want     []Verdict
	}{
		"success":                       {Config{}, []Outcome{Succeeded}, []Verdict{Done}},
		"function error is final":       {Config{}, []Outcome{FunctionFailed}, []Verdict{Failed}},
		"function error, one retry":     {Config{Retries: 1}, []Outcome{FunctionFailed, FunctionFailed}, []Verdict{Again, Failed}},
		"retry that works":              {Config{Retries: 1}, []Outcome{FunctionFailed, Succeeded}, []Verdict{Again, Done}},
		"executor failures are bounded": {Config{ExecutorFailures: 3}, []Outcome{ExecutorFailed, ExecutorFailed, ExecutorFailed}, []Verdict{Again, Again, Failed}},
		"killed once":                   {Config{}, []Outcome{Killed, Succeeded}, []Verdict{Again, Done}},
		"killed always":                 {Config{}, []Outcome{Killed, Killed, Killed}, []Verdict{Again, Again, Failed}},
		"evictions are free": {Config{ExecutorFailures: 2},
			[]Outcome{Evicted, Evicted, ExecutorFailed, Evicted, Returned, Succeeded}, []Verdict{Again, Again, Again, Again, Again, Done}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m := New(test.config)
			m.Join("a", 1)
			m.Submit(7)
			var got []Verdict
			for _, outcome := range test.outcomes {
				if len(m.Assign()) != 1 {
					t.Fatal("task not assigned")
				}
				got = append(got, m.Finish(7, outcome))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestExcuse(t *testing.T) {
	m := New(Config{ExecutorFailures: 2})
	m.Join("a", 1)
	m.Submit(1)
	for range 5 {
		m.Assign()
		if m.Finish(1, ExecutorFailed) != Again {
			t.Fatal("failed although each loss was excused")
		}
		m.Excuse("a")
	}
}

func TestDrop(t *testing.T) {
	m := New(Config{})
	m.Submit(1)
	m.Submit(2)
	if !m.Drop(1) || m.Drop(1) {
		t.Error("a queued task is dropped once")
	}
	m.Join("a", 1)
	m.Assign()
	if m.Drop(2) {
		t.Error("dropped a task that runs")
	}
}

// TestInvariants lets executors come, go and fail at random and checks after each step that no task is lost, doubled or run twice
// at a time, and that each ends exactly once.
func TestInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		config := Config{Depth: rapid.IntRange(1, 4).Draw(t, "depth"), ExecutorFailures: rapid.IntRange(1, 3).Draw(t, "failures")}
		m := New(config)
		w := world{m: m, slots: map[string]int{}, running: map[uint64]string{}, live: map[uint64]bool{}, ended: map[uint64]bool{}}
		t.Repeat(map[string]func(*rapid.T){
			"submit": func(*rapid.T) { m.Submit(w.next); w.live[w.next] = true; w.next++ },
			"join": func(t *rapid.T) {
				id := fmt.Sprintf("1-%d", len(w.slots))
				w.slots[id] = rapid.IntRange(1, 3).Draw(t, "slots")
				m.Join(id, w.slots[id])
			},
			"leave": func(t *rapid.T) {
				if len(w.slots) > 0 {
					id := fmt.Sprintf("1-%d", rapid.IntRange(0, len(w.slots)-1).Draw(t, "executor"))
					m.Leave(id)
					w.left = append(w.left, id)
				}
			},
			"finish": w.finish,
			"drop": func(t *rapid.T) {
				if w.next > 0 {
					id := rapid.Uint64Range(0, w.next-1).Draw(t, "task")
					if m.Drop(id) {
						w.end(t, id)
					}
				}
			},
			"": w.check,
		})
	})
}

type world struct {
	m       *Machine
	next    uint64
	slots   map[string]int
	left    []string
	running map[uint64]string
	live    map[uint64]bool
	ended   map[uint64]bool
}

func (w *world) finish(t *rapid.T) {
	for id := range w.next {
		if w.running[id] == "" {
			continue
		}
		delete(w.running, id)
		outcome := Outcome(rapid.IntRange(0, int(Abandoned)).Draw(t, "outcome"))
		if w.m.Finish(id, outcome) != Again {
			w.end(t, id)
		}
		return
	}
}

func (w *world) end(t *rapid.T, id uint64) {
	if w.ended[id] || !w.live[id] {
		t.Fatalf("task %d ended twice", id)
	}
	w.ended[id] = true
	delete(w.live, id)
}

func (w *world) check(t *rapid.T) {
	load := map[string]int{}
	for _, a := range w.m.Assign() {
		if w.running[a.Task] != "" || w.ended[a.Task] {
			t.Fatalf("task %d assigned while it runs or after its end", a.Task)
		}
		for _, left := range w.left {
			if left == a.Executor {
				t.Fatalf("task %d assigned to %s, which has left", a.Task, left)
			}
		}
		w.running[a.Task] = a.Executor
	}
	for _, e := range w.running {
		if load[e]++; load[e] > w.slots[e] {
			t.Fatalf("executor %s has %d tasks and %d slots", e, load[e], w.slots[e])
		}
	}
	if len(w.live) != w.m.Queued()+len(w.running) {
		t.Fatalf("%d tasks live, %d queued, %d running", len(w.live), w.m.Queued(), len(w.running))
	}
	if w.m.Queued() > 0 && w.m.Executors() > 0 && len(w.running) == 0 {
		t.Fatal("tasks wait although executors are free")
	}
}
