package agent

import (
	"context"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/agent/evict"
	"github.com/gleaner-hpc/gleaner/api/gate"
)

// heldLauncher ends sandboxes when it is told to.
type heldLauncher struct {
	Launcher
	asked chan time.Time
	end   chan struct{}
}

func (l *heldLauncher) Kill(ctx context.Context, ids ...string) ([]string, error) {
	l.asked <- time.Now()
	select {
	case <-l.end:
	case <-ctx.Done():
		return ids, ctx.Err()
	}
	return l.Launcher.Kill(ctx, ids...)
}

// The answer goes out when the launcher has confirmed, not when the signal was sent.
func TestNoAnswerBeforeTheKillIsConfirmed(t *testing.T) {
	n := newNode(t)
	slow := &heldLauncher{Launcher: n.fake, asked: make(chan time.Time, 8), end: make(chan struct{})}
	n.cfg.Launcher = slow
	n.start()
	n.ready("7-1", 4, 1024)
	g := n.gate(gate.Frame{Kind: gate.Claim, Job: 100, Cores: "4-7", MiB: 512, Node: "n1"})
	g.hear(gate.Ack)
	<-slow.asked
	_ = g.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if f, err := gate.Read(g.conn); err == nil {
		t.Fatalf("answer %+v while the executor holds its cores", f)
	}
	close(slow.end)
	if f := g.hear(gate.Done); f.Evicted != 1 || n.sandbox("7-1") != nil {
		t.Errorf("answer %+v, left %s", f, n.describe())
	}
}

// A function is given the site's grace before the kill, and never more.
func TestGrace(t *testing.T) {
	const grace = 40 * time.Millisecond
	n := newNode(t)
	n.cfg.Evict = evict.Policy{MaxGrace: grace}
	slow := &heldLauncher{Launcher: n.fake, asked: make(chan time.Time, 8), end: make(chan struct{})}
	close(slow.end)
	n.cfg.Launcher = slow
	n.start()
	b := n.ready("7-1", 4, 1024)
	begin := time.Now()
	n.claim(100, "4-7", 512, gate.Done)
	if f, err := b.hear(); err != nil || f.Revoke == nil || f.Revoke.Grace <= 0 || f.Revoke.Grace > grace {
		t.Errorf("executor hears %+v, %v", f, err)
	}
	if after := (<-slow.asked).Sub(begin); after < grace-5*time.Millisecond {
		t.Errorf("killed after %v of %v", after, grace)
	}
}

// An executor that has nothing to finish ends at once, and its claim waits for no grace.
func TestGraceNotUsed(t *testing.T) {
	n := newNode(t)
	n.cfg.Evict = evict.Policy{MaxGrace: evict.GraceWindow}
	slow := &heldLauncher{Launcher: n.fake, asked: make(chan time.Time, 8), end: make(chan struct{})}
	n.cfg.Launcher = slow
	n.start()
	b := n.ready("7-1", 4, 1024)
	g := n.gate(gate.Frame{Kind: gate.Claim, Job: 100, Cores: "4-7", MiB: 512, Node: "n1"})
	g.hear(gate.Ack)
	if f, err := b.hear(); err != nil || f.Revoke == nil {
		t.Fatalf("executor hears %+v, %v", f, err)
	}
	n.fake.Exit("7-1", 0, false)
	g.hear(gate.Done)
	close(slow.end)
}
