package ledger

import (
	"cmp"
	"slices"
	"time"

	"github.com/gleaner-hpc/gleaner/agent/coreset"
)

// Claim enters what a job holds from now on; it replaces what the job held before, whether that was more or less. GPUs that an
// earlier warning named stay, unless the claim names some itself.
func (l *Ledger) Claim(h Hold) {
	h = l.normal(h)
	if old, ok := l.jobs[h.Job]; ok {
		if h.GPUs.Empty() {
			h.GPUs = old.GPUs
		}
		h.Share = cmp.Or(h.Share, old.Share)
		if h.Memory != old.Memory || h.All || h.Share == ShareNo {
			delete(l.loans, h.Job)
		}
	}
	delete(l.warned, h.Job)
	delete(l.doubts, h.Job)
	delete(l.released, h.Job)
	l.jobs[h.Job] = &h
}

// normal makes a hold fit the node: unknown cores are all cores, memory is at most the node's.
func (l *Ledger) normal(h Hold) Hold {
	if h.Cores.Empty() {
		h.All = true
	}
	if h.All {
		h.Cores, h.Memory = nil, l.cfg.Memory
	}
	h.Memory = min(h.Memory, l.cfg.Memory)
	return h
}

// Warn stops admission until the job claims, is released, or until has come. GPUs that it names are the job's at once. A job
// that holds cores already changes nothing.
func (l *Ledger) Warn(job uint32, gpus coreset.Set, now, until time.Time) {
	h, known := l.jobs[job]
	if known && (h.All || !h.Cores.Empty()) {
		return
	}
	l.warned[job] = until
	delete(l.released, job)
	if !gpus.Empty() {
		l.jobs[job] = &Hold{Job: job, GPUs: gpus, Since: now, Origin: Prolog}
	}
}

// Release frees what a job held. It reports whether the job held anything or was announced.
func (l *Ledger) Release(job uint32, now time.Time) bool {
	_, held := l.jobs[job]
	_, warned := l.warned[job]
	_, doubted := l.doubts[job]
	delete(l.jobs, job)
	delete(l.warned, job)
	delete(l.doubts, job)
	delete(l.loans, job)
	l.released[job] = now
	l.forget(now)
	return held || warned || doubted
}

// forget drops releases that no late report can contradict any more, and warnings long over.
func (l *Ledger) forget(now time.Time) {
	for job, at := range l.released {
		if now.Sub(at) > rememberRelease {
			delete(l.released, job)
		}
	}
	for job, until := range l.warned {
		if now.After(until) {
			delete(l.warned, job)
		}
	}
}

// Job returns what a job holds.
func (l *Ledger) Job(job uint32) (Hold, bool) {
	h, ok := l.jobs[job]
	if !ok {
		return Hold{}, false
	}
	return *h, true
}

// Jobs lists all holds by job.
func (l *Ledger) Jobs() []Hold {
	list := make([]Hold, 0, len(l.jobs))
	for _, h := range l.jobs {
		list = append(list, *h)
	}
	slices.SortFunc(list, func(a, b Hold) int { return cmp.Compare(a.Job, b.Job) })
	return list
}

// Overlap returns the executors, not condemned yet, that have to go so that the job has its cores and GPUs and all jobs their
// memory: those on its cores and GPUs, and then the fewest others that give back enough memory; among equally few the ones that
// come first in the eviction order. Condemned executors count as gone.
func (l *Ledger) Overlap(job uint32) []Executor {
	h, ok := l.jobs[job]
	if !ok {
		return nil
	}
	var victims []Executor
	var rest []*Executor
	held := uint64(0)
	for _, e := range l.executors {
		switch {
		case e.Condemned:
		case l.collides(h, e):
			victims = append(victims, *e)
		default:
			rest = append(rest, e)
			held += e.Memory
		}
	}
	slices.SortFunc(victims, func(a, b Executor) int { return l.cfg.Before(&a, &b) })
	slices.SortFunc(rest, l.cfg.Before)
	room := l.cfg.Memory - l.jobMemory()
	rest = slices.DeleteFunc(rest, func(e *Executor) bool { // those that nobody uses go first
		if !e.Parked || held <= room {
			return false
		}
		victims = append(victims, *e)
		held -= e.Memory
		return true
	})
	if held > room {
		for _, e := range fewest(rest, held-room) {
			victims = append(victims, *e)
		}
	}
	return victims
}

// collides says whether an executor holds a core or GPU of the job.
func (l *Ledger) collides(h *Hold, e *Executor) bool {
	if h.GPUs.Minus(l.loans[h.Job].GPUs).Overlaps(e.GPUs) {
		return true
	}
	return h.All || h.Cores.Overlaps(e.Cores)
}

// Clear says whether nothing that executors hold, condemned ones included, stands in the job's way.
func (l *Ledger) Clear(job uint32) bool {
	h, ok := l.jobs[job]
	if !ok {
		return true
	}
	held := uint64(0)
	for _, e := range l.executors {
		if l.collides(h, e) {
			return false
		}
		held += e.Memory
	}
	return held <= l.cfg.Memory-l.jobMemory()
}

// fewest returns as few executors as give back need bytes, the earliest in list among equally few.
func fewest(list []*Executor, need uint64) []*Executor {
	bySize := slices.SortedFunc(slices.Values(list), func(a, b *Executor) int { return cmp.Compare(b.Memory, a.Memory) })
	count, sum := 0, uint64(0)
	for ; count < len(bySize) && sum < need; count++ {
		sum += bySize[count].Memory
	}
	var chosen []*Executor
	for i, e := range list {
		if len(chosen) == count {
			break
		}
		if e.Memory+largest(list[i+1:], count-len(chosen)-1) >= need {
			chosen = append(chosen, e)
			need -= min(need, e.Memory)
		}
	}
	return chosen
}

// largest sums the memory of the n largest executors of list.
func largest(list []*Executor, n int) uint64 {
	sizes := make([]uint64, 0, len(list))
	for _, e := range list {
		sizes = append(sizes, e.Memory)
	}
	slices.Sort(sizes)
	sum := uint64(0)
	for _, size := range sizes[max(0, len(sizes)-n):] {
		sum += size
	}
	return sum
}

// jobMemory sums what jobs hold and do not lend, at most the node's memory.
func (l *Ledger) jobMemory() uint64 {
	sum := uint64(0)
	for _, h := range l.jobs {
		sum = min(sum+h.Memory-l.loans[h.Job].Memory, l.cfg.Memory)
	}
	return sum
}

// free returns what nobody holds and may be lent.
func (l *Ledger) free() (cores coreset.Set, memory uint64, gpus coreset.Set) {
	cores, gpus = l.lendable, l.lendableGPUs()
	used := l.jobMemory() + l.cfg.ReserveMemory
	for _, h := range l.jobs {
		gpus = gpus.Minus(h.GPUs.Minus(l.loans[h.Job].GPUs))
		if h.All {
			return nil, 0, nil
		}
		cores = cores.Minus(h.Cores)
	}
	for _, e := range l.executors {
		if !e.Parked {
			cores, gpus = cores.Minus(e.Cores), gpus.Minus(e.GPUs)
			used += e.Memory
		}
	}
	return cores, l.cfg.Memory - min(used, l.cfg.Memory), gpus
}

// Blocking returns the executors in the job's way, condemned ones included: those on its cores and GPUs, and all condemned ones
// while memory is short.
func (l *Ledger) Blocking(job uint32) []string {
	h, ok := l.jobs[job]
	if !ok || l.Clear(job) {
		return nil
	}
	held := uint64(0)
	for _, e := range l.executors {
		held += e.Memory
	}
	short := held > l.cfg.Memory-l.jobMemory()
	var ids []string
	for id, e := range l.executors {
		if l.collides(h, e) || short && e.Condemned {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}
