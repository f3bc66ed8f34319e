package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/test/cluster"
)

// parkedOn counts a node's parked sandboxes, and the others, that have a process.
func parkedOn(c *cluster.Cluster, node string) (parked, others int) {
	for id := range c.Harvested(node) {
		if strings.HasPrefix(id, "parked-") {
			parked++
		} else {
			others++
		}
	}
	return parked, others
}

// Sandboxes that wait for a lease are as many as the site allows, serve the next lease of their owner, and go before a job's first
// process like any other.
func TestParked(t *testing.T) {
	theCluster(t, whole...)
	const allowed = 2
	c, err := cluster.Up(t.Context(), cluster.Options{Dir: folder() + "-parked", Nodes: 1, Parked: allowed})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Down(); err != nil {
			t.Error(err)
		}
	})
	node := c.NodeNames()[0]
	await := func(what string, want int) {
		t.Helper()
		parked, others := 0, 0
		eventually(t, 40*time.Second, what, func() bool {
			parked, others = parkedOn(c, node)
			if parked > allowed {
				t.Fatalf("%d sandboxes are parked, %d are allowed", parked, allowed)
			}
			return parked == want && others == 0
		}, func() string { return fmt.Sprintf("%d parked, %d others", parked, others) })
	}
	once := func() {
		t.Helper()
		w := newWork(t, c, 1)
		output(t, c, "gleaner", w.args(t, function(t, "reverse"))...)
		w.right(t)
	}
	once()
	await("sandboxes are parked for who was here", allowed)
	eventually(t, 40*time.Second, "a lease uses one that is parked", func() bool {
		before := c.Harvested(node)
		once()
		await("another is parked in the place of the one that was used", allowed)
		after := c.Harvested(node)
		used := 0
		for id := range before {
			if after[id] == nil {
				used++
			}
		}
		return used == 1 // none: they were not ready yet
	}, func() string { return "leases start sandboxes of their own" })
	j := sbatch(t, c, witness(t, c)+"\nsleep 2", "--exclusive", "-w", node)
	eventually(t, 40*time.Second, "the job has begun", func() bool { return strings.Contains(j.text(), "owner_first") })
	if parked, others := parkedOn(c, node); parked+others > 0 {
		t.Errorf("%d parked and %d other sandboxes beside a job that has the node for itself", parked, others)
	}
	j.wait("COMPLETED")
	ownerFirst(t, j)
	await("parked again after the job", allowed)
}
