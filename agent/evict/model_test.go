package evict

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gleaner-hpc/gleaner/agent/coreset"
	"github.com/gleaner-hpc/gleaner/agent/ledger"
)

const (
	modelCores  = 8
	modelMemory = 1000
)

// model is a node on which claims come, kills are confirmed or fail, and time passes, in any order. What it knows of holds and executors
// it keeps beside the ledger, so that it does not ask the judged for the judgement.
type model struct {
	l       *ledger.Ledger
	book    Book
	policy  Policy
	now     time.Time
	next    int
	ticket  uint64
	runs    map[string]ledger.Executor // really, whatever anybody thinks
	dying   map[string]bool
	holds   map[uint32]ledger.Hold
	waiting map[uint64]Ticket
}

// TestModel: a claim is answered once, by its deadline, and with complete only when nothing that runs is on what the job holds.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, err := ledger.New(ledger.Config{Cores: modelCores, Memory: modelMemory, GPUs: 2})
		if err != nil {
			t.Fatal(err)
		}
		m := &model{
			l: l, now: at, runs: map[string]ledger.Executor{}, dying: map[string]bool{}, holds: map[uint32]ledger.Hold{}, waiting: map[uint64]Ticket{},
			policy: Policy{
				Deadline: time.Duration(rapid.IntRange(0, 3).Draw(t, "deadline")) * time.Second,
				MaxGrace: time.Duration(rapid.IntRange(0, 900).Draw(t, "max grace")) * time.Millisecond,
			},
		}
		t.Repeat(map[string]func(*rapid.T){
			"start": m.start, "another": m.start, "third": m.start, "claim": m.claim, "again": m.claim,
			"gone": m.gone, "exit": m.gone, "stuck": m.stuck, "release": m.release, "wait": m.wait, "": m.check,
		})
		for id := range m.dying { // in the end all die
			m.remove(id)
		}
		m.answer(t, m.book.Settle(m.l.Clear), true)
		if len(m.waiting) > 0 {
			t.Fatalf("all are gone, and %v still wait", m.waiting)
		}
	})
}

func (m *model) start(t *rapid.T) {
	m.next++
	id := fmt.Sprintf("1-%d", m.next)
	need := ledger.Need{
		Cores: rapid.IntRange(1, 3).Draw(t, "cores"), Memory: uint64(rapid.IntRange(1, 300).Draw(t, "memory")), GPUs: rapid.IntRange(0, 1).Draw(t, "gpus"),
	}
	if e, err := m.l.Reserve(id, 1, need, m.now); err == nil {
		m.runs[id] = e
	}
}

func (m *model) claim(t *rapid.T) {
	h := ledger.Hold{
		Job: uint32(rapid.IntRange(1, 4).Draw(t, "job")), Memory: uint64(rapid.IntRange(0, 600).Draw(t, "memory")), Since: m.now, Origin: ledger.Gate,
		Cores: coreset.Of(rapid.SliceOfN(rapid.IntRange(0, modelCores-1), 0, 4).Draw(t, "claimed")...),
	}
	if rapid.Bool().Draw(t, "with a GPU") {
		h.GPUs = coreset.Of(rapid.IntRange(0, 1).Draw(t, "GPU"))
	}
	m.l.Claim(h)
	h, _ = m.l.Job(h.Job)
	m.holds[h.Job] = h
	victims := m.l.Overlap(h.Job)
	wanted := time.Duration(rapid.IntRange(0, 2000).Draw(t, "wanted")) * time.Millisecond
	p := New(h, victims, m.now, wanted, m.policy)
	m.judgePlan(t, h, p, wanted)
	for _, id := range p.Kill {
		if !m.l.Condemn(id) {
			t.Fatalf("%s of plan %v is unknown or dies already", id, p)
		}
		m.dying[id] = true
	}
	m.ticket++
	ticket := Ticket{ID: m.ticket, Job: h.Job, Received: m.now, Deadline: p.Deadline, Evicted: p.Evicted, Bytes: p.Bytes}
	m.book.Open(ticket)
	m.waiting[m.ticket] = ticket
	m.answer(t, m.book.Settle(m.l.Clear), true)
}

// judgePlan: those that stand on the job's cores or GPUs go, others only for memory, and grace eats neither policy nor deadline.
func (m *model) judgePlan(t *rapid.T, h ledger.Hold, p Plan, wanted time.Duration) {
	limit := m.policy.Deadline
	if limit == 0 {
		limit = DefaultDeadline
	}
	if p.Grace < 0 || p.Grace > m.policy.MaxGrace || p.Grace > wanted || p.Grace > limit/2 || !p.Deadline.Equal(m.now.Add(limit)) {
		t.Fatalf("grace %v and deadline %v under %+v, wanted %v", p.Grace, p.Deadline.Sub(m.now), m.policy, wanted)
	}
	needed := m.memoryOver()
	for id, e := range m.runs {
		on, goes := stands(h, e), slices.Contains(p.Kill, id)
		switch {
		case on && !goes && !m.dying[id]:
			t.Fatalf("%v stands in the way of %v and stays", e, h)
		case !on && goes && !needed:
			t.Fatalf("%v goes for %v, which leaves room for it", e, h)
		}
	}
}

func stands(h ledger.Hold, e ledger.Executor) bool {
	return h.All || h.Cores.Overlaps(e.Cores) || h.GPUs.Overlaps(e.GPUs)
}

// memoryOver says whether jobs and those that run and shall go on running exceed the node.
func (m *model) memoryOver() bool {
	sum := m.jobs()
	for id, e := range m.runs {
		if !m.dying[id] {
			sum += e.Memory
		}
	}
	return sum > modelMemory
}

func (m *model) jobs() uint64 {
	sum := uint64(0)
	for _, h := range m.holds {
		sum += h.Memory
	}
	return min(sum, modelMemory)
}

func (m *model) remove(id string) {
	m.l.Remove(id)
	delete(m.runs, id)
	delete(m.dying, id)
}

// gone: one ends, by a kill or by itself.
func (m *model) gone(t *rapid.T) {
	if ids := m.ids(); len(ids) > 0 {
		m.remove(rapid.SampledFrom(ids).Draw(t, "gone"))
	}
	m.answer(t, m.book.Settle(m.l.Clear), true)
}

// stuck: a kill is reported to have failed. Those whose job stands behind it hear so at once, nobody else.
func (m *model) stuck(t *rapid.T) {
	var dying []string
	for id := range m.dying {
		dying = append(dying, id)
	}
	if len(dying) == 0 {
		return
	}
	slices.Sort(dying)
	id := rapid.SampledFrom(dying).Draw(t, "stuck")
	verdicts := m.book.Fail([]string{id}, m.l.Blocking)
	for _, v := range verdicts {
		if h := m.holds[v.Job]; !stands(h, m.runs[id]) && m.jobs()+m.harvested() <= modelMemory {
			t.Fatalf("job %v is failed for %v, which is not in its way", h, m.runs[id])
		}
	}
	m.answer(t, verdicts, false)
}

func (m *model) harvested() uint64 {
	sum := uint64(0)
	for _, e := range m.runs {
		sum += e.Memory
	}
	return sum
}

func (m *model) release(t *rapid.T) {
	job := uint32(rapid.IntRange(1, 4).Draw(t, "released"))
	m.l.Release(job, m.now)
	delete(m.holds, job)
	m.answer(t, m.book.Settle(m.l.Clear), true)
}

func (m *model) wait(t *rapid.T) {
	m.now = m.now.Add(time.Duration(rapid.IntRange(1, 1500).Draw(t, "ms")) * time.Millisecond)
	m.answer(t, m.book.Expire(m.now), false)
}

func (m *model) ids() []string {
	var ids []string
	for id := range m.runs {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// answer takes verdicts: each ticket has one, and complete means that the owner has what is his.
func (m *model) answer(t *rapid.T, verdicts []Verdict, complete bool) {
	for _, v := range verdicts {
		if _, open := m.waiting[v.ID]; !open {
			t.Fatalf("ticket %d is answered twice", v.ID)
		}
		delete(m.waiting, v.ID)
		if v.Complete != complete {
			t.Fatalf("ticket %d: complete %v", v.ID, v.Complete)
		}
		h, held := m.holds[v.Job]
		if !complete || !held {
			continue
		}
		for _, e := range m.runs {
			if stands(h, e) {
				t.Fatalf("job %v is told that all is free, and %v runs", h, e)
			}
		}
		if m.jobs()+m.harvested() > modelMemory {
			t.Fatalf("job %v is told that all is free, and %d bytes of jobs and %d harvested do not fit", h, m.jobs(), m.harvested())
		}
	}
}

// check: nothing waits beyond its deadline, and the next deadline is the earliest.
func (m *model) check(t *rapid.T) {
	var next time.Time
	for _, ticket := range m.waiting {
		if !m.now.Before(ticket.Deadline) {
			t.Fatalf("%v waits at %v", ticket, m.now)
		}
		if next.IsZero() || ticket.Deadline.Before(next) {
			next = ticket.Deadline
		}
	}
	if got := m.book.Next(); !got.Equal(next) {
		t.Fatalf("next deadline %v, want %v", got, next)
	}
}
