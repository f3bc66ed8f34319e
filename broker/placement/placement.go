// Package placement decides which node starts the next executor of which lease. It joins what agents and slurmctld say, asks the
// policy, shares fairly between leases, and says in words why a lease waits. It is pure: time is an argument. The broker's loop is
// its only caller. What it decides is a proposal: the agent's own ledger has the last word.
//
// Nothing is promised twice. Of a node whose agent reports leased L and free F, while executors of size S in all are booked on it
// (told to start, running, or told to stop and not yet ended), at most min(F, L+F−S) is on offer: a start that the agent's report
// does not show yet is in S and not in L.
package placement

import (
	"cmp"
	"container/heap"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gleaner-hpc/gleaner/policies"
)

// Node is one node as an offer can be made of it.
type Node struct {
	policies.Node
	Usable bool
	Why    string             // when not usable
	Booked policies.Resources // S above
	Count  int                // executors booked
}

// available is what neither a lease nor a start in flight holds.
func (n *Node) available() policies.Resources {
	capacity := plus(n.Leased, n.Free)
	left := minus(capacity, n.Booked)
	return policies.Resources{
		Cores:       min(n.Free.Cores, left.Cores),
		MemoryBytes: min(n.Free.MemoryBytes, left.MemoryBytes),
		GPUs:        min(n.Free.GPUs, left.GPUs),
	}
}

// Pick is one executor to start.
type Pick struct {
	Lease uint64
	Node  string
}

// Need is a lease that misses executors.
type Need struct {
	policies.Request
	Held   int               // executors that it has
	Barred map[string]string // nodes that the site's rules keep it from, and why; nil for none
}

// Plan is what one round decided.
type Plan struct {
	Picks []Pick
	Why   map[uint64]string // for each lease that still misses something
}

// Decide shares what the nodes offer between the needs: turn by turn, the lease with the least of what it wants first. Backoff may be nil.
func Decide(now time.Time, policy policies.Policy, nodes []Node, needs []Need, clashes []policies.Clash, backoff *Backoff) Plan {
	plan := Plan{Why: map[uint64]string{}}
	if len(needs) == 0 {
		return plan
	}
	r := newRound(now, policy, nodes, clashes, backoff)
	queue := byNeed(slices.Clone(needs))
	missing := 0
	for i := range queue {
		missing += queue[i].Executors
	}
	turn := 1 + missing/1024 // so that a large demand needs no more than some thousand questions to the policy
	heap.Init(&queue)
	for len(queue) > 0 {
		need := &queue[0]
		got := r.place(*need, min(turn, need.Executors))
		for _, node := range got {
			plan.Picks = append(plan.Picks, Pick{need.Lease, node})
		}
		need.Held, need.Executors = need.Held+len(got), need.Executors-len(got)
		switch {
		case need.Executors == 0:
			heap.Pop(&queue)
		case len(got) == 0:
			plan.Why[need.Lease] = r.why(*need)
			heap.Pop(&queue)
		default:
			heap.Fix(&queue, 0)
		}
	}
	return plan
}

// byNeed is a heap of needs: on top the one with the smallest share of its wish, then the oldest lease.
type byNeed []Need

func (q byNeed) Len() int { return len(q) }
func (q byNeed) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(served(q[i]), served(q[j])), cmp.Compare(q[i].Lease, q[j].Lease)) < 0
}
func (q byNeed) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *byNeed) Push(x any)   { *q = append(*q, x.(Need)) }
func (q *byNeed) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// served is the share of its wish that a lease has.
func served(n Need) float64 { return float64(n.Held) / float64(n.Held+n.Executors) }

// round holds the offers while they shrink.
type round struct {
	now     time.Time
	policy  policies.Policy
	offers  []policies.Offer
	index   map[string]int
	nodes   []Node
	backoff *Backoff
	resting map[uint64]resting
	full    map[want]bool   // no node has room for one of these
	whys    map[want]string // and why, for leases without resting nodes
}

// want is what a policy may look at when it places: leases that want the same get the same answer.
type want struct {
	each     policies.Resources
	function string
	length   time.Duration
}

func (n *Need) want() want { return want{n.Each, n.Function, n.Length} }

// resting is what the backoff says of one lease.
type resting struct {
	held   map[string]bool
	recent []string
}

func newRound(now time.Time, policy policies.Policy, nodes []Node, clashes []policies.Clash, backoff *Backoff) *round {
	r := &round{now: now, policy: policy, index: make(map[string]int, len(nodes)), nodes: nodes, backoff: backoff, resting: map[uint64]resting{}, full: map[want]bool{}, whys: map[want]string{}}
	r.offers = Offers(now, policy, nodes, clashes)
	for i := range nodes {
		r.index[nodes[i].Name] = i
	}
	held := backoff.held(now, 0, r.index)
	for i := range nodes {
		if held[nodes[i].Name] && r.offers[i].Resources != (policies.Resources{}) {
			r.offers[i].Resources, r.offers[i].Why = policies.Resources{}, "resting after an eviction or a refusal"
		}
	}
	return r
}

// Offers asks the policy what the usable nodes lend, and holds it to what is available.
func Offers(now time.Time, policy policies.Policy, nodes []Node, clashes []policies.Clash) []policies.Offer {
	view := policies.View{Now: now, Nodes: make([]policies.Node, 0, len(nodes)), Clashes: clashes}
	for i := range nodes {
		if nodes[i].Usable {
			view.Nodes = append(view.Nodes, nodes[i].seen())
		}
	}
	answer := policy.Harvest(view)
	offers := make([]policies.Offer, len(nodes))
	next := 0
	for i := range nodes {
		n := &nodes[i]
		if !n.Usable {
			offers[i] = policies.Offer{Node: n.Name, Executors: n.Count, Why: n.Why}
			continue
		}
		free := view.Nodes[next].Free
		o := policies.Offer{Why: "the policy offers nothing"}
		if next < len(answer) {
			o = answer[next]
		}
		next++
		o.Node, o.Executors = n.Name, n.Count
		o.Resources.Cores = min(o.Resources.Cores, free.Cores)
		o.Resources.MemoryBytes = min(o.Resources.MemoryBytes, free.MemoryBytes)
		o.Resources.GPUs = min(o.Resources.GPUs, free.GPUs)
		offers[i] = o
	}
	return offers
}

// seen is the node as the policy sees it: what is booked counts as leased.
func (n *Node) seen() policies.Node {
	seen := n.Node
	seen.Free = n.available()
	seen.Leased = policies.Resources{
		Cores:       max(n.Leased.Cores, n.Booked.Cores),
		MemoryBytes: max(n.Leased.MemoryBytes, n.Booked.MemoryBytes),
		GPUs:        max(n.Leased.GPUs, n.Booked.GPUs),
	}
	return seen
}

// rests returns what the backoff says of a lease, asking it once.
func (r *round) rests(lease uint64) (held map[string]bool, recent []string) {
	known, ok := r.resting[lease]
	if !ok {
		known = resting{r.backoff.held(r.now, lease, r.index), r.backoff.recent(r.now, lease, r.index)}
		r.resting[lease] = known
	}
	return known.held, known.recent
}

// place asks the policy for up to n executors and takes what it picks out of the offers. A pick that does not fit is a fault of
// the policy and is dropped.
func (r *round) place(need Need, n int) []string {
	if r.full[need.want()] {
		return nil
	}
	held, recent := r.rests(need.Lease)
	if len(need.Barred) > 0 {
		held = maps.Clone(held)
		for node := range need.Barred {
			if held == nil {
				held = map[string]bool{}
			}
			held[node] = true
		}
	}
	offers := r.offers
	if len(held) > 0 {
		offers = slices.DeleteFunc(slices.Clone(offers), func(o policies.Offer) bool { return held[o.Node] })
	}
	request := need.Request
	request.Now, request.Executors, request.Avoid = r.now, n, recent
	var got []string
	for _, node := range r.policy.Place(request, offers) {
		i, known := r.index[node]
		if len(got) == n || !known || held[node] || !r.offers[i].Resources.Fits(need.Each) {
			continue
		}
		r.offers[i].Resources = r.offers[i].Resources.Minus(need.Each)
		r.offers[i].Executors++
		got = append(got, node)
	}
	if len(got) == 0 && len(held) == 0 {
		r.full[need.want()] = true
	}
	return got
}

// why says why no node takes one more executor of the need.
func (r *round) why(need Need) string {
	if len(r.nodes) == 0 {
		return "no agent is connected to the broker"
	}
	held, _ := r.rests(need.Lease)
	shared := len(held) == 0 && len(need.Barred) == 0
	if why := r.whys[need.want()]; why != "" && r.full[need.want()] && shared {
		return why
	}
	groups := map[string][]string{}
	for i, o := range r.offers {
		why := shortfall(&r.nodes[i], o, need.Each)
		if held[o.Node] {
			why = "resting after an executor failed there"
		}
		if no := need.Barred[o.Node]; no != "" {
			why = no
		}
		groups[why] = append(groups[why], o.Node)
	}
	why := fmt.Sprintf("no node has %s free: %s", Describe(need.Each), describeGroups(groups))
	if shared {
		r.whys[need.want()] = why
	}
	return why
}

func shortfall(n *Node, o policies.Offer, each policies.Resources) string {
	switch {
	case o.Resources == policies.Resources{} && o.Why != "":
		return o.Why
	case !n.Total.Fits(each):
		return "too small"
	case o.Resources.Fits(each):
		return "not picked by the policy"
	case n.Count > 0:
		return "in use by jobs and leases"
	}
	return "in use by jobs"
}

// describeGroups names the nodes of the largest groups: "n1, n2 allocated; n3 node is planned for a job".
func describeGroups(groups map[string][]string) string {
	const groupsShown, nodesShown = 4, 3
	order := make([]string, 0, len(groups))
	for why := range groups {
		order = append(order, why)
	}
	slices.SortFunc(order, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(groups[b]), len(groups[a])), cmp.Compare(a, b))
	})
	var parts []string
	for i, why := range order {
		if i == groupsShown {
			parts = append(parts, fmt.Sprintf("%d more reasons", len(order)-i))
			break
		}
		names := groups[why]
		slices.Sort(names)
		shown := strings.Join(names[:min(nodesShown, len(names))], ", ")
		if more := len(names) - nodesShown; more > 0 {
			shown += fmt.Sprintf(" and %d more", more)
		}
		parts = append(parts, shown+": "+why)
	}
	return strings.Join(parts, "; ")
}

// Feasible says whether any node, were it empty, could hold one executor of the size; if not, the largest there is.
func Feasible(totals []policies.Resources, each policies.Resources) (bool, string) {
	var most policies.Resources
	for _, total := range totals {
		if total.Fits(each) {
			return true, ""
		}
		most = policies.Resources{
			Cores: max(most.Cores, total.Cores), MemoryBytes: max(most.MemoryBytes, total.MemoryBytes), GPUs: max(most.GPUs, total.GPUs),
		}
	}
	return false, fmt.Sprintf("no node of the cluster can hold an executor of %s; the largest amounts on any node are %s", Describe(each), Describe(most))
}

// Describe writes an amount as a user reads it: "1 core and 256M".
func Describe(r policies.Resources) string {
	s := "1 core"
	if r.Cores != 1 {
		s = fmt.Sprintf("%d cores", r.Cores)
	}
	s += " and " + memory(r.MemoryBytes)
	switch {
	case r.GPUs == 1:
		s += " and 1 GPU"
	case r.GPUs > 1:
		s += fmt.Sprintf(" and %d GPUs", r.GPUs)
	}
	return s
}

func memory(b uint64) string {
	if b < 10<<30 {
		return fmt.Sprintf("%dM", b>>20)
	}
	return fmt.Sprintf("%dG", b>>30)
}

func plus(a, b policies.Resources) policies.Resources {
	return policies.Resources{Cores: a.Cores + b.Cores, MemoryBytes: a.MemoryBytes + b.MemoryBytes, GPUs: a.GPUs + b.GPUs}
}

// minus stops at zero.
func minus(a, b policies.Resources) policies.Resources {
	return policies.Resources{
		Cores:       max(0, a.Cores-b.Cores),
		MemoryBytes: a.MemoryBytes - min(a.MemoryBytes, b.MemoryBytes),
		GPUs:        max(0, a.GPUs-b.GPUs),
	}
}
