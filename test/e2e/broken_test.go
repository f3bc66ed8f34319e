package e2e

import (
	"context"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// breakages are what can be wrong with a node's agent when a job comes. Each returns what mends it.
var breakages = map[string]func(x *trial, node string) (mend func() error){
	"agent hangs":    stops("agentd"),
	"launcher hangs": stops("launch"),
	"no agent": func(x *trial, node string) func() error {
		back := killed(x.T, x.c, "agentd/"+node)
		return func() error { back(); return nil }
	},
	"socket missing": func(x *trial, node string) func() error {
		if err := x.c.Kill("agentd/"+node, syscall.SIGSTOP); err != nil { // or it makes a new one
			x.Fatal(err)
		}
		if err := os.Remove(x.c.AgentSocket(node)); err != nil {
			x.Fatal(err)
		}
		return func() error { return x.c.Kill("agentd/"+node, syscall.SIGCONT) }
	},
	"queue full": func(x *trial, node string) func() error {
		mend := stops("agentd")(x, node)
		conns := fillQueue(x.T, x.c.AgentSocket(node))
		return func() error {
			for _, conn := range conns {
				_ = conn.Close()
			}
			return mend()
		}
	},
}

func stops(kind string) func(x *trial, node string) func() error {
	return func(x *trial, node string) func() error {
		role := kind + "/" + node
		if err := x.c.Kill(role, syscall.SIGSTOP); err != nil {
			x.Fatal(err)
		}
		return func() error { return x.c.Kill(role, syscall.SIGCONT) }
	}
}

// fillQueue connects until the kernel takes no more connections for a process that accepts none.
func fillQueue(t *testing.T, socket string) []net.Conn {
	t.Helper()
	var conns []net.Conn
	for len(conns) < 10000 {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		cancel()
		if err != nil {
			t.Logf("the queue is full after %d connections: %v", len(conns), err)
			return conns
		}
		conns = append(conns, conn)
	}
	t.Fatal("the queue does not fill")
	return nil
}

// TestOwnerFirstWhateverIsBroken: with the gate and without it, a job starts within the deadlines on a node that is lent to the last core
// and whose agent or launcher does not answer, and nothing harvested is left when its first process looks. All is lent again then.
func TestOwnerFirstWhateverIsBroken(t *testing.T) {
	theCluster(t, whole...)
	for name, s := range map[string]site{
		"gate and Prolog": {"-brokengate", nil, true}, "Prolog alone": {"-brokenprolog", []string{"gate"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := bringUp(t, s)
			node := c.NodeNames()[0]
			for what, broken := range breakages {
				t.Run(what, func(t *testing.T) {
					x := newTrial(t, c, s)
					x.lent(full, x.nodes...)
					mend := broken(x, node)
					began := time.Now()
					j := x.sbatch(x.look, "-w", node, "--exclusive")
					x.sees(1)
					t.Logf("from sbatch to the witness's word: %v", time.Since(began).Round(time.Millisecond))
					if err := mend(); err != nil {
						t.Fatal(err)
					}
					j.wait("COMPLETED")
				})
			}
			x := newTrial(t, c, s)
			x.lent(full, x.nodes...)
		})
	}
}
