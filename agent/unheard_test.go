package agent

import (
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/agent/gatesock"
	"github.com/gleaner-hpc/gleaner/agent/jobs"
	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/api/gate"
)

// The agent hangs while a job comes and goes: of the frames that waited the release may be taken before the claims, which must not
// bring the job back; a claim made later does.
func TestDeparturesOutrunClaims(t *testing.T) {
	at := time.Unix(1000, 0)
	call := func(order uint64, job uint32) *gatesock.Call {
		c := gatesock.NewCall(gate.Frame{Job: job}, at)
		c.Order = order
		return c
	}
	var d departures
	d.note(call(5, 1), at)
	d.note(call(3, 1), at) // an older one, taken later
	for name, test := range map[string]struct {
		call *gatesock.Call
		want bool
	}{
		"made before": {call(4, 1), true}, "made after": {call(6, 1), false}, "another job": {call(4, 2), false},
	} {
		if got := d.after(test.call); got != test.want {
			t.Errorf("%s: left since: %v", name, got)
		}
	}
	d.note(call(9, 2), at.Add(keepDepartures+time.Second))
	if len(d.of) != 1 {
		t.Errorf("%d departures kept", len(d.of))
	}
}

// A gate could not reach the agent; its job runs. Nothing is started on what may be its cores, and all is well again when it has gone.
func TestJobThatCouldNotClaim(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready("7-1", 1, 64)
	n.jobs.set(jobs.Found{Jobs: map[uint32]bool{31: true}})
	n.ask(start("7-2", 1, 64))
	if e := n.ended("7-2"); e.GetReason() != api.EndReason_REFUSED {
		t.Errorf("ended %v", e)
	}
	n.broker.await(t, "state that admits nothing", func(m *api.AgentMessage) bool { return m.GetState() != nil && !m.GetState().GetAdmitting() })
	n.jobs.set(jobs.Found{})
	n.admits()
	n.ready("7-3", 1, 64)
}
