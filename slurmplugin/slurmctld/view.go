// Package slurmctld reads what the controller knows, for the whole cluster at once, into one View. It is the only reader that
// slurmctld sees, and belongs to the broker. It decides nothing about what to do with a View.
package slurmctld

import (
	"slices"
	"time"
)

// View is the cluster at one moment. Views are immutable once returned.
type View struct {
	AsOf  time.Time // slurmctld's clock where it tells, else ours
	Nodes []Node    // sorted by name
	Jobs  []Job     // running and pending, sorted by id
}

// Node is one node. Counts are CPUs as Slurm counts them, memory is in MiB.
type Node struct {
	Name            string
	State           string   // sinfo's base state in lower case: "idle", "mixed", "allocated", "down", "unknown", ...
	Flags           []string // lower case and sorted: "drain", "maint", "reserved", "planned", "powered_down", "reboot_requested", ...
	Reason          string
	Partitions      []string
	CPUs            int
	Cores           int // sockets × cores per socket
	ThreadsPerCore  int
	AllocatedCPUs   int
	MemoryMiB       uint64 // RealMemory
	SpecMemoryMiB   uint64 // MemSpecLimit
	AllocatedMiB    uint64
	FreeMiB         uint64 // the operating system's, as slurmd reported it
	GPUs            int
	AllocatedGPUs   int
	CPULoadHundreds int // load × 100
}

// Job is one job of the queue.
type Job struct {
	ID        uint32
	State     string // lower case: "running", "pending", "suspended", "completing", ...
	UID       uint32
	User      string
	Account   string
	Partition string
	Start     time.Time // actual, or expected when pending; zero when unknown
	End       time.Time // by its time limit
	Nodes     []Share   // of a job that holds resources
	Expected  []string  // nodes on which a pending job is expected to start; nil when slurmctld has not planned it
	Exclusive bool      // it asked for whole nodes
}

// Share is what a job holds on one node.
type Share struct {
	Node      string
	Cores     string // abstract core list, socket × cores per socket + core, as the gate names them; "" when the source does not tell
	CoreCount int
	MiB       uint64
	GPUs      int
}

// Harvestable says whether the node's state lets anything be harvested on it, and if not, why.
func (n *Node) Harvestable() (bool, string) {
	switch n.State {
	case "idle", "mixed", "allocated":
	default:
		return false, "node is " + n.State
	}
	for _, flag := range n.Flags {
		if reason, bad := unharvestable[flag]; bad {
			return false, reason
		}
	}
	return true, ""
}

// Vacate says whether executors are to leave a node on which nothing is harvested: it is out of service or about to be. They stay
// where jobs may come any moment (reserved, planned), since the gate sees to those, and where only slurmctld's view is poor.
func (n *Node) Vacate() bool {
	switch n.State {
	case "idle", "mixed", "allocated":
	default:
		return n.State == "down" || n.State == "error"
	}
	return slices.ContainsFunc(n.Flags, func(flag string) bool { return leaving[flag] })
}

var leaving = map[string]bool{
	"drain": true, "maint": true, "fail": true, "powering_down": true, "power_down": true, "power_drain": true, "powered_down": true,
	"reboot": true, "reboot_requested": true, "reboot_issued": true,
}

var unharvestable = map[string]string{
	"drain":            "node is being drained",
	"maint":            "node is in maintenance",
	"reserved":         "node is reserved",
	"planned":          "node is planned for a job",
	"powering_down":    "node is powering down",
	"powered_down":     "node is powered down",
	"powering_up":      "node is powering up",
	"reboot_requested": "node is about to reboot",
	"reboot_issued":    "node is rebooting",
	"not_responding":   "node does not respond",
	"fail":             "node is failing",
	"reboot":           "node is about to reboot",
	"power_down":       "node is powering down",
	"power_drain":      "node is powering down",
	"power_up":         "node is powering up",
	"invalid_reg":      "node registered with a wrong configuration",
	"blocked":          "node is blocked by an exclusive topology",
}
