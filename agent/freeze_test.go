package agent

import (
	"testing"

	"github.com/gleaner-hpc/gleaner/api/gate"
)

func (n *node) frozen(id string, want bool) {
	n.t.Helper()
	n.waitFor(id+" is frozen or not", func() bool { s := n.sandbox(id); return s != nil && s.Frozen == want })
}

// A Prolog's warning freezes what runs here; the claim that follows ends what is in its way, and what stays goes on.
func TestWarningFreezes(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready("7-1", 4, 1024) // on cores 4-7
	n.ready("7-2", 2, 64)   // on cores 2-3
	n.gate(gate.Frame{Kind: gate.Warn, Job: 31, Node: "n1"}).hear(gate.Ack)
	n.frozen("7-1", true)
	n.frozen("7-2", true)
	if f := n.claim(31, "4-7", 64, gate.Done); f.Evicted != 1 || n.sandbox("7-1") != nil {
		t.Errorf("answer %+v, left %s", f, n.describe())
	}
	n.frozen("7-2", false)
	n.gate(gate.Frame{Kind: gate.Warn, Job: 31, Node: "n1"}).hear(gate.Ack) // a Prolog that is late, or comes twice
	n.claim(32, "0", 64, gate.Done)
	n.frozen("7-2", false)
}

// A job that leaves before it claims, or never claims, keeps nobody frozen.
func TestWarningWithoutAClaimThaws(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready("7-1", 4, 1024)
	n.gate(gate.Frame{Kind: gate.Warn, Job: 31, Node: "n1"}).hear(gate.Ack)
	n.frozen("7-1", true)
	n.gate(gate.Frame{Kind: gate.Release, Job: 31, Node: "n1"}).hear(gate.Done)
	n.frozen("7-1", false)
	n.gate(gate.Frame{Kind: gate.Warn, Job: 32, Node: "n1"}).hear(gate.Ack)
	n.frozen("7-1", true)
	n.frozen("7-1", false) // after evict.FreezeWindow
}

// A successor thaws what its predecessor has left frozen.
func TestSuccessorThaws(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready("7-1", 4, 1024)
	n.stop()
	if err := n.fake.Freeze(t.Context(), "7-1"); err != nil {
		t.Fatal(err)
	}
	n.run()
	n.up <- true
	n.frozen("7-1", false)
}
