package policies

import (
	"cmp"
	"container/heap"
	"slices"
	"time"
)

// Idle is the built-in policy that a careful site starts with. It lends only what Slurm has allocated to nobody and the agent
// reports free, and nothing of a node whose state speaks against it. It spreads: the next executor goes to the node that runs the
// fewest, so that one arriving job evicts as few as possible; between equals to the node with the most cores free, then by name.
type Idle struct{}

// flagsAgainst are the node flags under which nothing is lent, with the reason that users read.
var flagsAgainst = map[string]string{
	"drain": "node is being drained", "maint": "node is in maintenance", "reserved": "node is reserved",
	"planned": "node is planned for a job", "powering_down": "node is powering down", "powered_down": "node is powered down",
	"powering_up": "node is powering up", "reboot_requested": "node is about to reboot", "reboot_issued": "node is rebooting",
	"not_responding": "node does not respond", "fail": "node is failing", "down": "node is down",
}

// Harvest offers what is left of each node when Slurm's and the leases' part is taken away, at most what its agent would accept.
func (Idle) Harvest(v View) []Offer {
	offers := make([]Offer, len(v.Nodes))
	for i := range v.Nodes {
		offers[i] = harvest(&v.Nodes[i], false)
	}
	return offers
}

// harvest offers a node's unallocated part and, when asked, what its jobs do not use.
func harvest(n *Node, unused bool) Offer {
	o := Offer{Node: n.Name, Executors: len(n.Executors)}
	for _, flag := range n.Flags {
		if why, against := flagsAgainst[flag]; against {
			o.Why = why
			return o
		}
	}
	room := Unallocated(n)
	if unused {
		room.MemoryBytes += n.Unused.MemoryBytes
		room.GPUs += n.Unused.GPUs
	}
	room.Cores = min(room.Cores, n.Free.Cores)
	room.MemoryBytes = min(room.MemoryBytes, n.Free.MemoryBytes)
	room.GPUs = max(0, min(room.GPUs, n.Free.GPUs))
	switch {
	case room.Cores <= 0 && n.Slurm.Cores >= n.Total.Cores:
		o.Why = "all cores allocated by Slurm"
	case room.Cores <= 0:
		o.Why = "no core left over"
	case room.MemoryBytes == 0:
		o.Why = "no memory left over"
	default:
		o.Resources = room
	}
	return o
}

// Unallocated is what neither jobs nor leases hold of a node; no amount is negative. What leases have borrowed from jobs counts once.
func Unallocated(n *Node) Resources {
	own := n.Leased.MemoryBytes - min(n.Leased.MemoryBytes, n.Borrowed.MemoryBytes)
	return Resources{
		Cores:       max(0, n.Total.Cores-n.Slurm.Cores-n.Leased.Cores),
		MemoryBytes: left(n.Total.MemoryBytes, n.Slurm.MemoryBytes, own),
		GPUs:        max(0, n.Total.GPUs-n.Slurm.GPUs-max(0, n.Leased.GPUs-n.Borrowed.GPUs)),
	}
}

func left(total uint64, taken ...uint64) uint64 {
	for _, t := range taken {
		total -= min(total, t)
	}
	return total
}

// Place spreads the executors over the nodes. Nodes to avoid come last.
func (Idle) Place(r Request, offers []Offer) []string {
	return place(r, offers, nil)
}

// place spreads over the offers that suit. lasts, when given, says how long an offer lasts and whether it suits: among equally used
// nodes the one that lasts longest comes first.
func place(r Request, offers []Offer, lasts func(*Offer) (time.Duration, bool)) []string {
	q := make(spread, 0, len(offers))
	for i := range offers {
		o := &offers[i]
		if !o.Resources.Fits(r.Each) || len(o.Against) > 0 && slices.Contains(o.Against, r.Function) {
			continue
		}
		c := choice{node: o.Node, executors: o.Executors, left: o.Resources, avoid: len(r.Avoid) > 0 && slices.Contains(r.Avoid, o.Node)}
		suits := true
		if lasts != nil {
			c.lasts, suits = lasts(o)
		}
		if suits {
			q = append(q, c)
		}
	}
	heap.Init(&q)
	var picks []string
	for len(picks) < r.Executors && len(q) > 0 {
		best := &q[0]
		picks = append(picks, best.node)
		best.executors++
		best.left = best.left.Minus(r.Each)
		if best.left.Fits(r.Each) {
			heap.Fix(&q, 0)
		} else {
			heap.Pop(&q)
		}
	}
	return picks
}

// Evict puts the youngest first: it has the least work to lose.
func (Idle) Evict(_ Overlap, executors []Executor) []string {
	return order(executors, func(a, b *Executor) int { return b.Started.Compare(a.Started) })
}

// order sorts ids; what before leaves equal is sorted by id.
func order(executors []Executor, before func(a, b *Executor) int) []string {
	sorted := slices.Clone(executors)
	slices.SortStableFunc(sorted, func(a, b Executor) int { return cmp.Or(before(&a, &b), cmp.Compare(a.ID, b.ID)) })
	ids := make([]string, len(sorted))
	for i := range sorted {
		ids[i] = sorted[i].ID
	}
	return ids
}

// choice is an offer while executors are placed on it.
type choice struct {
	node      string
	executors int
	left      Resources
	lasts     time.Duration
	avoid     bool
}

// spread is a heap of choices, the best on top.
type spread []choice

func (q spread) Len() int { return len(q) }
func (q spread) Less(i, j int) bool {
	a, b := &q[i], &q[j]
	switch {
	case a.avoid != b.avoid:
		return b.avoid
	case a.executors != b.executors:
		return a.executors < b.executors
	case a.lasts != b.lasts:
		return a.lasts > b.lasts
	case a.left.Cores != b.left.Cores:
		return a.left.Cores > b.left.Cores
	}
	return a.node < b.node
}
func (q spread) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *spread) Push(x any)   { *q = append(*q, x.(choice)) }
func (q *spread) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}
