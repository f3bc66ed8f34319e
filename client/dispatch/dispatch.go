// Package dispatch decides which executor runs which task of a lease, and what becomes of a task after each attempt. It is pure:
// no clock, no connection, no goroutine. Package client feeds it what happened and carries out what it decides.
//
//	          Submit            Assign                 Finish: Done
//	(nowhere) ──────▶  queued  ──────▶  on one executor ──────────▶ (nowhere)
//	                     ▲                    │   Finish: Failed ──▶ (nowhere)
//	                     └────────────────────┘
//	                          Finish: Again
//
// Invariants: a task is queued or on exactly one executor, never both; each submitted task leaves by exactly one Done, Failed or
// Drop; an executor never has more than its slots; evictions are never counted against a task.
package dispatch

import (
	"slices"
	"time"
)

// Config bounds what the machine does.
type Config struct {
	Depth            int // tasks given to one executor at a time, running or waiting behind; 0 means 2
	ExecutorFailures int // attempts that a task may lose to executors that failed, before it fails; 0 means 5
	Retries          int // attempts again after the function itself failed; 0 means none
}

// Outcome is how one attempt ended.
type Outcome int

// Outcomes of an attempt.
const (
	Succeeded      Outcome = iota
	FunctionFailed         // the function or its input is at fault
	ExecutorFailed         // the executor was lost while it ran the task
	Evicted                // a Slurm job needed the executor
	Returned               // the task never began there; nobody is to blame
	Killed                 // the function was killed from outside: for its memory, or by whoever kills executors
	Abandoned              // the caller wants no result any more
)

// Verdict is what becomes of a task after an attempt.
type Verdict int

// Verdicts on a task.
const (
	Again  Verdict = iota // back in the queue
	Done                  // it has its result
	Failed                // it has its final error
)

// Assignment sends a task to an executor.
type Assignment struct {
	Task     uint64
	Executor string
}

// Machine holds the queue and who runs what. It is not safe for concurrent use.
type Machine struct {
	config    Config
	queue     []uint64 // next first
	tasks     map[uint64]*task
	executors []*executor // in the order in which they joined
	charged   map[string][]uint64
}

type task struct {
	executor *executor // nil while queued
	failures int
	retries  int
	kills    int
}

// maxKills bounds the runs of a task that was killed: enough to tell a function that always exceeds its memory from an accident.
const maxKills = 3

type executor struct {
	id      string
	slots   int
	load    int
	leaving bool
}

// New returns an empty machine.
func New(c Config) *Machine {
	if c.Depth <= 0 {
		c.Depth = 2
	}
	if c.ExecutorFailures <= 0 {
		c.ExecutorFailures = 5
	}
	return &Machine{config: c, tasks: map[uint64]*task{}, charged: map[string][]uint64{}}
}

// Submit appends a task to the queue. Submitting a task that the machine holds is a programmer's error.
func (m *Machine) Submit(id uint64) {
	if m.tasks[id] != nil {
		panic("dispatch: task submitted twice")
	}
	m.tasks[id] = &task{}
	m.queue = append(m.queue, id)
}

// Drop forgets a queued task and reports whether it was queued; a task on an executor stays until its attempt is finished.
func (m *Machine) Drop(id uint64) bool {
	t := m.tasks[id]
	if t == nil || t.executor != nil {
		return false
	}
	m.queue = slices.DeleteFunc(m.queue, func(q uint64) bool { return q == id })
	delete(m.tasks, id)
	return true
}

// Join adds an executor that takes up to slots tasks at a time. One that has left may join again.
func (m *Machine) Join(id string, slots int) {
	if m.find(id) == nil {
		m.executors = append(m.executors, &executor{id: id, slots: max(slots, 1)})
	}
}

// Leave assigns no more to an executor. Its tasks come back one by one through Finish.
func (m *Machine) Leave(id string) {
	if e := m.find(id); e != nil {
		e.leaving = true
		m.forget(e)
	}
}

// Excuse takes back what tasks were charged for an executor that, as it turns out later, was evicted.
func (m *Machine) Excuse(id string) {
	for _, charged := range m.charged[id] {
		if t := m.tasks[charged]; t != nil {
			t.failures--
		}
	}
	delete(m.charged, id)
}

// Assign takes tasks off the queue. Each goes to the least loaded executor. A task is queued behind another only while at least
// one task per executor would remain, so that nobody idles at the end of a map beside a task that waits for its turn.
func (m *Machine) Assign() []Assignment {
	var out []Assignment
	for len(m.queue) > 0 {
		e := m.leastLoaded()
		if e == nil || e.load >= min(m.config.Depth, e.slots) || (e.load > 0 && len(m.queue) <= m.Executors()) {
			break
		}
		id := m.queue[0]
		m.queue = m.queue[1:]
		m.tasks[id].executor = e
		e.load++
		out = append(out, Assignment{id, e.id})
	}
	return out
}

// Finish ends the attempt of a task and says what becomes of it. A task that runs again goes to the head of the queue.
func (m *Machine) Finish(id uint64, outcome Outcome) Verdict {
	t := m.tasks[id]
	if t == nil || t.executor == nil {
		panic("dispatch: finish of a task that no executor has")
	}
	e := t.executor
	t.executor = nil
	e.load--
	m.forget(e)
	verdict := m.judge(t, outcome)
	if verdict != Again {
		delete(m.tasks, id)
		return verdict
	}
	if outcome == ExecutorFailed {
		m.charged[e.id] = append(m.charged[e.id], id)
	}
	m.queue = slices.Insert(m.queue, 0, id)
	return Again
}

func (m *Machine) judge(t *task, outcome Outcome) Verdict {
	switch outcome {
	case Succeeded:
		return Done
	case FunctionFailed:
		if t.retries++; t.retries > m.config.Retries {
			return Failed
		}
	case ExecutorFailed:
		if t.failures++; t.failures >= m.config.ExecutorFailures {
			return Failed
		}
	case Killed:
		if t.kills++; t.kills >= maxKills {
			return Failed
		}
	case Abandoned:
		return Failed
	case Evicted, Returned:
	}
	return Again
}

// Queued counts the tasks that wait for an executor.
func (m *Machine) Queued() int { return len(m.queue) }

// Waiting returns the tasks that wait for an executor, next first.
func (m *Machine) Waiting() []uint64 { return slices.Clone(m.queue) }

// Executors counts those that may be given tasks.
func (m *Machine) Executors() int {
	n := 0
	for _, e := range m.executors {
		if !e.leaving {
			n++
		}
	}
	return n
}

func (m *Machine) find(id string) *executor {
	for _, e := range m.executors {
		if e.id == id && !e.leaving {
			return e
		}
	}
	return nil
}

// forget removes an executor that has left and holds nothing.
func (m *Machine) forget(e *executor) {
	if e.leaving && e.load == 0 {
		m.executors = slices.DeleteFunc(m.executors, func(x *executor) bool { return x == e })
	}
}

func (m *Machine) leastLoaded() *executor {
	var best *executor
	for _, e := range m.executors {
		if !e.leaving && (best == nil || e.load < best.load) {
			best = e
		}
	}
	return best
}

// Backoff is the pause before attempt n (from 0) to connect to an executor again.
func Backoff(n int) time.Duration {
	return min(50*time.Millisecond<<min(n, 8), 2*time.Second)
}
