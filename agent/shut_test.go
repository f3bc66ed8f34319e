package agent

import (
	"slices"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/api/gate"
)

// A gate has used force while this agent was not heard from: what the broker asks for meanwhile is refused, and nothing is started
// before the agent has entered what that job holds.
func TestNodeStaysShutUntilTheJobIsKnown(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready("7-1", 8, 1024)
	n.fake.Shut(31)
	n.broker.await(t, "state that admits nothing", func(m *api.AgentMessage) bool { return m.GetState() != nil && !m.GetState().GetAdmitting() })
	n.ask(start("7-2", 1, 64))
	if e := n.ended("7-2"); e.GetReason() != api.EndReason_REFUSED {
		t.Errorf("ended %v", e)
	}
	if shut, err := n.fake.Open(t.Context()); err != nil || !slices.Equal(shut, []uint32{31}) {
		t.Fatalf("opened for a job that is not known: %v, %v", shut, err)
	}
	n.claim(31, "0-6", 512, gate.Done)
	n.admits()
	n.ready("7-3", 1, 64)
	n.ask(start("7-4", 1, 64))
	if e := n.ended("7-4"); e.GetReason() != api.EndReason_REFUSED {
		t.Errorf("started on the job's cores: %v", e)
	}
}

// A start that finds the node shut, of which the agent does not know yet, is refused and makes it look.
func TestStartFindsTheNodeShut(t *testing.T) {
	n := newNode(t)
	n.start()
	n.fake.Shut(31)
	n.ask(start("7-1", 1, 64))
	if e := n.ended("7-1"); e.GetReason() != api.EndReason_REFUSED {
		t.Errorf("ended %v", e)
	}
	n.claim(31, "0-3", 512, gate.Done)
	n.admits()
	n.ready("7-2", 1, 64)
}

// A claim that waited while the agent hung opens the node that its gate has shut, though nothing is to be started.
func TestLateClaimOpensTheNode(t *testing.T) {
	n := newNode(t)
	n.start()
	n.fake.Shut(31)
	n.gate(gate.Frame{Kind: gate.Claim, Job: 31, Cores: "0-3", MiB: 512, Node: "n1", Nanos: uint64(time.Now().Add(-time.Second).UnixNano())}).hear(gate.Ack)
	n.waitFor("open node", func() bool { shut, err := n.fake.Open(t.Context()); return err == nil && len(shut) == 0 })
}

func TestMarksSettle(t *testing.T) {
	at := time.Unix(1000, 0)
	heard := func(job uint32) bool { return job == 1 }
	runs := map[uint32]bool{2: true}
	var m marks
	if done := m.settled([]uint32{1, 2, 3}, heard, runs, at); !slices.Equal(done, []uint32{1}) {
		t.Errorf("at first sight %v have served", done)
	}
	if done := m.settled([]uint32{2, 3}, heard, runs, at.Add(heardWithin-1)); len(done) > 0 {
		t.Errorf("too early: %v", done)
	}
	if done := m.settled([]uint32{2, 3, 4}, heard, runs, at.Add(heardWithin)); !slices.Equal(done, []uint32{3}) {
		t.Errorf("neither runs nor claims: %v", done)
	}
	m.settled([]uint32{4}, heard, runs, at.Add(heardWithin))
	if done := m.settled([]uint32{3, 4}, heard, runs, at.Add(heardWithin+1)); len(done) > 0 {
		t.Errorf("a mark that was made again has served at once: %v", done)
	}
}
