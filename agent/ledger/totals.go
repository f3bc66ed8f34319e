package ledger

import (
	"time"

	"github.com/gleaner-hpc/gleaner/agent/coreset"
)

// Totals are counts of cores, bytes and GPUs.
type Totals struct {
	Cores  int
	Memory uint64
	GPUs   int
}

// Node is all that Slurm may allocate here, but for GPUs that are withheld.
func (l *Ledger) Node() Totals { return Totals{l.cfg.Cores, l.cfg.Memory, l.lendableGPUs().Len()} }

// Slurm is what jobs hold. A job whose cores are not known counts with the number it is said to have, or as the whole node.
func (l *Ledger) Slurm() Totals {
	var cores, gpus coreset.Set
	count := 0
	for _, h := range l.jobs {
		cores, gpus = cores.Or(h.Cores), gpus.Or(h.GPUs)
		switch {
		case h.All && h.CoreCount > 0:
			count += h.CoreCount
		case h.All:
			count += l.cfg.Cores
		}
	}
	cores = cores.And(coreset.Range(0, l.cfg.Cores))
	gpus = gpus.And(l.lendableGPUs())
	return Totals{min(cores.Len()+count, l.cfg.Cores), l.allocated(), gpus.Len()}
}

// Leased is what executors hold, condemned ones included, parked ones not.
func (l *Ledger) Leased() Totals { return l.sum(false) }

// Parked is what parked sandboxes hold, condemned ones included.
func (l *Ledger) Parked() Totals { return l.sum(true) }

func (l *Ledger) sum(parked bool) Totals {
	var t Totals
	for _, e := range l.executors {
		if e.Parked != parked {
			continue
		}
		t.Cores += e.Cores.Len()
		t.Memory += e.Memory
		t.GPUs += e.GPUs.Len()
	}
	return t
}

// Free is what Reserve would accept now: nothing while the node does not admit.
func (l *Ledger) Free(now time.Time) Totals {
	if ok, _ := l.Admitting(now); !ok {
		return Totals{}
	}
	cores, memory, gpus := l.free()
	return Totals{cores.Len(), memory, gpus.Len()}
}
