// Package slack sees what Slurm's jobs on this node really use: memory, CPU time, stalls (PSI), memory bandwidth, GPUs. Sampler reads, and
// only reads; Lender decides from samples, purely, how much of a job's memory may be lent. Nobody but the agent's event loop calls them.
//
// Every source may be absent, and its absence is named in Sample.Missing: a kernel without PSI, cgroup v1 (which has no PSI per job, so
// that the node's counts for all), a node that has neither resctrl nor a memory controller's counters, or an agent that may not read
// them. Nothing fails for lack of a source.
package slack

import "time"

// Sample is the node at one moment. Counters grow since the job's or the node's start.
type Sample struct {
	At      time.Time
	Jobs    []Job    // by id
	Node    Waits    // of the whole node
	Bytes   uint64   // that memory has moved since the first sample
	Source  string   // of Bytes: "resctrl" or "perf"; "" for none
	Blind   string   // why Bytes cannot be told now, for operators; "" when it can
	GPUs    []GPU    // by index
	Missing []string // sources: "cgroup", "psi", "psi.job", "bandwidth", "nvml"
	Took    time.Duration
}

// Job is one job's cgroup.
type Job struct {
	ID      uint32
	Memory  Memory
	CPU     time.Duration
	Waits   Waits
	NoWaits bool // its cgroup has no PSI: cgroup v1
}

// Memory is in bytes.
type Memory struct {
	Current uint64 // charged now, page cache included
	Peak    uint64 // the most that was charged; 0 where the kernel does not tell
	Working uint64 // Current less the page cache that nobody has touched lately
}

// Waits is for how long some process has waited in all.
type Waits struct{ CPU, Memory, IO time.Duration }

// GPU is one GPU, in the order of agent.toml's node.gpus.
type GPU struct {
	Index       int
	UUID        string
	Utilization float64 // share of the time, between 0 and 1; of a GPU in MIG mode, which does not tell, 1
	MemoryUsed  uint64  // bytes
	MemoryTotal uint64
	Processes   int
	MIG         bool
}
