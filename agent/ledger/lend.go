package ledger

import (
	"cmp"
	"slices"
	"time"

	"github.com/gleaner-hpc/gleaner/agent/coreset"
)

// Share is a job's own word on whether what it does not use may be lent.
type Share string

const (
	ShareYes Share = "yes"
	ShareNo  Share = "no"
)

// Loan is what may be lent of what a job holds as long as the job does not need it. Cores are never lent.
type Loan struct {
	Memory uint64 // bytes, at most what the job holds
	GPUs   coreset.Set
}

// Lend sets what may be lent of a job's hold; the zero Loan takes all back. A job that said no, or whose cores are not known, lends
// nothing. Whoever sets a smaller loan asks Reclaim who has to go.
func (l *Ledger) Lend(job uint32, loan Loan) {
	h, ok := l.jobs[job]
	if !ok || h.All || h.Share == ShareNo {
		loan = Loan{}
	}
	if loan.Memory == 0 && loan.GPUs.Empty() {
		delete(l.loans, job)
		return
	}
	loan.Memory, loan.GPUs = min(loan.Memory, h.Memory), loan.GPUs.And(h.GPUs).Minus(l.withheld)
	if l.loans == nil {
		l.loans = map[uint32]Loan{}
	}
	l.loans[job] = loan
}

// Loan is what may be lent of a job's hold.
func (l *Ledger) Loan(job uint32) Loan { return l.loans[job] }

// allocated sums what jobs hold, lent or not, at most the node's memory.
func (l *Ledger) allocated() uint64 {
	sum := uint64(0)
	for _, h := range l.jobs {
		sum = min(sum+h.Memory, l.cfg.Memory)
	}
	return sum
}

// Borrowed is what leased executors hold of jobs' allocations, condemned ones included.
func (l *Ledger) Borrowed() Totals {
	held, gpus := uint64(0), coreset.Set(nil)
	for _, e := range l.executors {
		if e.Parked {
			continue
		}
		held += e.Memory
		for job, loan := range l.loans {
			if h := l.jobs[job]; h != nil {
				gpus = gpus.Or(loan.GPUs.And(h.GPUs).And(e.GPUs))
			}
		}
	}
	own := l.cfg.Memory - min(l.cfg.Memory, l.allocated()+l.cfg.ReserveMemory)
	return Totals{Memory: held - min(held, own), GPUs: gpus.Len()}
}

// Unused is what may still be lent of jobs' allocations.
func (l *Ledger) Unused() Totals {
	var sum Totals
	for _, loan := range l.loans {
		sum.Memory += loan.Memory
		sum.GPUs += loan.GPUs.Len()
	}
	borrowed := l.Borrowed()
	return Totals{Memory: sum.Memory - min(sum.Memory, borrowed.Memory), GPUs: max(0, sum.GPUs-borrowed.GPUs)}
}

// Reclaim returns the executors, not condemned yet, that have to go so that jobs have what is no longer lent: those on GPUs taken back,
// parked ones, and then those that give back enough memory for the least lost work, which is cores times age.
func (l *Ledger) Reclaim(now time.Time) []Executor {
	var victims []Executor
	var rest []*Executor
	held := uint64(0)
	for _, e := range l.executors {
		switch {
		case e.Condemned:
		case l.onTakenGPU(e):
			victims = append(victims, *e)
		default:
			held += e.Memory
			rest = append(rest, e)
		}
	}
	slices.SortFunc(victims, func(a, b Executor) int { return cmp.Compare(a.ID, b.ID) })
	room := l.cfg.Memory - l.jobMemory()
	if held <= room {
		return victims
	}
	for _, e := range cheapest(rest, held-room, now) {
		victims = append(victims, *e)
	}
	return victims
}

// onTakenGPU says whether an executor is on a GPU that a job holds and does not lend.
func (l *Ledger) onTakenGPU(e *Executor) bool {
	for _, h := range l.jobs {
		if h.GPUs.Minus(l.loans[h.Job].GPUs).Overlaps(e.GPUs) {
			return true
		}
	}
	return false
}

// cheapest returns executors that give back need bytes: those first that lose the least work for each byte, less those that then turn
// out not to be needed, the dearest first.
func cheapest(list []*Executor, need uint64, now time.Time) []*Executor {
	lost := func(e *Executor) float64 {
		if e.Parked {
			return 0
		}
		return max(0, now.Sub(e.Since).Seconds()) * float64(max(1, e.Cores.Len()))
	}
	slices.SortFunc(list, func(a, b *Executor) int {
		return cmp.Or(cmp.Compare(lost(a)/float64(max(1, a.Memory)), lost(b)/float64(max(1, b.Memory))), cmp.Compare(b.Memory, a.Memory), cmp.Compare(a.ID, b.ID))
	})
	sum, count := uint64(0), 0
	for ; count < len(list) && sum < need; count++ {
		sum += list[count].Memory
	}
	chosen := slices.Clone(list[:count])
	slices.SortFunc(chosen, func(a, b *Executor) int { return cmp.Or(cmp.Compare(lost(b), lost(a)), cmp.Compare(a.ID, b.ID)) })
	return slices.DeleteFunc(chosen, func(e *Executor) bool {
		spare := sum-min(sum, e.Memory) >= need
		if spare {
			sum -= e.Memory
		}
		return spare
	})
}

// Rank sets the order in which executors go when memory alone is short; those that it does not name go before the others.
func (l *Ledger) Rank(ids []string) {
	for _, e := range l.executors {
		e.Rank = 0
	}
	for i, id := range ids {
		if e := l.executors[id]; e != nil {
			e.Rank = i + 1
		}
	}
}
