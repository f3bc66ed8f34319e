// Package policies is the contract by which a site decides what is harvested, where work is placed and who is evicted first.
// Policies are pure: they see values, return values, and touch nothing. A policy that fails or is late is replaced by the
// built-in idle policy for that call. Policies are never asked on the eviction path: eviction order is computed beforehand.
//
// No internal type appears here, so that a site can write its own policy in any language.
package policies

import "time"

// Policy decides. Implementations are safe for concurrent use.
type Policy interface {
	// Harvest returns what of the node may be lent now.
	Harvest(Node) Offer
	// Place picks offers for up to Executors executors of the request, best first. A node may be picked more than once as long
	// as its offer holds that many. Fewer than asked means that there is no room for the rest; that is no error.
	Place(Request, []Offer) []string
	// EvictionOrder sorts executors of one node, first to go first.
	EvictionOrder([]Executor) []Executor
}

// Resources is an amount of what a node has.
type Resources struct {
	Cores       int
	MemoryBytes uint64
	GPUs        int
}

// Fits says whether r holds need.
func (r Resources) Fits(need Resources) bool {
	return need.Cores <= r.Cores && need.MemoryBytes <= r.MemoryBytes && need.GPUs <= r.GPUs
}

// Minus returns r less what is taken, which must fit.
func (r Resources) Minus(taken Resources) Resources {
	return Resources{r.Cores - taken.Cores, r.MemoryBytes - taken.MemoryBytes, r.GPUs - taken.GPUs}
}

// Node is what is known of one node.
type Node struct {
	Name       string
	Partitions []string
	Total      Resources
	Slurm      Resources // allocated to jobs, the larger of what slurmctld and the agent say
	Leased     Resources
	Free       Resources // what the agent would still accept
	Flags      []string  // Slurm's, lower case: "planned", "drain", ...
	Load       float64   // of the operating system, runnable processes
}

// Offer is what a node lends.
type Offer struct {
	Node      string
	Resources Resources
	Executors int    // already running there
	Why       string // when Resources is zero: the reason, for explain
}

// Request is what a lease still misses.
type Request struct {
	Lease     uint64
	UID       uint32
	Account   string
	Executors int
	Each      Resources
	Avoid     []string // nodes that evicted or failed an executor of this lease lately, the latest first
}

// Executor is one running executor.
type Executor struct {
	ID        string
	Lease     uint64
	UID       uint32
	Resources Resources
	Started   time.Time
}
