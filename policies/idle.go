package policies

import (
	"cmp"
	"container/heap"
	"slices"
)

// Idle is the built-in policy that a careful site starts with. It lends only what Slurm has allocated to nobody and the agent
// reports free, and nothing of a node whose state speaks against it. It spreads: the next executor goes to the node that runs the
// fewest, so that one arriving job evicts as few as possible; between equals to the node with the most cores free, then by name.
type Idle struct{}

// flagsAgainst are the node flags under which Idle lends nothing, with the reason that users read.
var flagsAgainst = map[string]string{
	"drain": "node is being drained", "maint": "node is in maintenance", "reserved": "node is reserved",
	"planned": "node is planned for a job", "powering_down": "node is powering down", "powered_down": "node is powered down",
	"powering_up": "node is powering up", "reboot_requested": "node is about to reboot", "reboot_issued": "node is rebooting",
	"not_responding": "node does not respond", "fail": "node is failing", "down": "node is down",
}

// Harvest offers what is left of the node when Slurm's and the leases' part is taken away, at most what its agent would accept.
func (Idle) Harvest(n Node) Offer {
	o := Offer{Node: n.Name}
	for _, flag := range n.Flags {
		if why, against := flagsAgainst[flag]; against {
			o.Why = why
			return o
		}
	}
	left := Resources{
		Cores:       min(n.Free.Cores, n.Total.Cores-n.Slurm.Cores-n.Leased.Cores),
		MemoryBytes: min(n.Free.MemoryBytes, left(n.Total.MemoryBytes, n.Slurm.MemoryBytes, n.Leased.MemoryBytes)),
		GPUs:        min(n.Free.GPUs, n.Total.GPUs-n.Slurm.GPUs-n.Leased.GPUs),
	}
	switch {
	case left.Cores <= 0 && n.Slurm.Cores >= n.Total.Cores:
		o.Why = "all cores allocated by Slurm"
	case left.Cores <= 0:
		o.Why = "no core left over"
	case left.MemoryBytes == 0:
		o.Why = "no memory left over"
	default:
		left.GPUs = max(0, left.GPUs)
		o.Resources = left
	}
	return o
}

func left(total uint64, taken ...uint64) uint64 {
	for _, t := range taken {
		total -= min(total, t)
	}
	return total
}

// Place spreads the executors over the nodes. Nodes to avoid come last.
func (Idle) Place(r Request, offers []Offer) []string {
	q := &spread{need: r.Each}
	for _, o := range offers {
		if o.Resources.Fits(r.Each) {
			q.offers = append(q.offers, choice{o, slices.Contains(r.Avoid, o.Node)})
		}
	}
	heap.Init(q)
	var picks []string
	for len(picks) < r.Executors && q.Len() > 0 {
		best := &q.offers[0]
		picks = append(picks, best.Node)
		best.Executors++
		best.Resources = best.Resources.Minus(r.Each)
		if best.Resources.Fits(r.Each) {
			heap.Fix(q, 0)
		} else {
			heap.Pop(q)
		}
	}
	return picks
}

// EvictionOrder puts the youngest first: it has the least work to lose.
func (Idle) EvictionOrder(executors []Executor) []Executor {
	sorted := slices.Clone(executors)
	slices.SortStableFunc(sorted, func(a, b Executor) int {
		return cmp.Or(b.Started.Compare(a.Started), cmp.Compare(a.ID, b.ID))
	})
	return sorted
}

type choice struct {
	Offer
	avoid bool
}

// spread is a heap of offers, the best on top.
type spread struct {
	need   Resources
	offers []choice
}

func (q *spread) Len() int { return len(q.offers) }
func (q *spread) Less(i, j int) bool {
	a, b := &q.offers[i], &q.offers[j]
	if a.avoid != b.avoid {
		return b.avoid
	}
	return cmp.Or(cmp.Compare(a.Executors, b.Executors), cmp.Compare(b.Resources.Cores, a.Resources.Cores), cmp.Compare(a.Node, b.Node)) < 0
}
func (q *spread) Swap(i, j int) { q.offers[i], q.offers[j] = q.offers[j], q.offers[i] }
func (q *spread) Push(x any)    { q.offers = append(q.offers, x.(choice)) }
func (q *spread) Pop() any {
	last := q.offers[len(q.offers)-1]
	q.offers = q.offers[:len(q.offers)-1]
	return last
}
