package simulate

import (
	"fmt"
	"slices"
	"time"

	"github.com/gleaner-hpc/gleaner/agent/coreset"
	"github.com/gleaner-hpc/gleaner/agent/evict"
	"github.com/gleaner-hpc/gleaner/agent/ledger"
	"github.com/gleaner-hpc/gleaner/broker/placement"
)

// claim starts a job: on each of its nodes the ledger names who has to go, and they go.
func (e *engine) claim(index int32) error {
	j := &e.s.jobs[index]
	e.waiting--
	evicting := false
	for _, p := range e.s.partsOf(j) {
		gone, err := e.enter(index, j, p)
		if err != nil {
			return err
		}
		evicting = evicting || gone
	}
	if j.down {
		return nil
	}
	o := e.out
	o.Jobs.Started++
	delay := e.cfg.DelayQuiet
	if evicting {
		o.Jobs.Evicting++
		delay = e.cfg.DelayEvicting
	}
	o.Jobs.DelaySeconds += delay.Seconds()
	o.Jobs.DelayMost = max(o.Jobs.DelayMost, delay)
	return nil
}

// enter gives a job its part of a node and says whether anything was evicted for it.
func (e *engine) enter(index int32, j *placed, p part) (bool, error) {
	n, shape := &e.nodes[p.node], e.s.Trace.Nodes[p.node]
	n.next++
	hold := ledger.Hold{Job: uint32(index) + 1, Since: e.clock(), Origin: ledger.Gate}
	hold.Cores, hold.Memory = n.pick(p, shape.Cores), memoryOf(j, p, shape.Cores, shape.Memory)
	n.taken, n.jobs = n.taken.Or(hold.Cores), append(n.jobs, index)
	n.down = n.down || j.down
	e.area.job(j.down, hold.Cores.Len(), hold.Memory, j.used)
	n.ledger.Claim(hold)
	victims := n.ledger.Overlap(hold.Job)
	if len(victims) == 0 {
		return false, nil
	}
	for _, id := range evict.New(hold, victims, e.clock(), 0, evict.Policy{}).Kill {
		k := slices.IndexFunc(n.running, func(r running) bool { return r.id == id })
		if k < 0 || !n.ledger.Condemn(id) {
			return false, fmt.Errorf("the plan kills %s, which does not run on %s", id, shape.Name)
		}
		r := n.running[k]
		n.running = slices.Delete(n.running, k, k+1)
		e.end(n, r, true)
		e.backoff.Note(e.clock(), r.lease, shape.Name, placement.Evicted)
	}
	if !n.ledger.Clear(hold.Job) {
		return false, fmt.Errorf("job of %s is not clear after its evictions", shape.Name)
	}
	n.evictions = append(n.evictions, e.now)
	e.touch(p.node)
	return true, nil
}

// pick chooses cores as Slurm does, from the lowest-numbered.
func (n *node) pick(p part, cores int) coreset.Set {
	if p.cores == 0 {
		return coreset.Range(0, cores)
	}
	free := coreset.Range(0, cores).Minus(n.taken).Numbers()
	return coreset.Of(free[:min(int(p.cores), len(free))]...)
}

// memoryOf is what a job holds of a node's memory: what it asked for, else the share of its cores.
func memoryOf(j *placed, p part, cores int, memory uint64) uint64 {
	switch {
	case j.memory > 0:
		return min(j.memory, memory)
	case p.cores == 0:
		return memory
	}
	return memory / uint64(cores) * uint64(p.cores)
}

// release ends a job.
func (e *engine) release(index int32) {
	j := &e.s.jobs[index]
	for _, p := range e.s.partsOf(j) {
		n := &e.nodes[p.node]
		hold, _ := n.ledger.Job(uint32(index) + 1)
		n.ledger.Release(uint32(index)+1, e.clock())
		n.taken = n.taken.Minus(hold.Cores)
		n.jobs = slices.DeleteFunc(n.jobs, func(other int32) bool { return other == index })
		n.down = slices.ContainsFunc(n.jobs, func(other int32) bool { return e.s.jobs[other].down })
		e.area.job(j.down, -hold.Cores.Len(), hold.Memory, j.used)
		e.touch(p.node)
	}
}

// recent are the evictions of the last ten minutes.
func (n *node) recent(now time.Duration) []time.Duration {
	n.evictions = slices.DeleteFunc(n.evictions, func(at time.Duration) bool { return now-at > 10*time.Minute })
	return n.evictions
}
