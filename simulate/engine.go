package simulate

import (
	"container/heap"
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/gleaner-hpc/gleaner/agent/coreset"
	"github.com/gleaner-hpc/gleaner/agent/ledger"
	"github.com/gleaner-hpc/gleaner/broker/placement"
	"github.com/gleaner-hpc/gleaner/policies"
	"github.com/gleaner-hpc/gleaner/simulate/trace"
)

type simJob = trace.Job

// engine replays one schedule under one policy.
type engine struct {
	cfg     Config
	policy  policies.Policy
	s       *Schedule
	epoch   time.Time
	now     time.Duration
	nodes   []node
	names   map[string]int32
	demand  *demand
	backoff *placement.Backoff

	fresh   members       // nodes whose free part has changed since the last round
	refused members       // nodes that had room in the last round and were not filled
	round   time.Duration // when the next one is; never when there is nothing to decide
	retry   time.Duration // when refused nodes are asked about again
	forget  time.Duration // when the backoff is next relieved of what is long ago
	ending  endings

	bits    *rand.PCG
	random  *rand.Rand
	started uint64
	waiting int // jobs handed in and not begun
	submits []int32
	out     *Outcome
	area    area
}

const never = time.Duration(1<<63 - 1)

// node is one node's agent, and what is on it.
type node struct {
	ledger    *ledger.Ledger
	jobs      []int32 // that hold something here
	taken     coreset.Set
	running   []running
	evictions []time.Duration
	next      int32 // in Schedule.byNode: the job that comes next
	down      bool
}

// running is one executor. Its ledger knows what it holds.
type running struct {
	id    string
	seq   uint64
	lease uint64
	task  int32
	cores int
	bytes uint64
	since time.Duration
}

// Run replays a schedule under each policy. It ends early with ctx.
func Run(ctx context.Context, s *Schedule, cfg Config) (*Report, error) {
	cfg = cfg.defaults()
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("simulate: %w", err)
	}
	r := newReport(s, cfg)
	for _, p := range cfg.Policies {
		e, err := newEngine(s, cfg, p)
		if err != nil {
			return nil, fmt.Errorf("simulate: %w", err)
		}
		if err := e.run(ctx); err != nil {
			return nil, fmt.Errorf("simulate policy %s: %w", p.Name, err)
		}
		r.Policies = append(r.Policies, *e.out)
	}
	return r, nil
}

func newEngine(s *Schedule, cfg Config, p Named) (*engine, error) {
	e := &engine{
		cfg: cfg, policy: p.Policy, s: s, epoch: s.Trace.Origin, nodes: make([]node, len(s.Trace.Nodes)),
		names: make(map[string]int32, len(s.Trace.Nodes)), demand: newDemand(cfg.Demand), backoff: placement.NewBackoff(),
		fresh: newMembers(len(s.Trace.Nodes)), refused: newMembers(len(s.Trace.Nodes)), bits: rand.NewPCG(cfg.Seed, 0), out: &Outcome{Policy: p.Name},
		submits: s.bySubmit(), retry: never,
	}
	if e.epoch.IsZero() {
		e.epoch = time.Unix(0, 0).UTC()
	}
	e.random = rand.New(e.bits)
	e.area = newArea(s.Trace, cfg.Columns)
	for i, n := range s.Trace.Nodes {
		l, err := ledger.New(ledger.Config{Cores: n.Cores, Memory: n.Memory})
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", n.Name, err)
		}
		if _, twice := e.names[n.Name]; twice {
			return nil, fmt.Errorf("two nodes are named %s", n.Name)
		}
		e.nodes[i] = node{ledger: l, next: s.first[i]}
		e.names[n.Name] = int32(i)
		e.fresh.add(int32(i))
	}
	return e, nil
}

// run goes from event to event: ends before starts, so that a job may follow another at once; the round comes last.
func (e *engine) run(ctx context.Context) error {
	begin, end, submit, span := 0, 0, 0, e.s.Trace.Span
	for steps := 0; ; steps++ {
		if steps%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		now := e.round
		now = e.earliest(now, e.s.begin, begin, func(j *placed) time.Duration { return j.start })
		now = e.earliest(now, e.s.end, end, func(j *placed) time.Duration { return j.end })
		if len(e.ending) > 0 {
			now = min(now, e.ending[0].at)
		}
		if e.demand.next < len(e.demand.tasks) {
			now = min(now, e.demand.tasks[e.demand.next].arrive)
		}
		if now >= span {
			break
		}
		e.advance(now)
		for ; end < len(e.s.end) && e.s.jobs[e.s.end[end]].end <= now; end++ {
			e.release(e.s.end[end])
		}
		e.complete()
		for ; submit < len(e.submits) && e.s.jobs[e.submits[submit]].submit <= now; submit++ {
			e.waiting++
		}
		for ; begin < len(e.s.begin) && e.s.jobs[e.s.begin[begin]].start <= now; begin++ {
			if err := e.claim(e.s.begin[begin]); err != nil {
				return err
			}
		}
		if e.demand.arrived(now) {
			e.wake(now)
		}
		if e.round <= now {
			if err := e.decide(); err != nil {
				return err
			}
		}
	}
	e.advance(span)
	e.finish()
	return nil
}

func (e *engine) earliest(now time.Duration, order []int32, next int, key func(*placed) time.Duration) time.Duration {
	if next < len(order) {
		return min(now, key(&e.s.jobs[order[next]]))
	}
	return now
}

// advance moves time on.
func (e *engine) advance(now time.Duration) {
	e.area.until(now)
	e.now = now
}

func (e *engine) clock() time.Time { return e.epoch.Add(e.now) }

// wake wants a round at the next full one after a time.
func (e *engine) wake(now time.Duration) {
	e.round = min(e.round, (now/e.cfg.Round+1)*e.cfg.Round)
}

// touch notes that a node has room that it had not.
func (e *engine) touch(i int32) {
	e.fresh.add(i)
	e.wake(e.now)
}

// end takes an executor off a node and settles what it did.
func (e *engine) end(n *node, r running, evicted bool) {
	n.ledger.Remove(r.id)
	e.area.leased(-r.cores, r.bytes)
	e.settle(r, evicted)
}

// settle accounts for an executor's life.
func (e *engine) settle(r running, evicted bool) {
	cores, o := float64(r.cores), e.out
	life := max(0, (e.now - r.since - e.cfg.Startup).Seconds())
	var s served
	finished := false
	if r.task >= 0 {
		length := e.demand.tasks[r.task].length.Seconds()
		if finished = !evicted && life >= length-1e-6; finished {
			s = served{functions: 1, finished: length}
		} else {
			s = served{partial: life}
		}
	} else {
		e.bits.Seed(e.cfg.Seed, r.seq)
		s = e.cfg.Demand.Lengths.serve(e.random, life)
	}
	e.demand.back(r.lease, r.task, finished)
	o.Functions.Finished += s.functions
	o.CPU.Finished += cores * s.finished
	o.CPU.Starting += cores * ((e.now - r.since).Seconds() - life)
	switch {
	case evicted:
		o.CPU.Lost += cores * s.partial
		o.Evictions++
		if s.partial > 0 {
			o.Functions.Lost++
		}
	default:
		o.CPU.Running += cores * s.partial
	}
}

// endings is a heap of tasks by the time at which they are done.
type endings []ending

type ending struct {
	at   time.Duration
	seq  uint64
	node int32
}

func (h endings) Len() int { return len(h) }
func (h endings) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}
func (h endings) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *endings) Push(x any)   { *h = append(*h, x.(ending)) }
func (h *endings) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// complete ends the executors whose task is done.
func (e *engine) complete() {
	for len(e.ending) > 0 && e.ending[0].at <= e.now {
		done := heap.Pop(&e.ending).(ending)
		n := &e.nodes[done.node]
		for k, r := range n.running {
			if r.seq == done.seq {
				n.running = append(n.running[:k], n.running[k+1:]...)
				e.end(n, r, false)
				e.touch(done.node)
				break
			}
		}
	}
}

// finish settles what still runs when the trace ends.
func (e *engine) finish() {
	for i := range e.nodes {
		for _, r := range e.nodes[i].running {
			e.settle(r, false)
		}
	}
	e.out.Functions.Left = e.demand.left()
	if e.demand.endless {
		e.out.Functions.Left = 0
	}
	e.area.into(e.out)
	e.out.finish()
}
