package agent

import (
	"os"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gleaner-hpc/gleaner/agent/jobs"
	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/api/gate"
)

// A sandbox that does not end fails its claim, not those of other jobs; and it stays condemned until it is gone.
func TestStuckSandbox(t *testing.T) {
	n := newNode(t)
	n.cfg.Evict.Deadline = 100 * time.Millisecond
	n.start()
	n.ready("7-1", 1, 64)
	n.ready("7-2", 1, 64)
	n.fake.Stick("7-1")
	n.claim(1, "7", 64, gate.Failed)
	n.claim(2, "6", 64, gate.Done)
	n.fake.Unstick("7-1")
	if e := n.ended("7-1"); e.GetReason() != api.EndReason_EVICTED {
		t.Errorf("ended %v", e)
	}
	n.claim(1, "7", 64, gate.Done)
}

func TestLauncherAway(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready("7-1", 1, 64)
	n.up <- false
	n.broker.await(t, "state that admits nothing", func(m *api.AgentMessage) bool { return m.GetState() != nil && !m.GetState().GetAdmitting() })
	n.claim(1, "0", 64, gate.Done) // nothing to kill
	n.ask(start("7-2", 1, 64))
	if e := n.ended("7-2"); e.GetReason() != api.EndReason_REFUSED {
		t.Errorf("ended %v", e)
	}
	n.fake.Exit("7-1", 1, false) // unseen: the launcher comes back without it
	n.up <- true
	n.ended("7-1")
	n.admits()
}

// Without a launcher from the start nothing can be known: the gate uses force at once instead of waiting for a second.
func TestNeverALauncher(t *testing.T) {
	n := newNode(t)
	n.run()
	begin := time.Now()
	n.claim(1, "0", 64, gate.Failed)
	if took := time.Since(begin); took > 500*time.Millisecond {
		t.Errorf("answered after %v", took)
	}
}

func TestBrokerAway(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready("7-1", 1, 64)
	n.server.Stop()
	if f := n.claim(1, "7", 64, gate.Done); f.Evicted != 1 {
		t.Errorf("evicted %d", f.Evicted)
	}
	n.startBroker()
	m := n.broker.await(t, "registration", func(m *api.AgentMessage) bool { return m.GetRegister() != nil })
	if len(m.GetRegister().GetExecutors()) != 0 {
		t.Errorf("registers %v", m.GetRegister().GetExecutors())
	}
	c := n.broker.await(t, "claim of the time between", func(m *api.AgentMessage) bool { return m.GetClaim().GetJobId() == 1 })
	ended := n.broker.await(t, "end", func(m *api.AgentMessage) bool { return m.GetEnded().GetId() == "7-1" }).GetRecord()
	n.broker.send(t, &api.BrokerMessage{Message: &api.BrokerMessage_Ack{Ack: &api.Ack{Record: max(c.GetRecord(), ended)}}})
	n.broker.send(t, &api.BrokerMessage{Message: &api.BrokerMessage_SlurmJobs{SlurmJobs: &api.SlurmJobs{WhyNot: "ack is read"}}})
	n.broker.await(t, "state", func(m *api.AgentMessage) bool { return m.GetState().GetWhyNot() == "ack is read" })
	n.server.Stop()
	n.startBroker()
	n.broker.await(t, "registration", func(m *api.AgentMessage) bool { return m.GetRegister() != nil })
	n.broker.kept = nil
	n.gate(gate.Frame{Kind: gate.Release, Job: 1}).hear(gate.Done)
	m = n.broker.await(t, "record", func(m *api.AgentMessage) bool { return m.GetRecord() > 0 })
	if m.GetJobEnded().GetJobId() != 1 {
		t.Errorf("an acknowledged record came again: %v", m)
	}
}

func TestRestart(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready("7-1", 2, 512)
	n.ready("7-2", 1, 256)
	n.claim(50, "0-1", 1024, gate.Done)
	n.stop()
	n.fake.Exit("7-2", 1, false) // while nobody watches
	if _, err := n.fake.Start(t.Context(), *specOf("8-1")); err != nil {
		t.Fatal(err)
	}
	a := n.cfg
	a.Exited = nil // exits of the time between are lost
	n.cfg = a
	n.run()
	n.up <- true
	if e := n.ended("7-2"); e.GetReason() != api.EndReason_EXECUTOR_FAILED {
		t.Errorf("ended %v", e)
	}
	state := n.admits()
	if state.GetLeased().GetCores() != 2 || state.GetSlurm().GetCores() != 2 || state.GetSlurm().GetMemoryBytes() != 1<<30 {
		t.Errorf("state %v", state)
	}
	n.waitFor("end of the stray", func() bool { return n.sandbox("8-1") == nil })
	if n.sandbox("7-1") == nil {
		t.Fatal("the adopted executor is gone")
	}
	b := n.dial("7-1")
	if f, err := b.hear(); err != nil || f.Assign == nil || f.Assign.Symbol != "f" || f.Assign.Name != "libf.so" {
		t.Errorf("adopted executor hears %+v, %v", f, err)
	}
	if f := n.claim(51, "6-7", 1, gate.Done); f.Evicted != 1 {
		t.Errorf("evicted %d", f.Evicted)
	}
}

func TestUnclaimedJobAtStart(t *testing.T) {
	n := newNode(t)
	n.jobs.found = jobs.Found{Jobs: map[uint32]bool{77: true}}
	n.run()
	n.up <- true
	n.ask(start("7-1", 1, 64))
	if e := n.ended("7-1"); e.GetReason() != api.EndReason_REFUSED {
		t.Errorf("ended %v", e)
	}
	// The broker tells its cores.
	n.broker.send(t, &api.BrokerMessage{Message: &api.BrokerMessage_SlurmJobs{SlurmJobs: &api.SlurmJobs{
		AsOf: timestamppb.New(time.Now().Add(time.Second)), Harvestable: true,
		Jobs: []*api.JobHold{{JobId: 77, Cores: "0-3", CoreCount: 4, MemoryBytes: 1 << 30}},
	}}})
	n.broker.await(t, "exact state", func(m *api.AgentMessage) bool { return m.GetState().GetFree().GetCores() == 4 })
}

func TestSlurmJobs(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready("7-1", 1, 64)
	say := func(asOf time.Time, why string, jobs ...*api.JobHold) {
		n.broker.send(t, &api.BrokerMessage{Message: &api.BrokerMessage_SlurmJobs{SlurmJobs: &api.SlurmJobs{
			AsOf: timestamppb.New(asOf), Jobs: jobs, Harvestable: why == "", WhyNot: why,
		}}})
	}
	say(time.Now(), "", &api.JobHold{JobId: 4, Cores: "7", CoreCount: 1, MemoryBytes: 1 << 20})
	if e := n.ended("7-1"); e.GetReason() != api.EndReason_EVICTED {
		t.Errorf("ended %v", e)
	}
	say(time.Now(), "node is being drained", &api.JobHold{JobId: 4, Cores: "7", CoreCount: 1, MemoryBytes: 1 << 20})
	n.broker.await(t, "drained state", func(m *api.AgentMessage) bool { return m.GetState().GetWhyNot() == "node is being drained" })
	say(time.Now().Add(time.Minute), "")
	n.broker.await(t, "job's end", func(m *api.AgentMessage) bool { return m.GetJobEnded().GetJobId() == 4 })
	n.admits()
}

// A claim is answered with what went for its job before it came.
func TestClaimNamesWhatWentBefore(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready("7-1", 1, 64)
	n.broker.send(t, &api.BrokerMessage{Message: &api.BrokerMessage_SlurmJobs{SlurmJobs: &api.SlurmJobs{
		AsOf: timestamppb.Now(), Harvestable: true, Jobs: []*api.JobHold{{JobId: 4, Cores: "7", CoreCount: 1, MemoryBytes: 1 << 20}},
	}}})
	n.ended("7-1")
	for _, want := range []uint32{1, 0} { // once
		if f := n.claim(4, "7", 1, gate.Done); f.Evicted != want {
			t.Errorf("the claim says %d evicted, want %d", f.Evicted, want)
		}
	}
}

// A hung loop gives no Ack, which is what makes the gate use force.
func TestHungLoopGivesNoAck(t *testing.T) {
	n := newNode(t)
	n.start()
	hung, release := make(chan struct{}), make(chan struct{})
	n.agent.loop.done <- func(time.Time) { close(hung); <-release }
	<-hung
	g := n.gate(gate.Frame{Kind: gate.Claim, Job: 1, Cores: "0", MiB: 1})
	_ = g.conn.SetReadDeadline(time.Now().Add(gate.AckDeadline))
	if f, err := gate.Read(g.conn); err == nil {
		t.Errorf("a hung loop answers %+v", f)
	}
	close(release)
	g.hear(gate.Ack)
	g.hear(gate.Done)
}

// A full state folder costs nothing but the memory of a restart.
func TestStateNotWritable(t *testing.T) {
	n := newNode(t)
	n.start()
	if err := os.RemoveAll(n.cfg.StateDir); err != nil {
		t.Fatal(err)
	}
	n.ready("7-1", 1, 64)
	if f := n.claim(1, "7", 64, gate.Done); f.Evicted != 1 {
		t.Errorf("evicted %d", f.Evicted)
	}
	if err := os.MkdirAll(n.cfg.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
}

// A gate that got no Ack has killed by itself; whichever of exit and claim comes first, the executor was evicted.
func TestGateUsedForce(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready("7-1", 1, 64)
	n.ready("7-2", 1, 64)
	hung, release := make(chan struct{}), make(chan struct{})
	n.agent.loop.done <- func(time.Time) { close(hung); <-release }
	<-hung
	for _, id := range []string{"7-1", "7-2"} {
		if left, err := n.fake.Kill(t.Context(), id); err != nil || len(left) > 0 {
			t.Fatal(left, err)
		}
	}
	g := n.gate(gate.Frame{Kind: gate.Claim, Job: 1, Cores: "0", MiB: 1})
	close(release)
	g.hear(gate.Ack)
	g.hear(gate.Done)
	for _, id := range []string{"7-1", "7-2"} {
		if e := n.ended(id); e.GetReason() != api.EndReason_EVICTED {
			t.Errorf("ended %v", e)
		}
	}
}
