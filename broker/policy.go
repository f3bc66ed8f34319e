package broker

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/broker/lease"
	"github.com/gleaner-hpc/gleaner/broker/placement"
	"github.com/gleaner-hpc/gleaner/policies"
	"github.com/gleaner-hpc/gleaner/slurmplugin/slurmctld"
)

// Sharing says which jobs' unused resources may be lent when the job itself has not said: its account's word, else its partition's,
// else Exclusive for a job that asked for whole nodes, else Default. A job's own --gleaner=yes or no stands above all.
type Sharing struct {
	Default, Exclusive   bool
	Partitions, Accounts map[string]bool
}

// Of is the site's word on a job.
func (s Sharing) Of(job *slurmctld.Job) bool {
	if yes, said := s.Accounts[job.Account]; said {
		return yes
	}
	if yes, said := s.Partitions[job.Partition]; said {
		return yes
	}
	if job.Exclusive {
		return s.Exclusive
	}
	return s.Default
}

func share(yes bool) api.Share {
	if yes {
		return api.Share_SHARE_YES
	}
	return api.Share_SHARE_NO
}

// recentEvictions is how long a policy sees evictions of a node.
const recentEvictions = 10 * time.Minute

// forecast is what slurmctld expects of a node.
type forecast struct {
	next    time.Time
	waiting int
}

// forecasts reads the queue: where the next job is expected, and how many wait for which partition.
func forecasts(view *slurmctld.View) (map[string]time.Time, map[string]int) {
	next, waiting := map[string]time.Time{}, map[string]int{}
	for i := range view.Jobs {
		job := &view.Jobs[i]
		if job.State != "pending" || job.Start.IsZero() {
			continue // one without an expected start waits for something else than nodes
		}
		for partition := range strings.SplitSeq(job.Partition, ",") {
			waiting[partition]++
		}
		for _, name := range job.Expected {
			if at, known := next[name]; !known || job.Start.Before(at) {
				next[name] = job.Start
			}
		}
	}
	return next, waiting
}

// foresee tells each node what slurmctld expects of it.
func (s *state) foresee() {
	next, waiting := forecasts(s.view)
	for _, n := range s.nodes {
		n.forecast = forecast{next: next[n.name]}
		if n.slurm == nil {
			continue
		}
		for _, partition := range n.slurm.Partitions {
			n.forecast.waiting += waiting[partition]
		}
	}
}

// watched says how often agents are to look at their jobs; never for a policy that does not ask what jobs do not use.
func (s *state) watched() *durationpb.Duration {
	if s.cfg.Watch == 0 {
		return nil
	}
	return durationpb.New(s.cfg.Watch)
}

// offerable is every node as the policy may see it.
func (s *state) offerable(now time.Time, names ...string) []placement.Node {
	executors := map[string][]policies.Executor{}
	for _, l := range s.table.Leases() {
		for _, x := range l.Executors {
			executors[x.Node] = append(executors[x.Node], policyExecutor(l, x))
		}
	}
	known := s.sortedNodes()
	if names != nil {
		known = slices.DeleteFunc(known, func(n *node) bool { return !slices.Contains(names, n.name) })
	}
	nodes := make([]placement.Node, 0, len(known))
	for _, n := range known {
		p := n.offered(s.view)
		p.Executors = executors[n.name]
		slices.SortFunc(p.Executors, func(a, b policies.Executor) int { return cmp.Compare(a.ID, b.ID) })
		n.attribute(p.Executors)
		s.describe(now, n, &p)
		nodes = append(nodes, p)
	}
	return nodes
}

func policyExecutor(l *lease.Lease, x *lease.Executor) policies.Executor {
	return policies.Executor{
		ID: x.ID, Lease: l.ID, UID: l.Request.UID, Function: function(&l.Request), Resources: l.Request.Each, Started: x.Placed,
	}
}

// function names a lease's code for policies.
func function(r *lease.Request) string {
	return r.Function.Symbol + "@" + hex.EncodeToString(r.Function.Digest[:min(8, len(r.Function.Digest))])
}

// attribute books what is borrowed from jobs on the executors started last.
func (n *node) attribute(executors []policies.Executor) {
	borrowed := n.state.GetBorrowed().GetMemoryBytes()
	if borrowed == 0 {
		return
	}
	order := make([]int, len(executors))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return executors[b].Started.Compare(executors[a].Started) })
	for _, i := range order {
		executors[i].Borrowed = min(borrowed, executors[i].Resources.MemoryBytes)
		borrowed -= executors[i].Borrowed
	}
}

// describe adds what a policy sees of a node beside amounts.
func (s *state) describe(now time.Time, n *node, p *placement.Node) {
	p.NextStart, p.Waiting = n.forecast.next, n.forecast.waiting
	n.evictions = slices.DeleteFunc(n.evictions, func(at time.Time) bool { return now.Sub(at) > recentEvictions })
	p.Evictions = slices.Clone(n.evictions)
	if n.state == nil {
		return
	}
	p.Unused, p.Borrowed = resources(n.state.Unused), resources(n.state.Borrowed)
	p.Stalls, p.Alone = stalls(n.state.Stalls), stalls(n.state.Alone)
	p.Stalls.Awaited = n.state.Stalls == nil
	for _, h := range n.state.Jobs {
		job := policies.Job{
			ID: h.JobId, Cores: int(h.CoreCount), Share: h.Share == api.Share_SHARE_YES || h.Share == api.Share_SHARE_GPUS,
			Memory: policies.Memory{Allocated: h.MemoryBytes, Used: h.UsedBytes, Peak: h.PeakBytes, Lent: h.LendableBytes},
		}
		if known := s.jobs[h.JobId]; known != nil {
			job.Kind, job.End = fmt.Sprintf("%d/%s/%s", known.UID, known.Account, known.Partition), known.End
		}
		p.Jobs = append(p.Jobs, job)
	}
	slices.SortFunc(p.Jobs, func(a, b policies.Job) int { return cmp.Compare(a.ID, b.ID) })
}

func stalls(s *api.Stalls) policies.Stalls {
	return policies.Stalls{CPU: s.GetCpu(), Memory: s.GetMemory(), IO: s.GetIo(), Bandwidth: s.GetBandwidth(), Missing: s.GetMissing()}
}

// heed learns from the nodes whose jobs have been looked at since the last time, and lets go what the policy wants to see gone.
func (s *state) heed(now time.Time) {
	if len(s.looked) == 0 {
		return
	}
	names := slices.Sorted(maps.Keys(s.looked))
	clear(s.looked)
	nodes := s.offerable(now, names...)
	for i := range nodes {
		if nodes[i].Usable {
			s.learner.Note(now, &nodes[i].Node)
		}
	}
	s.clashes = s.learner.Clashes(now)
	nodes = slices.DeleteFunc(nodes, func(n placement.Node) bool { return !n.Usable || len(n.Executors) == 0 })
	if len(nodes) == 0 {
		return
	}
	for _, o := range placement.Offers(now, s.cfg.Policy, nodes, s.clashes) {
		for _, id := range o.Shed {
			s.shed(now, s.nodes[o.Node], id, cmp.Or(o.Why, "the policy lets it go"))
		}
	}
}

// shed ends an executor for the sake of the jobs beside it.
func (s *state) shed(now time.Time, n *node, id, why string) {
	x := s.table.Executor(id)
	if x == nil || x.Node != n.name {
		return
	}
	if b := n.booked[id]; b != nil {
		b.stopped = now
	}
	n.send(&api.BrokerMessage{Message: &api.BrokerMessage_Stop{Stop: &api.Stop{Id: id, Reason: api.EndReason_EVICTED}}})
	s.gone(now, n, id, api.EndReason_EVICTED, "evicted: "+why)
	s.metrics.shed.Inc()
}

// rank asks the policy who goes first on the nodes whose executors have changed, and tells their agents.
func (s *state) rank(now time.Time) {
	if len(s.unordered) == 0 {
		return
	}
	names := slices.Sorted(maps.Keys(s.unordered))
	clear(s.unordered)
	for _, p := range s.offerable(now, names...) {
		n := s.nodes[p.Name]
		if n.session == nil || len(p.Executors) < 2 {
			continue
		}
		ids := s.cfg.Policy.Evict(policies.Overlap{Node: n.name}, p.Executors)
		if n.ordered == n.session && slices.Equal(ids, n.order) {
			continue
		}
		n.order, n.ordered = ids, n.session
		n.send(&api.BrokerMessage{Message: &api.BrokerMessage_Order{Order: &api.EvictionOrder{Ids: ids}}})
	}
}
