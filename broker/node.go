package broker

import (
	"context"
	"time"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/broker/placement"
	"github.com/gleaner-hpc/gleaner/broker/store"
	"github.com/gleaner-hpc/gleaner/policies"
	"github.com/gleaner-hpc/gleaner/slurmplugin/slurmctld"
)

// maxOutbox bounds the messages that wait for an agent. An agent that does not read is cut off; it comes back by itself.
const maxOutbox = 16 << 10

// session is one stream of an agent.
type session struct {
	out    chan *api.BrokerMessage
	cancel context.CancelCauseFunc
}

// node is what the broker knows of one node.
type node struct {
	name    string
	version string
	session *session  // nil while its agent is away
	away    time.Time // since when
	lost    bool      // away for longer than node_timeout
	state   *api.NodeState
	booked  map[string]*booking // executors told to start and not known to have ended

	boot     string // of the agent process that numbered the records
	received uint64 // the highest record taken
	stored   uint64 // the highest record stored

	forecast  forecast    // of slurmctld
	evictions []time.Time // lately, oldest first
	order     []string    // in which its executors go, as told
	ordered   *session    // whom

	slurm  *slurmctld.Node      // nil when slurmctld does not know it, or cannot be read
	shares []*api.JobHold       // what jobs hold, after slurmctld
	over   map[uint32]time.Time // jobs that have left the node, after its agent
	pushed *api.SlurmJobs
}

// booking is an executor that may hold resources on a node.
type booking struct {
	each    policies.Resources
	startup time.Duration
	spin    time.Duration // polled so far
	missing time.Time     // since when the agent is known not to have it
	stopped time.Time
}

func (n *node) restore(saved store.Node) {
	n.boot, n.received, n.stored = saved.Boot, saved.Record, saved.Record
}

func (n *node) book(id string, each policies.Resources) {
	n.booked[id] = &booking{each: each}
}

// send queues a message for the agent, if there is one.
func (n *node) send(m *api.BrokerMessage) {
	if n.session == nil {
		return
	}
	select {
	case n.session.out <- m:
	default:
		n.session.cancel(errSlowAgent)
	}
}

// offered joins agent's and slurmctld's word on the node.
func (n *node) offered(view *slurmctld.View) placement.Node {
	p := placement.Node{Count: len(n.booked)}
	p.Name = n.name
	for _, b := range n.booked {
		p.Booked.Cores += b.each.Cores
		p.Booked.MemoryBytes += b.each.MemoryBytes
		p.Booked.GPUs += b.each.GPUs
	}
	p.Usable, p.Why = n.usable(view)
	if n.state == nil {
		return p
	}
	p.Total, p.Leased, p.Free = resources(n.state.Total), resources(n.state.Leased), resources(n.state.Free)
	p.Slurm = n.allocated()
	if n.slurm != nil {
		p.Partitions, p.Flags, p.Load = n.slurm.Partitions, n.slurm.Flags, float64(n.slurm.CPULoadHundreds)/100
	}
	return p
}

func (n *node) usable(view *slurmctld.View) (bool, string) {
	switch {
	case n.session == nil || n.state == nil:
		return false, "its agent is away"
	case !n.state.Admitting && n.state.WhyNot != "":
		return false, n.state.WhyNot
	case !n.state.Admitting:
		return false, "its agent admits nothing"
	}
	return n.harvestable(view)
}

// harvestable is slurmctld's word. Without it the agent's ledger decides alone.
func (n *node) harvestable(view *slurmctld.View) (bool, string) {
	switch {
	case view == nil:
		return true, ""
	case n.slurm == nil:
		return false, "slurmctld does not know the node"
	}
	return n.slurm.Harvestable()
}

// allocated is the larger of what agent and slurmctld say that jobs hold. Jobs that the agent has seen leave do not count, though
// slurmctld's last answer may still name them.
func (n *node) allocated() policies.Resources {
	held := resources(n.state.GetSlurm())
	if n.slurm == nil {
		return held
	}
	told := policies.Resources{Cores: n.cores(n.slurm.AllocatedCPUs), MemoryBytes: n.slurm.AllocatedMiB << 20, GPUs: n.slurm.AllocatedGPUs}
	for _, share := range n.shares {
		if _, over := n.over[share.JobId]; over {
			told.Cores = max(0, told.Cores-int(share.CoreCount))
			told.MemoryBytes -= min(told.MemoryBytes, share.MemoryBytes)
			told.GPUs = max(0, told.GPUs-int(share.Gpus))
		}
	}
	return policies.Resources{
		Cores: max(held.Cores, told.Cores), MemoryBytes: max(held.MemoryBytes, told.MemoryBytes), GPUs: max(held.GPUs, told.GPUs),
	}
}

// threads is how many of slurmctld's CPUs make one of the agent's cores.
func (n *node) threads() int {
	if n.slurm == nil || n.slurm.ThreadsPerCore <= 1 || n.state == nil || int(n.state.GetTotal().GetCores()) > n.slurm.Cores {
		return 1
	}
	return n.slurm.ThreadsPerCore
}

func (n *node) cores(cpus int) int { return (cpus + n.threads() - 1) / n.threads() }

func resources(r *api.Resources) policies.Resources {
	return policies.Resources{Cores: int(r.GetCores()), MemoryBytes: r.GetMemoryBytes(), GPUs: int(r.GetGpus())}
}

func wire(r policies.Resources) *api.Resources {
	return &api.Resources{Cores: uint32(max(0, r.Cores)), MemoryBytes: r.MemoryBytes, Gpus: uint32(max(0, r.GPUs))}
}
