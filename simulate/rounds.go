package simulate

import (
	"container/heap"
	"fmt"
	"strconv"
	"time"

	"github.com/gleaner-hpc/gleaner/agent/ledger"
	"github.com/gleaner-hpc/gleaner/broker/placement"
	"github.com/gleaner-hpc/gleaner/policies"
)

// decide is one round of the broker. Nodes on which nothing has changed were filled or refused in an earlier round and are left out;
// refused ones are asked about again when a rest ends, after Config.Retry, or when functions of a second trace wait.
func (e *engine) decide() error {
	e.round = never
	now := e.clock()
	if e.now >= e.forget {
		e.backoff.Forget(now, func(uint64) bool { return true })
		e.forget = e.now + 10*time.Second
	}
	needs := e.demand.needs()
	if len(needs) == 0 {
		for _, i := range e.fresh.drain() {
			e.refused.add(i)
		}
		return nil
	}
	if e.now >= e.retry || !e.demand.endless {
		for _, i := range e.refused.drain() {
			e.fresh.add(i)
		}
		e.retry = never
	}
	order := e.fresh.drain() // nothing is added before the round is over
	nodes := make([]placement.Node, 0, len(order))
	for _, i := range order {
		nodes = append(nodes, e.view(i))
	}
	plan := placement.Decide(now, e.policy, nodes, needs, nil, e.backoff)
	for _, pick := range plan.Picks {
		if err := e.start(e.names[pick.Node], pick.Lease); err != nil {
			return err
		}
	}
	for _, i := range order {
		if e.demand.wanted(resources(e.nodes[i].ledger.Free(now))) {
			e.refused.add(i)
		}
	}
	e.again(now)
	return nil
}

// again plans the round in which refused nodes are asked about once more.
func (e *engine) again(now time.Time) {
	if len(e.refused.list) == 0 {
		return
	}
	after := e.cfg.Retry
	if next := e.backoff.Next(now); !next.IsZero() {
		after = min(after, next.Sub(now))
	}
	e.retry = min(e.retry, e.now+after)
	e.wake(e.retry)
}

// view is what the broker knows of a node. A trace says nothing of stalls or bandwidth: jobs count as calm and nodes as ones that tell,
// so that pressure lends what it lends at most. A node that cannot tell would lend nothing beside its jobs.
func (e *engine) view(i int32) placement.Node {
	n, shape := &e.nodes[i], e.s.Trace.Nodes[i]
	now := e.clock()
	leased := resources(n.ledger.Leased())
	v := placement.Node{Usable: !n.down, Booked: leased, Count: len(n.running), Node: policies.Node{
		Name: shape.Name, Total: policies.Resources{Cores: shape.Cores, MemoryBytes: shape.Memory}, Slurm: resources(n.ledger.Slurm()),
		Leased: leased, Free: resources(n.ledger.Free(now)), Waiting: e.waiting,
	}}
	if n.down {
		v.Why = "node is down"
	}
	if next := e.next(i); next != nil && next.submit <= e.now && !next.down {
		v.NextStart = e.epoch.Add(next.start)
	}
	for _, at := range n.recent(e.now) {
		v.Evictions = append(v.Evictions, e.epoch.Add(at))
	}
	for _, index := range n.jobs {
		job := policies.Job{ID: uint32(index) + 1}
		if j := &e.s.jobs[index]; j.limit > 0 {
			job.End = e.epoch.Add(j.start + j.limit)
		}
		v.Jobs = append(v.Jobs, job)
	}
	for _, r := range n.running {
		v.Executors = append(v.Executors, policies.Executor{
			ID: r.id, Lease: r.lease, Resources: policies.Resources{Cores: r.cores, MemoryBytes: r.bytes}, Started: e.epoch.Add(r.since),
		})
	}
	return v
}

// next is the job that comes to a node next.
func (e *engine) next(i int32) *placed {
	if at := e.nodes[i].next; at < e.s.first[i+1] {
		return &e.s.jobs[e.s.parts[e.s.byNode[at]].job]
	}
	return nil
}

func resources(t ledger.Totals) policies.Resources {
	return policies.Resources{Cores: t.Cores, MemoryBytes: t.Memory, GPUs: t.GPUs}
}

// start lets the node's ledger decide, and starts an executor if it agrees.
func (e *engine) start(i int32, lease uint64) error {
	n, each := &e.nodes[i], e.demand.bags[lease-1].each
	e.started++
	r := running{id: strconv.FormatUint(e.started, 10), seq: e.started, lease: lease, cores: each.Cores, bytes: each.MemoryBytes, since: e.now}
	if _, err := n.ledger.Reserve(r.id, lease, ledger.Need{Cores: each.Cores, Memory: each.MemoryBytes}, e.clock()); err != nil {
		return fmt.Errorf("placement and ledger of %s disagree: %w", e.s.Trace.Nodes[i].Name, err)
	}
	r.task = e.demand.take(lease)
	n.running = append(n.running, r)
	e.area.leased(r.cores, r.bytes)
	e.out.Executors++
	if r.task >= 0 {
		heap.Push(&e.ending, ending{e.now + e.cfg.Startup + e.demand.tasks[r.task].length, r.seq, i})
	}
	return nil
}

// bySubmit is the order in which jobs are handed in.
func (s *Schedule) bySubmit() []int32 {
	return s.order(func(p *placed) time.Duration { return p.submit })
}
