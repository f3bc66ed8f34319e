package placement

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gleaner-hpc/gleaner/policies"
	"github.com/gleaner-hpc/gleaner/policies/policytest"
)

var t0 = time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)

func amount(cores int) policies.Resources {
	return policies.Resources{Cores: cores, MemoryBytes: uint64(cores) << 30}
}

// free is a usable node with so many cores, of which some are free.
func free(name string, total, left int) Node {
	return Node{Usable: true, Node: policies.Node{Name: name, Total: amount(total), Slurm: amount(total - left), Free: amount(left)}}
}

func need(lease uint64, held, wanted int) Need {
	return Need{Held: held, Request: policies.Request{Lease: lease, Executors: wanted, Each: amount(1)}}
}

func counts(p Plan) map[uint64]int {
	n := map[uint64]int{}
	for _, pick := range p.Picks {
		n[pick.Lease]++
	}
	return n
}

func TestFairness(t *testing.T) {
	for name, test := range map[string]struct {
		nodes []Node
		needs []Need
		want  map[uint64]int
	}{
		"equal wishes":            {[]Node{free("n1", 8, 8)}, []Need{need(1, 0, 8), need(2, 0, 8)}, map[uint64]int{1: 4, 2: 4}},
		"in proportion to wishes": {[]Node{free("n1", 9, 9)}, []Need{need(1, 0, 12), need(2, 0, 6)}, map[uint64]int{1: 6, 2: 3}},
		"who has less first":      {[]Node{free("n1", 4, 4)}, []Need{need(1, 6, 2), need(2, 0, 8)}, map[uint64]int{2: 4}},
		"all":                     {[]Node{free("n1", 4, 4), free("n2", 4, 4)}, []Need{need(1, 0, 3), need(2, 0, 5)}, map[uint64]int{1: 3, 2: 5}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, counts(Decide(t0, policies.Idle{}, test.nodes, test.needs, nil, nil))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhy(t *testing.T) {
	planned := free("n2", 4, 4)
	planned.Flags = []string{"planned"}
	away := Node{Node: policies.Node{Name: "n3"}, Why: "its agent is away"}
	small := free("n4", 1, 1)
	big := Need{Request: policies.Request{Lease: 1, Executors: 1, Each: amount(2)}}
	many := []Node{}
	for i := range 9 {
		many = append(many, free(fmt.Sprintf("c%d", i), 4, 0))
	}
	for name, test := range map[string]struct {
		nodes []Node
		want  string
	}{
		"no agent":    {nil, "no agent is connected to the broker"},
		"each reason": {[]Node{free("n1", 4, 0), planned, away, small}, "no node has 2 cores and 2048M free: n1: all cores allocated by Slurm; n3: its agent is away; n2: node is planned for a job; n4: too small"},
		"many":        {many, "no node has 2 cores and 2048M free: c0, c1, c2 and 6 more: all cores allocated by Slurm"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Decide(t0, policies.Idle{}, test.nodes, []Need{big}, nil, nil).Why[1]; got != test.want {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestFeasible(t *testing.T) {
	if ok, why := Feasible([]policies.Resources{amount(4), amount(8)}, amount(8)); !ok {
		t.Error(why)
	}
	ok, why := Feasible([]policies.Resources{amount(4), amount(8)}, policies.Resources{Cores: 2, MemoryBytes: 1 << 40, GPUs: 2})
	if ok || why != "no node of the cluster can hold an executor of 2 cores and 1024G and 2 GPUs; the largest amounts on any node are 8 cores and 8192M" {
		t.Errorf("%t %q", ok, why)
	}
}

func TestBackoff(t *testing.T) {
	b := NewBackoff()
	rests := func(now time.Time, lease uint64) bool {
		return b.held(now, 0, nil)["n1"] || b.held(now, lease, nil)["n1"]
	}
	// One claim evicts many at once: that is one rest.
	for range 8 {
		b.Note(t0, 1, "n1", Evicted)
	}
	after := func(d time.Duration) time.Time { return t0.Add(d) }
	if !rests(after(400*time.Millisecond), 2) || rests(after(600*time.Millisecond), 2) {
		t.Error("an eviction rests the node for half a second, for all leases")
	}
	if got := b.recent(after(30*time.Second), 1, nil); !slices.Equal(got, []string{"n1"}) {
		t.Errorf("avoided by the evicted lease: %v", got)
	}
	if got := b.recent(after(30*time.Second), 1, map[string]int{"n2": 0}); got != nil {
		t.Errorf("nodes that are not offered: %v", got)
	}
	if got := b.recent(after(30*time.Second), 2, nil); got != nil {
		t.Errorf("avoided by another lease: %v", got)
	}
	// In a row each rest is twice as long, up to half a minute.
	now, total := t0.Add(time.Second), time.Duration(0)
	for range 12 {
		b.Note(now, 1, "n1", Evicted)
		next := b.Next(now)
		total = next.Sub(now)
		now = next
	}
	if total != longest {
		t.Errorf("the longest rest is %s", total)
	}
	b.Longest = time.Second
	b.Note(now, 1, "n1", Evicted)
	if got := b.Next(now).Sub(now); got != time.Second {
		t.Errorf("the site's longest rest of a second is %s", got)
	}
	b.Forget(now.Add(2*time.Minute), func(uint64) bool { return true })
	if len(b.rests) != 0 {
		t.Errorf("remembered for ever: %v", b.rests)
	}
	// A failure rests the node for its lease alone.
	b.Note(t0, 1, "n1", Failed)
	if !rests(t0, 1) || rests(t0, 2) {
		t.Error("a failure is the lease's own")
	}
	b.Forget(t0, func(uint64) bool { return false })
	if len(b.rests) != 0 {
		t.Error("a dead lease is remembered")
	}
	picks := func(b *Backoff) []Pick {
		return Decide(t0, policies.Idle{}, []Node{free("n1", 4, 4), free("n2", 4, 4)}, []Need{need(1, 0, 8)}, nil, b).Picks
	}
	b.Note(t0, 0, "n1", Refused)
	if n := len(picks(b)); n != 4 {
		t.Errorf("%d picks while n1 rests", n)
	}
}

// liar is a policy that ignores everything it is told.
type liar struct{ policies.Idle }

func (liar) Harvest(v policies.View) []policies.Offer {
	return slices.Repeat([]policies.Offer{{Node: "nobody", Resources: amount(1000)}}, max(0, len(v.Nodes)-1))
}
func (liar) Place(r policies.Request, o []policies.Offer) []string {
	picks := []string{"unknown"}
	for range 3 {
		for _, offer := range o {
			picks = append(picks, offer.Node)
		}
	}
	return picks
}

// TestNoDoublePromise: whatever policy, reports and bookings, what is picked fits beside what is booked and what the agent reports.
func TestNoDoublePromise(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) Node {
			n := Node{Node: policytest.Node(t), Usable: rapid.Bool().Draw(t, "usable"), Why: "away"}
			n.Booked = amount(rapid.IntRange(0, 8).Draw(t, "booked"))
			return n
		}), 0, 6, func(n Node) string { return n.Name }).Draw(t, "nodes")
		var needs []Need
		for i := range rapid.IntRange(0, 5).Draw(t, "leases") {
			n := need(uint64(i+1), rapid.IntRange(0, 3).Draw(t, "held"), rapid.IntRange(1, 9).Draw(t, "wanted"))
			n.Each = amount(rapid.IntRange(1, 3).Draw(t, "cores"))
			needs = append(needs, n)
		}
		policy := rapid.SampledFrom([]policies.Policy{policies.Idle{}, liar{}}).Draw(t, "policy")
		plan := Decide(t0, policy, nodes, needs, nil, nil)
		picked, got := map[string]policies.Resources{}, counts(plan)
		for _, p := range plan.Picks {
			picked[p.Node] = plus(picked[p.Node], needs[p.Lease-1].Each)
		}
		for i := range nodes {
			n := &nodes[i]
			if room := n.available(); picked[n.Name] != (policies.Resources{}) && (!room.Fits(picked[n.Name]) || !n.Usable) {
				t.Fatalf("%+v picked of %+v, which has %+v", picked[n.Name], n, room)
			}
		}
		for _, n := range needs {
			if missing := n.Executors - got[n.Lease]; missing < 0 || (missing > 0) != (plan.Why[n.Lease] != "") {
				t.Fatalf("lease %d misses %d, reason %q", n.Lease, missing, plan.Why[n.Lease])
			}
		}
	})
}

// What an agent has been told but has not reported yet is not offered again.
func TestStartsInFlight(t *testing.T) {
	n := free("n1", 8, 8)
	n.Booked = amount(6) // none of them in Leased yet
	if got := counts(Decide(t0, policies.Idle{}, []Node{n}, []Need{need(1, 0, 8)}, nil, nil))[1]; got != 2 {
		t.Errorf("%d picks beside 6 starts in flight of 8", got)
	}
	n.Leased, n.Free = amount(6), amount(2) // reported
	if got := counts(Decide(t0, policies.Idle{}, []Node{n}, []Need{need(1, 0, 8)}, nil, nil))[1]; got != 2 {
		t.Errorf("%d picks once the 6 are reported", got)
	}
	n.Slurm = amount(1) // slurmctld knows of a job that the agent has not seen yet
	if got := counts(Decide(t0, policies.Idle{}, []Node{n}, []Need{need(1, 0, 8)}, nil, nil))[1]; got != 1 {
		t.Errorf("%d picks when slurmctld has allocated one of the 2", got)
	}
}

func BenchmarkDecide(b *testing.B) {
	var nodes []Node
	for i := range 1000 {
		nodes = append(nodes, free(fmt.Sprintf("n%04d", i), 64, 4*(i%3)))
	}
	var needs []Need
	for i := range 200 {
		needs = append(needs, need(uint64(i+1), 0, 64))
	}
	for b.Loop() {
		if plan := Decide(t0, policies.Idle{}, nodes, needs, nil, nil); len(plan.Picks) != 3996 || strings.Count(plan.Why[1], ";") > 4 {
			b.Fatalf("%d picks, %s", len(plan.Picks), plan.Why[1])
		}
	}
}
