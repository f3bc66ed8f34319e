// Package report keeps what the cluster did with its time and what harvesting cost, and turns it into the utilization report:
// samples and records in (Store), rollups (pure), text, CSV, JSON and HTML out. The broker writes, `gleaner report` renders.
package report

import "time"

// Interval is what one node did between two looks at it. Intervals of one node never overlap; time that no interval covers is
// reported as a gap, never guessed.
type Interval struct {
	Node            string
	Partition       string // the first of the node's partitions
	Start, End      time.Time
	CPUs            int // that Slurm may allocate
	State           State
	AllocatedCPUs   int // to Slurm's jobs
	HarvestedCPUs   int // to executors, out of what is allocated to nobody
	MemoryBytes     uint64
	AllocatedMemory uint64
	UsedMemory      uint64 // of the operating system; 0 when unknown
	HarvestedMemory uint64
	GPUs            int
	AllocatedGPUs   int
	HarvestedGPUs   int
}

// State is the slice into which the part of a node falls that is neither allocated nor harvested, after sreport.
type State string

const (
	Idle        State = "idle"         // nobody's
	Planned     State = "planned"      // kept for a job that is about to start, or reserved
	Down        State = "down"         // down, drained, failing
	PlannedDown State = "planned_down" // maintenance, powered down
)

// Executor is the life of one executor, written when it ends.
type Executor struct {
	ID        string
	Lease     uint64
	Node      string
	Partition string
	UID       uint32
	User      string
	Account   string
	Function  string
	Digest    string // of the code, hexadecimal SHA-256
	Cores     int
	Memory    uint64
	GPUs      int
	Start     time.Time
	End       time.Time
	CPUTime   time.Duration // really used
	SpinTime  time.Duration // of it, polled for calls without serving, as the executor said
	PeakBytes uint64
	Reason    string // released, expired, job_ended, evicted, ...
	Detail    string
	Startup   time.Duration // from the agent's Start to ready; 0 when it never was
}

// NodeLost is the Reason of an executor whose node has not come back to tell of its end.
const NodeLost = "node_lost"

// Claim is one answer of an agent to the gate or the Prolog.
type Claim struct {
	Job      uint32
	Node     string
	Path     string // "gate" or "prolog"
	Time     time.Time
	Duration time.Duration // what Gleaner added to the start of the job on this node
	Evicted  int
	Memory   uint64 // given back, in bytes
	Complete bool   // answered within its deadline
}

// Tasks counts what a lease's holder reported.
type Tasks struct {
	Lease               uint64
	Time                time.Time
	OK, Failed, Retried uint64
}

// Drain is a node that left service, with Slurm's reason.
type Drain struct {
	Node   string
	Time   time.Time
	Reason string
	Ours   bool // the reason names Gleaner
}
