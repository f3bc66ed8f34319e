package agent

import (
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gleaner-hpc/gleaner/agent/slack"
	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/api/gate"
)

// jobMemory is a Sampler that says what the test wants.
type jobMemory struct {
	mu   sync.Mutex
	used map[uint32]uint64 // MiB
}

func (s *jobMemory) set(job uint32, mib uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used[job] = mib
}

func (s *jobMemory) Sample(now time.Time) slack.Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	sample := slack.Sample{At: now, Missing: []string{"psi", "bandwidth"}}
	for job := range uint32(20) {
		if mib, known := s.used[job]; known {
			sample.Jobs = append(sample.Jobs, slack.Job{ID: job, NoWaits: true, Memory: slack.Memory{Current: mib << 20, Peak: mib << 20}})
		}
	}
	return sample
}

// lender is a node that looks at its jobs, and the sampler that it looks through.
func lender(t *testing.T) (*node, *jobMemory) {
	n, s := newNode(t), &jobMemory{used: map[uint32]uint64{}}
	n.cfg.Sampler = s
	n.cfg.Lending = slack.Rule{Settle: time.Millisecond, Window: time.Minute, Margin: 64 << 20, Ahead: time.Nanosecond}
	n.broker.watch = durationpb.New(5 * time.Millisecond)
	n.start()
	return n, s
}

// site says what the site thinks of a job's sharing.
func (n *node) site(job uint32, cores string, mib uint64, share api.Share) {
	n.t.Helper()
	n.broker.send(n.t, &api.BrokerMessage{Message: &api.BrokerMessage_SlurmJobs{SlurmJobs: &api.SlurmJobs{
		AsOf: timestamppb.Now(), Harvestable: true, Jobs: []*api.JobHold{{JobId: job, Cores: cores, MemoryBytes: mib << 20, Share: share}},
	}}})
}

func TestUnusedMemoryIsLentAndTakenBack(t *testing.T) {
	n, jobs := lender(t)
	jobs.set(5, 500)
	n.claim(5, "0-3", 3000, gate.Done)
	n.site(5, "0-3", 3000, api.Share_SHARE_YES)
	state := n.broker.await(t, "unused memory", func(m *api.AgentMessage) bool { return m.GetState().GetUnused().GetMemoryBytes() > 2<<30 }).GetState()
	if j := state.GetJobs()[0]; j.GetShare() != api.Share_SHARE_YES || j.GetUsedBytes() != 496<<20 || state.GetFree().GetMemoryBytes() < 3<<30 {
		t.Errorf("state %v", state)
	}
	n.ready("7-1", 1, 500) // of what nobody holds
	n.ready("7-2", 2, 2000)
	n.broker.await(t, "borrowed memory", func(m *api.AgentMessage) bool { return m.GetState().GetBorrowed().GetMemoryBytes() > 1<<30 })
	jobs.set(5, 2000)
	if e := n.ended("7-2"); e.GetReason() != api.EndReason_EVICTED || e.GetDetail() != "evicted: a job uses the memory or GPU that it had lent" {
		t.Errorf("ended %v", e)
	}
	n.broker.await(t, "nothing borrowed", func(m *api.AgentMessage) bool {
		return m.GetState() != nil && m.GetState().GetBorrowed().GetMemoryBytes() == 0 && m.GetState().GetLeased().GetCores() == 1
	})
	if n.sandbox("7-1") == nil {
		t.Error("an executor that borrowed nothing went too")
	}
}

// The job's own word stands above the site's, in both directions, and stays with a successor of the agent.
func TestSharingByWord(t *testing.T) {
	for name, test := range map[string]struct {
		own  uint16
		site api.Share
		want api.Share
	}{
		"nobody's word":    {0, api.Share_SHARE_UNSPECIFIED, api.Share_SHARE_NO},
		"the site's":       {0, api.Share_SHARE_YES, api.Share_SHARE_YES},
		"the job's no":     {gate.FlagShareNo, api.Share_SHARE_YES, api.Share_SHARE_NO},
		"the job's yes":    {gate.FlagShareYes, api.Share_SHARE_NO, api.Share_SHARE_GPUS},
		"the site says no": {0, api.Share_SHARE_NO, api.Share_SHARE_NO},
	} {
		t.Run(name, func(t *testing.T) {
			n, jobs := lender(t)
			jobs.set(5, 100)
			g := n.gate(gate.Frame{Kind: gate.Claim, Flags: test.own, Job: 5, Cores: "0-3", MiB: 3000})
			g.hear(gate.Ack)
			g.hear(gate.Done)
			n.site(5, "0-3", 3000, test.site)
			looked := func(m *api.AgentMessage) bool {
				j := m.GetState().GetJobs()
				return len(j) == 1 && j[0].GetUsedBytes() > 0 && j[0].GetShare() == test.want
			}
			state := n.broker.await(t, "the job's sharing", looked).GetState()
			if lent := test.want != api.Share_SHARE_NO; lent {
				n.broker.await(t, "unused memory", func(m *api.AgentMessage) bool { return m.GetState().GetUnused().GetMemoryBytes() > 0 })
			} else if state.GetUnused().GetMemoryBytes() > 0 {
				t.Errorf("lent: %v", state)
			}
			n.stop()
			n.run()
			n.site(5, "0-3", 3000, test.site)
			n.broker.await(t, "the same of the successor", looked)
		})
	}
}

// The order that the policy gave beforehand decides who goes when memory alone is short.
func TestOrderIsThePolicys(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready("7-1", 1, 1000)
	n.ready("7-2", 1, 1000)
	n.broker.send(t, &api.BrokerMessage{Message: &api.BrokerMessage_Order{Order: &api.EvictionOrder{Ids: []string{"7-1", "7-2"}}}})
	n.broker.send(t, &api.BrokerMessage{Message: &api.BrokerMessage_SlurmJobs{SlurmJobs: &api.SlurmJobs{AsOf: timestamppb.Now(), WhyNot: "marker"}}})
	n.broker.await(t, "the order taken", func(m *api.AgentMessage) bool { return m.GetState().GetWhyNot() == "marker" })
	n.claim(5, "0", 3000, gate.Done)
	if e := n.ended("7-1"); e.GetReason() != api.EndReason_EVICTED {
		t.Errorf("ended %v", e)
	}
}

// What a look has not told yet is not told: the first state of a job that is looked at has no stalls, the next names what is missing.
func TestStallsAreToldOnceKnown(t *testing.T) {
	n, jobs := lender(t)
	jobs.set(5, 100)
	n.claim(5, "0-3", 3000, gate.Done)
	first := n.broker.await(t, "a look at the job", func(m *api.AgentMessage) bool {
		j := m.GetState().GetJobs()
		return len(j) == 1 && j[0].GetUsedBytes() > 0
	}).GetState()
	if first.GetStalls() != nil || first.GetAlone() != nil {
		t.Errorf("one look tells %v", first.GetStalls())
	}
	state := n.broker.await(t, "what is missing", func(m *api.AgentMessage) bool { return m.GetState().GetStalls() != nil }).GetState()
	if missing := state.GetStalls().GetMissing(); len(missing) != 4 || state.GetAlone() == nil {
		t.Errorf("missing %v, alone %v", missing, state.GetAlone())
	}
}
