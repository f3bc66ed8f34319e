// Package policies is the contract by which a site decides what is harvested, where work is placed and who is evicted first, and the
// policies that come with Gleaner. Policies are pure: they see values, return values, and touch nothing. The same arguments give the
// same answer; arguments are never changed.
//
// Units: cores are whole cores, memory is bytes, shares lie between 0 and 1, times are absolute and the zero time means not known.
//
// A policy that is not Gleaner's own is asked through a Guard: an answer that is late, missing or nonsense is replaced by that of a
// built-in policy and counted. Policies are never asked while a job waits: Evict is asked beforehand, whenever the executors of a
// node have changed, and the agent keeps the order. Whatever a policy says, the agent's ledger has the last word.
//
// No internal type appears here, so that a site can write its own policy in any language (package policies/plugin).
package policies

import "time"

// Version is the contract's. It grows when a policy written for the version before could answer wrongly.
const Version = 1

// Policy decides. Implementations are safe for concurrent use.
type Policy interface {
	// Harvest returns what may be lent now, one offer for each node of the view, in the view's order.
	Harvest(View) []Offer
	// Place picks offers for up to Executors executors of the request, best first. A node may be picked more than once as long
	// as its offer holds that many. Fewer than asked means that there is no room for the rest; that is no error.
	Place(Request, []Offer) []string
	// Evict returns the ids of all executors of one node, first to go first.
	Evict(Overlap, []Executor) []string
}

// View is what is known of the cluster at one moment.
type View struct {
	Now     time.Time
	Nodes   []Node
	Clashes []Clash // pairs of job and function known to disturb each other, the worst first
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
	Unused     Resources // of Slurm: what jobs that share do not use and the agent would lend, less what it lends of it already; Cores is 0
	Leased     Resources
	Borrowed   Resources // of Leased: what is taken from jobs' allocations; Cores is 0
	Free       Resources // what the agent would still accept, Unused included
	Flags      []string  // Slurm's, lower case: "planned", "drain", ...
	Load       float64   // of the operating system, runnable processes

	NextStart time.Time   // when slurmctld expects the next waiting job to start here
	Waiting   int         // jobs that wait for one of the node's partitions
	Jobs      []Job       // that hold something here, by id
	Executors []Executor  // by id
	Stalls    Stalls      // of the last second or, where the kernel averages, ten
	Alone     Stalls      // the same as it was last while nothing harvested ran beside the node's jobs; zero: never seen
	Evictions []time.Time // of the last ten minutes, oldest first
}

// Job is one Slurm job on a node.
type Job struct {
	ID     uint32
	Kind   string    // the same for jobs that are likely alike: "uid/account/partition"
	End    time.Time // by its time limit
	Share  bool      // may what it does not use be lent?
	Cores  int
	Memory Memory
}

// Memory is a job's on one node, in bytes. Used and Peak are 0 where the agent cannot tell.
type Memory struct {
	Allocated, Used, Peak, Lent uint64
}

// Stalls is how much the node's jobs wait for each other and for executors.
type Stalls struct {
	CPU, Memory, IO float64  // share of the time in which some process of a job waited (PSI "some"), the worst job's
	Bandwidth       float64  // of memory, as a share of the most that the node has shown, or of 10 GB/s
	Missing         []string // what the node cannot tell, and is 0 above: "cpu", "memory", "io", "bandwidth"
	Awaited         bool     // the node has told nothing of its jobs yet, as when the first has just started: all above is empty
}

// Clash is a pair of job and function that were found to disturb each other.
type Clash struct {
	Kind     string  // of the job
	Function string  // Request.Function
	Share    float64 // of the time together in which the job was under pressure, beyond what it is alone
}

// Offer is what a node lends.
type Offer struct {
	Node      string
	Resources Resources
	Executors int       // already running there
	Until     time.Time // when the node is expected to be wanted back; zero: not foreseen
	Against   []string  // functions that must not be placed there
	Shed      []string  // executors that should leave now, since they disturb a job
	Why       string    // when Resources is zero: the reason, for explain
}

// Request is what a lease still misses.
type Request struct {
	Now       time.Time
	Lease     uint64
	UID       uint32
	Account   string
	Function  string        // names the code: symbol and digest
	Length    time.Duration // how long one invocation is said to take; 0: not known
	Executors int
	Each      Resources
	Avoid     []string // nodes that evicted or failed an executor of this lease lately, the latest first
}

// Overlap is what an arriving job would take of a node beyond the cores and GPUs that decide by themselves who goes. Evict is asked
// beforehand, when no job is there yet: then Needed is zero and the order is for any job.
type Overlap struct {
	Node   string
	Needed Resources
}

// Executor is one running executor.
type Executor struct {
	ID        string
	Lease     uint64
	UID       uint32
	Function  string
	Resources Resources
	Borrowed  uint64 // bytes of its memory that are taken from jobs' allocations
	Started   time.Time
}
