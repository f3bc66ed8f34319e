package broker

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/gleaner-hpc/gleaner/api"
)

// TestLoad: a thousand agents that each report a change of state many times, and 200 leases. It says how long a step waits.
func TestLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("short: a thousand agents take some seconds")
	}
	nodes, changes, leases, executors := 1000, 20, 200, 20
	if raced {
		nodes, leases = 200, 40
	}
	w := newWorld(t, func(cfg *Config) { cfg.MaxLeasesPerUser = leases })
	agents := make([]*fakeAgent, nodes)
	began := time.Now()
	for i := range agents {
		agents[i] = w.agent(fmt.Sprintf("n%04d", i), 4)
	}
	t.Logf("%d agents connected in %s", nodes, time.Since(began).Round(time.Millisecond))
	c := w.user(alice)
	began = time.Now()
	q := asked(uint32(executors))
	q.Ttl = durationpb.New(time.Hour)
	var group sync.WaitGroup
	for range leases {
		group.Go(func() { w.acquire(c, q) })
	}
	group.Wait()
	t.Logf("%d leases admitted in %s", leases, time.Since(began).Round(time.Millisecond))
	root := w.user(0) // for whom no tokens are signed
	w.eventually("all executors ready", func() bool {
		list, err := root.List(w.ctx(), &api.ListRequest{})
		n := 0
		for _, l := range list.GetLeases() {
			n += len(l.Executors)
		}
		return err == nil && n == leases*executors
	})
	t.Logf("%d executors ready after %s", leases*executors, time.Since(began).Round(time.Millisecond))
	began = time.Now()
	for _, a := range agents {
		group.Go(func() {
			for range changes {
				a.get(a.sendState)
			}
			a.claim(1)
		})
	}
	waits := make([]time.Duration, 0, 300)
	for range cap(waits) {
		asked := time.Now()
		if _, err := c.Renew(w.ctx(), &api.RenewRequest{LeaseId: 1}); err != nil {
			t.Fatal(err)
		}
		waits = append(waits, time.Since(asked))
	}
	group.Wait()
	cluster := api.NewClusterClient(w.dial(bob))
	w.eventually("all taken", func() bool {
		answer, err := cluster.Nodes(w.ctx(), &api.NodesRequest{})
		return err == nil && !slices.ContainsFunc(answer.Nodes, func(n *api.NodeStatus) bool { return n.Slurm.Cores == 0 })
	})
	t.Logf("%d changes of state, and a claim that evicts on each node, taken in %s", nodes*changes, time.Since(began).Round(time.Millisecond))
	slices.Sort(waits)
	p50, p99 := waits[len(waits)/2], waits[len(waits)*99/100]
	t.Logf("Renew meanwhile: p50 %s, p99 %s", p50.Round(time.Microsecond), p99.Round(time.Microsecond))
	if p99 > 2*time.Second {
		t.Errorf("the loop does not keep up: p99 %s", p99)
	}
}
