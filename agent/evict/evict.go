// Package evict plans evictions and keeps the book of claims that wait for one. It is pure: the ledger says who overlaps, this
// package says in which order, how fast and with what words they go, and which claim may be answered. The agent's event loop acts.
//
//	          Open              Settle, job clear
//	claim ──────────▶ waiting ────────────────────▶ complete
//	                     │      Fail, Expire
//	                     └────────────────────────▶ incomplete: the gate uses force
//
// Before that a Prolog may have announced the job: what is harvested is frozen then until the answer (Announced).
package evict

import (
	"fmt"
	"slices"
	"time"

	"github.com/gleaner-hpc/gleaner/agent/ledger"
	"github.com/gleaner-hpc/gleaner/api/gate"
)

// Policy is the site's.
type Policy struct {
	// Deadline is how long after the claim a kill has to be confirmed; 0 means DefaultDeadline.
	Deadline time.Duration
	// MaxGrace is what a function that runs gets to finish, at most GraceWindow; 0 means that it gets nothing.
	MaxGrace time.Duration
}

// DefaultDeadline lies below the gate's second, so that its answer is ours and not its own force.
const DefaultDeadline = 950 * time.Millisecond

// GraceWindow is the longest grace, from the claim's arrival: as long as a gate waits for an acknowledgement.
const GraceWindow = gate.AckDeadline

// Plan is what has to happen for one claim, in this order: revoke all, wait for Grace, kill all at once.
type Plan struct {
	Job      uint32
	Kill     []string
	Evicted  []string // of Kill those that a lease holds
	Bytes    uint64   // that the evicted give back
	Reason   string   // for the clients of those that go
	Grace    time.Duration
	Deadline time.Time // for the confirmation
}

// New plans a claim received at a time. wanted is the grace that the function asks for.
func New(hold ledger.Hold, victims []ledger.Executor, received time.Time, wanted time.Duration, p Policy) Plan {
	deadline := p.Deadline
	if deadline == 0 {
		deadline = DefaultDeadline
	}
	plan := Plan{
		Job: hold.Job, Reason: reason(hold),
		Grace: max(0, min(wanted, p.MaxGrace, GraceWindow, deadline/2)), Deadline: received.Add(deadline),
	}
	for _, v := range victims {
		plan.Kill = append(plan.Kill, v.ID)
		if !v.Parked {
			plan.Evicted = append(plan.Evicted, v.ID)
			plan.Bytes += v.Memory
		}
	}
	return plan
}

func reason(h ledger.Hold) string {
	what := "cores " + h.Cores.String()
	switch {
	case h.Job == 0:
		return "evicted: a job that has not said which cores it holds runs on the node"
	case h.All:
		what = "the node, its cores are not known"
	case h.Cores.Empty():
		what = "GPUs " + h.GPUs.String()
	case h.Memory > 0:
		what += fmt.Sprintf(" and %d MiB", h.Memory>>20)
	}
	if !h.Cores.Empty() && !h.GPUs.Empty() {
		what += ", GPUs " + h.GPUs.String()
	}
	return fmt.Sprintf("evicted: job %d needed %s", h.Job, what)
}

// Ticket is one claim that waits for its answer.
type Ticket struct {
	ID       uint64 // the caller's
	Job      uint32
	Path     string // "gate" or "prolog"
	Received time.Time
	Deadline time.Time
	Evicted  []string // that this claim made go
	Bytes    uint64   // that they held
}

// Verdict closes a ticket.
type Verdict struct {
	Ticket
	Complete bool // nothing harvested is left on what the job holds
}

// Book holds the open tickets in order of arrival. Its zero value is ready.
type Book struct {
	open []Ticket
}

// Open enters a ticket.
func (b *Book) Open(t Ticket) { b.open = append(b.open, t) }

// Settle closes the tickets of jobs that are clear.
func (b *Book) Settle(clear func(job uint32) bool) []Verdict {
	return b.close(true, func(t Ticket) bool { return clear(t.Job) })
}

// Fail closes the tickets of jobs in whose way one of the executors stands that could not be ended.
func (b *Book) Fail(remaining []string, blocking func(job uint32) []string) []Verdict {
	return b.close(false, func(t Ticket) bool {
		return slices.ContainsFunc(blocking(t.Job), func(id string) bool { return slices.Contains(remaining, id) })
	})
}

// Expire closes the tickets whose deadline has come.
func (b *Book) Expire(now time.Time) []Verdict {
	return b.close(false, func(t Ticket) bool { return !now.Before(t.Deadline) })
}

// Next is the earliest deadline of an open ticket; zero when there is none.
func (b *Book) Next() time.Time {
	var next time.Time
	for _, t := range b.open {
		if next.IsZero() || t.Deadline.Before(next) {
			next = t.Deadline
		}
	}
	return next
}

func (b *Book) close(complete bool, ready func(Ticket) bool) []Verdict {
	var closed []Verdict
	b.open = slices.DeleteFunc(b.open, func(t Ticket) bool {
		if !ready(t) {
			return false
		}
		closed = append(closed, Verdict{t, complete})
		return true
	})
	return closed
}
