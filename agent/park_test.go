package agent

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gleaner-hpc/gleaner/api"
	apiexec "github.com/gleaner-hpc/gleaner/api/executor"
	"github.com/gleaner-hpc/gleaner/api/gate"
	"github.com/gleaner-hpc/gleaner/api/launcher"
)

func TestWanted(t *testing.T) {
	a, b, c := visit{owner: owner{1, 1}}, visit{owner: owner{2, 2}}, visit{owner: owner{3, 3}}
	for name, test := range map[string]struct {
		recent []visit
		n      int
		want   map[owner]int
	}{
		"nobody came":         {nil, 2, map[owner]int{}},
		"one owner has all":   {[]visit{a}, 2, map[owner]int{a.owner: 2}},
		"the latest are kept": {[]visit{b, a, c}, 2, map[owner]int{b.owner: 1, a.owner: 1}},
		"none":                {[]visit{a}, 0, map[owner]int{}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, wanted(test.recent, test.n), cmp.AllowUnexported(owner{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// parkedBox is the sandbox that is parked, nil when there is none.
func (n *node) parkedBox() (found *launcher.Sandbox) {
	for _, s := range n.boxes() {
		if strings.HasPrefix(s.ID, "parked-") {
			found = &s
		}
	}
	return found
}

func (n *node) boxes() []launcher.Sandbox {
	all, err := n.fake.List(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	return all
}

// parks brings a parked sandbox to where it can be used.
func (n *node) parks() *box {
	n.t.Helper()
	n.waitFor("parked sandbox", func() bool { return n.parkedBox() != nil })
	b := n.dial(n.parkedBox().ID)
	if f, err := b.hear(); err != nil || f.Prepare == nil || f.Prepare.ListenHost != "127.0.0.1" {
		n.t.Fatalf("parked executor hears %+v, %v", f, err)
	}
	b.say(apiexec.FromExecutor{Prepared: &apiexec.Prepared{}})
	n.waitFor("usable parked sandbox", func() bool {
		families, err := n.cfg.Metrics.Registry.Gather()
		for _, f := range families {
			if err == nil && f.GetName() == "gleaner_node_parked_sandboxes" {
				return f.GetMetric()[0].GetGauge().GetValue() == 1
			}
		}
		return false
	})
	return b
}

func newParkingNode(t *testing.T) *node {
	n := newNode(t)
	n.cfg.Metrics = NewMetrics("test")
	n.cfg.Parking = Parking{Count: 1, Memory: 64 << 20}
	n.start()
	return n
}

// TestParkedServes: the second lease of a user gets the sandbox that was parked after the first.
func TestParkedServes(t *testing.T) {
	n := newParkingNode(t)
	n.ready("7-1", 1, 64)
	b := n.parks()
	n.usesParked("7-2", b)
	if s := n.sandbox(b.id); s.Spec.MilliCPUs != 2000 || s.Spec.MemoryBytes != 128<<20 {
		t.Errorf("resized to %+v", s.Spec)
	}
	b.say(apiexec.FromExecutor{Ready: &apiexec.Ready{Address: "127.0.0.1:4000", Local: "/run/gleaner/self/control.sock"}})
	m := n.broker.await(t, "ready", func(m *api.AgentMessage) bool { return m.GetReady().GetId() == "7-2" })
	if local := m.GetReady().GetLocal(); !strings.HasSuffix(local, "executors/"+b.id+"/control.sock") {
		t.Errorf("local socket %s", local)
	}
	// A job that takes the node evicts it by its executor's name, and is answered when it is gone.
	answer := n.claim(12, "0-7", 1024, gate.Done)
	if answer.Evicted != 2 {
		t.Errorf("%d evicted", answer.Evicted)
	}
	if e := n.ended("7-2"); e.GetReason() != api.EndReason_EVICTED {
		t.Errorf("ended: %+v", e)
	}
	if left := n.boxes(); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
}

// usesParked asks for an executor and hears its assignment on the parked one's connection.
func (n *node) usesParked(id string, b *box) {
	n.t.Helper()
	n.ask(start(id, 2, 128))
	f, err := b.hear()
	if err != nil || f.Assign == nil || f.Assign.Executor != id {
		n.t.Fatalf("parked executor hears %+v, %v", f, err)
	}
}

// TestParkedGoes: what is parked is evicted for a job without being counted, and makes room for a lease of another user.
func TestParkedGoes(t *testing.T) {
	n := newParkingNode(t)
	n.ready("7-1", 1, 64)
	parked := n.parks()
	if answer := n.claim(12, "0-7", 0, gate.Done); answer.Evicted != 1 { // 7-1
		t.Errorf("%d evicted", answer.Evicted)
	}
	if left := n.boxes(); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
	if f, err := parked.hear(); err == nil && f.Revoke == nil {
		t.Errorf("parked executor hears %+v", f)
	}
}

func TestParkedMakesRoom(t *testing.T) {
	n := newParkingNode(t)
	n.ready("7-1", 1, 64)
	parked := n.parks()
	other := start("8-1", 1, 4096-64)
	other.Uid, other.Gid = testUID+1, testUID+1
	n.ask(other)
	n.waitFor("8-1 in place of the parked one", func() bool { return n.sandbox("8-1") != nil && n.sandbox(parked.id) == nil })
}

// TestParkedDies: a parked sandbox that ends by itself is nobody's failure; the next lease starts its own.
func TestParkedDies(t *testing.T) {
	n := newParkingNode(t)
	n.ready("7-1", 1, 64)
	parked := n.parks()
	n.fake.Exit(parked.id, 1, false)
	n.ready("7-2", 1, 64)
	if n.sandbox("7-2") == nil {
		t.Error("no sandbox of its own")
	}
}

// TestParkedCannotBeResized: a parked sandbox that does not fit is replaced by one of the lease's own.
func TestParkedCannotBeResized(t *testing.T) {
	n := newParkingNode(t)
	n.ready("7-1", 1, 64)
	parked := n.parks()
	n.fake.RefuseResize(true)
	n.ask(start("7-2", 2, 128))
	n.waitFor("a sandbox of its own", func() bool { return n.sandbox("7-2") != nil && n.sandbox(parked.id) == nil })
}
