package simulate

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"time"

	"github.com/gleaner-hpc/gleaner/simulate/trace"
)

// Schedule says which job holds which nodes from when to when. It is made once and only read.
type Schedule struct {
	Trace  *trace.Trace
	parts  []part
	jobs   []placed
	begin  []int32 // jobs by start
	end    []int32 // jobs by end
	first  []int32 // node → where its jobs begin in byNode; one more than there are nodes
	byNode []int32 // parts of each node by start
	Late   int     // jobs that found the machine full at their start and were given what they need later
	Clip   int     // nodes on which a job found fewer cores than the trace says
}

// part is a job's share of one node.
type part struct {
	node  int32
	cores int32 // 0: the whole node
	job   int32
}

// placed is a job in its place.
type placed struct {
	submit, start, end time.Duration
	limit              time.Duration
	first, count       int32 // of parts
	memory, used       uint64
	down               bool
}

func (s *Schedule) partsOf(j *placed) []part { return s.parts[j.first : j.first+j.count] }

// Allocate gives every job of a trace its nodes: those that the trace names, else the lowest-numbered free ones, whole nodes first. A
// job that finds no room starts once there is some, in the order of arrival.
func Allocate(t *trace.Trace) (*Schedule, error) {
	a := &allocator{s: &Schedule{Trace: t}, free: make([]int32, len(t.Nodes)), empty: newBits(len(t.Nodes)), partial: newBits(len(t.Nodes))}
	for i, n := range t.Nodes {
		if n.Cores < 1 {
			return nil, fmt.Errorf("node %s has no cores", n.Name)
		}
		a.free[i] = int32(n.Cores)
		a.empty.set(i)
		a.total += n.Cores
	}
	for i := range t.Jobs {
		j := &t.Jobs[i]
		if j.Whole > len(t.Nodes) || j.On == nil && j.Whole == 0 && j.Cores > a.total {
			return nil, fmt.Errorf("job of line %d needs %d nodes, %d cores; the machine has %d and %d", j.Line, j.Whole, j.Cores, len(t.Nodes), a.total)
		}
		a.until(j.Start)
		if len(a.queue) > 0 && j.On == nil {
			a.queue = append(a.queue, i)
			a.s.Late++
			continue
		}
		if !a.place(i, j.Start) {
			a.queue = append(a.queue, i)
			a.s.Late++
		}
	}
	for len(a.queue) > 0 && len(a.running) > 0 {
		a.until(a.s.jobs[a.running[0]].end)
	}
	a.s.sort()
	return a.s, nil
}

func (s *Schedule) sort() {
	s.begin = s.order(func(p *placed) time.Duration { return p.start })
	s.end = s.order(func(p *placed) time.Duration { return p.end })
	s.first = make([]int32, len(s.Trace.Nodes)+1)
	for _, p := range s.parts {
		s.first[p.node+1]++
	}
	for i := range s.Trace.Nodes {
		s.first[i+1] += s.first[i]
	}
	s.byNode = make([]int32, len(s.parts))
	fill := slices.Clone(s.first)
	for _, j := range s.begin {
		for k := range s.jobs[j].count {
			at := s.jobs[j].first + k
			s.byNode[fill[s.parts[at].node]] = at
			fill[s.parts[at].node]++
		}
	}
}

// order sorts jobs by a time.
func (s *Schedule) order(key func(*placed) time.Duration) []int32 {
	order := make([]int32, len(s.jobs))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int { return cmp.Or(cmp.Compare(key(&s.jobs[a]), key(&s.jobs[b])), cmp.Compare(a, b)) })
	return order
}

// allocator keeps what is free while it goes through the jobs.
type allocator struct {
	s              *Schedule
	total          int
	free           []int32
	empty, partial bitmap
	running        []int32 // a heap of placed jobs by end
	queue          []int
}

func (a *allocator) Len() int           { return len(a.running) }
func (a *allocator) Less(i, j int) bool { return a.ends(i) < a.ends(j) }
func (a *allocator) Swap(i, j int)      { a.running[i], a.running[j] = a.running[j], a.running[i] }
func (a *allocator) Push(x any)         { a.running = append(a.running, x.(int32)) }
func (a *allocator) Pop() any {
	last := a.running[len(a.running)-1]
	a.running = a.running[:len(a.running)-1]
	return last
}
func (a *allocator) ends(i int) time.Duration { return a.s.jobs[a.running[i]].end }

// until ends all jobs that end up to a time, and starts those that waited for it.
func (a *allocator) until(t time.Duration) {
	for len(a.running) > 0 && a.ends(0) <= t {
		now := a.ends(0)
		for len(a.running) > 0 && a.ends(0) == now {
			j := &a.s.jobs[heap.Pop(a).(int32)]
			for _, p := range a.s.partsOf(j) {
				a.give(p.node, p.cores)
			}
		}
		for len(a.queue) > 0 && a.place(a.queue[0], now) {
			a.queue = a.queue[1:]
		}
	}
}

func (a *allocator) cores(node int32) int32 { return int32(a.s.Trace.Nodes[node].Cores) }

func (a *allocator) give(node, cores int32) {
	if cores == 0 {
		cores = a.cores(node)
	}
	a.free[node] += cores
	a.mark(node)
}

func (a *allocator) take(node, cores int32) {
	whole := cores == a.cores(node)
	a.free[node] -= cores
	a.mark(node)
	if whole {
		cores = 0
	}
	a.s.parts = append(a.s.parts, part{node, cores, int32(len(a.s.jobs))})
}

func (a *allocator) mark(node int32) {
	a.empty.put(int(node), a.free[node] == a.cores(node))
	a.partial.put(int(node), a.free[node] > 0 && a.free[node] < a.cores(node))
}

// place starts job i of the trace at a time, if there is room.
func (a *allocator) place(i int, now time.Duration) bool {
	j := &a.s.Trace.Jobs[i]
	first := int32(len(a.s.parts))
	switch {
	case j.On != nil:
		a.pinned(j)
	case j.Whole > 0:
		if a.empty.count < j.Whole {
			return false
		}
		for node := a.empty.next(0); int(int32(len(a.s.parts))-first) < j.Whole; node = a.empty.next(node + 1) {
			a.take(int32(node), a.cores(int32(node)))
		}
	case !a.spread(int32(j.Cores)):
		return false
	}
	count := int32(len(a.s.parts)) - first
	if count == 0 {
		return true
	}
	a.s.jobs = append(a.s.jobs, placed{
		submit: min(j.Submit, now), start: now, end: now + j.End - j.Start, limit: j.Limit, first: first, count: count,
		memory: j.Memory, used: j.Used, down: j.Down,
	})
	heap.Push(a, int32(len(a.s.jobs)-1))
	return true
}

// pinned takes what is left of the nodes that the trace names.
func (a *allocator) pinned(j *trace.Job) {
	left := int32(j.Cores)
	for k, node := range j.On {
		want := a.cores(node)
		if j.Cores > 0 { // evenly, what does not divide goes to the first ones
			want = (left + int32(len(j.On)-k) - 1) / int32(len(j.On)-k)
			left -= want
		}
		got := min(want, a.free[node])
		if got < want {
			a.s.Clip++
		}
		if got > 0 {
			a.take(node, got)
		}
	}
}

// spread takes cores: whole nodes, then the rest of one node that is in use already, and only then pieces wherever they are.
func (a *allocator) spread(cores int32) bool {
	sum := int32(0)
	var nodes []int32
	for node := a.empty.next(0); node >= 0 && sum+a.cores(int32(node)) <= cores; node = a.empty.next(node + 1) {
		nodes, sum = append(nodes, int32(node)), sum+a.cores(int32(node))
	}
	after := 0 // the first empty node that is not taken whole
	if len(nodes) > 0 {
		after = int(nodes[len(nodes)-1]) + 1
	}
	pieces := a.pieces(cores-sum, after)
	if pieces == nil && sum < cores {
		return false
	}
	for _, node := range nodes {
		a.take(node, a.cores(node))
	}
	for _, p := range pieces {
		a.take(p.node, p.cores)
	}
	return true
}

// pieces finds cores on nodes in use and on empty ones from a number on: on one node if any has so many, else wherever they are.
func (a *allocator) pieces(cores int32, after int) []part {
	if cores == 0 {
		return nil
	}
	from := []struct {
		set   *bitmap
		first int
	}{{&a.partial, 0}, {&a.empty, after}}
	for _, f := range from {
		for node := f.set.next(f.first); node >= 0; node = f.set.next(node + 1) {
			if a.free[node] >= cores {
				return []part{{node: int32(node), cores: cores}}
			}
		}
	}
	var pieces []part
	for _, f := range from {
		for node := f.set.next(f.first); node >= 0; node = f.set.next(node + 1) {
			got := min(a.free[node], cores)
			pieces, cores = append(pieces, part{node: int32(node), cores: got}), cores-got
			if cores == 0 {
				return pieces
			}
		}
	}
	return nil
}
