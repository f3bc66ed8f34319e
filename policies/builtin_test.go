package policies_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/gleaner-hpc/gleaner/policies"
	"github.com/gleaner-hpc/gleaner/policies/policytest"
)

var now = time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)

func TestBuiltinsConform(t *testing.T) {
	for _, name := range policies.Names() {
		t.Run(name, func(t *testing.T) { policytest.Run(t, policies.Builtin(name)) })
	}
	t.Run("pressure, blind", func(t *testing.T) { policytest.Run(t, policies.Pressure{LendBlind: true}) })
	if policies.Builtin("other") != nil {
		t.Error("a policy of no name")
	}
}

// Each built-in policy is as careful as those before it: it offers no more of a node than the one before, but for slack, which adds
// what jobs do not use.
func TestBuiltinsAreOrdered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := policytest.View(t)
		idle, slack := policies.Idle{}.Harvest(v), policies.Slack{}.Harvest(v)
		careful, pressure := policies.Careful{}.Harvest(v), policies.Pressure{}.Harvest(v)
		for i := range v.Nodes {
			if !slack[i].Resources.Fits(idle[i].Resources) || !slack[i].Resources.Fits(careful[i].Resources) || !careful[i].Resources.Fits(pressure[i].Resources) {
				t.Fatalf("idle %+v\nslack %+v\ncareful %+v\npressure %+v", idle[i], slack[i], careful[i], pressure[i])
			}
		}
	})
}

func amount(cores int) policies.Resources {
	return policies.Resources{Cores: cores, MemoryBytes: uint64(cores) << 30}
}

func after(seconds int) time.Time { return now.Add(time.Duration(seconds) * time.Second) }

func TestHarvest(t *testing.T) {
	half := policies.Node{Name: "n", Total: amount(8), Slurm: policies.Resources{Cores: 4, MemoryBytes: 8 << 30}, Free: amount(4)}
	half.Unused.MemoryBytes = 4 << 30
	with := func(change func(*policies.Node)) policies.Node {
		n := half
		n.Jobs = []policies.Job{{ID: 7, Kind: "k", End: after(60)}}
		n.Executors = []policies.Executor{{ID: "1-1", Function: "f", Started: after(-3)}, {ID: "1-2", Function: "g", Started: after(-2)}, {ID: "1-3", Function: "g", Started: after(-1)}}
		change(&n)
		return n
	}
	clashes := []policies.Clash{{Kind: "k", Function: "f", Share: 0.5}, {Kind: "k", Function: "rare", Share: 0.01}, {Kind: "other", Function: "g", Share: 0.9}}
	lent := policies.Offer{Node: "n", Executors: 3, Resources: amount(4)}
	blind := policies.Stalls{Missing: []string{"bandwidth"}}
	const unseen = `the node cannot tell its memory bandwidth, and nothing is lent beside its jobs unseen: mount resctrl there, or set policy.blind = "lend" in broker.toml`
	for name, test := range map[string]struct {
		policy string
		node   policies.Node
		want   policies.Offer
	}{
		"idle leaves unused memory":        {"idle", half, policies.Offer{Node: "n", Why: "no memory left over"}},
		"slack lends it":                   {"slack", half, policies.Offer{Node: "n", Resources: amount(4)}},
		"job far away":                     {"careful", with(func(n *policies.Node) { n.NextStart = after(45) }), policies.Offer{Node: "n", Executors: 3, Resources: amount(4), Until: after(45)}},
		"job near":                         {"careful", with(func(n *policies.Node) { n.NextStart = after(10) }), policies.Offer{Node: "n", Executors: 3, Until: after(10), Why: "a job is expected there at 2026-11-01T08:00:10Z"}},
		"nobody waits for the end":         {"careful", with(func(n *policies.Node) {}), lent},
		"somebody does":                    {"careful", with(func(n *policies.Node) { n.Waiting = 1 }), policies.Offer{Node: "n", Executors: 3, Resources: amount(4), Until: after(60)}},
		"past its limit":                   {"careful", with(func(n *policies.Node) { n.Waiting, n.Jobs = 1, []policies.Job{{ID: 7, End: after(-5)}} }), lent},
		"calm":                             {"pressure", with(func(n *policies.Node) {}), policies.Offer{Node: "n", Executors: 3, Resources: amount(4), Against: []string{"f"}}},
		"stalls as alone":                  {"pressure", with(func(n *policies.Node) { n.Stalls.CPU, n.Alone.CPU = 0.5, 0.48 }), policies.Offer{Node: "n", Executors: 3, Resources: amount(4), Against: []string{"f"}}},
		"stalls":                           {"pressure", with(func(n *policies.Node) { n.Stalls.CPU = 0.1 }), policies.Offer{Node: "n", Executors: 3, Against: []string{"f"}, Why: "the jobs there stall: cpu"}},
		"stalls much, one clashes":         {"pressure", with(func(n *policies.Node) { n.Stalls.Memory = 0.1 }), policies.Offer{Node: "n", Executors: 3, Against: []string{"f"}, Shed: []string{"1-1"}, Why: "the jobs there stall: memory"}},
		"stalls much, who is not known":    {"pressure", with(func(n *policies.Node) { n.Stalls.Bandwidth, n.Jobs[0].Kind = 0.9, "x" }), policies.Offer{Node: "n", Executors: 3, Shed: []string{"1-3", "1-2"}, Why: "the jobs there stall: bandwidth"}},
		"the node cannot tell":             {"pressure", with(func(n *policies.Node) { n.Stalls = policies.Stalls{IO: 1, Missing: []string{"io"}} }), policies.Offer{Node: "n", Executors: 3, Resources: amount(4), Against: []string{"f"}}},
		"blind":                            {"pressure", with(func(n *policies.Node) { n.Stalls = blind }), policies.Offer{Node: "n", Executors: 3, Against: []string{"f"}, Shed: []string{"1-3", "1-2", "1-1"}, Why: unseen}},
		"blind, and nothing left to lend":  {"pressure", with(func(n *policies.Node) { n.Stalls, n.Free = blind, policies.Resources{} }), policies.Offer{Node: "n", Executors: 3, Against: []string{"f"}, Shed: []string{"1-3", "1-2", "1-1"}, Why: unseen}},
		"blind, full and nobody there":     {"pressure", with(func(n *policies.Node) { n.Stalls, n.Free, n.Executors = blind, policies.Resources{}, nil }), policies.Offer{Node: "n", Against: []string{"f"}, Why: "no core left over"}},
		"blind, stalls nevertheless":       {"pressure", with(func(n *policies.Node) { n.Stalls = blind; n.Stalls.Memory = 1 }), policies.Offer{Node: "n", Executors: 3, Against: []string{"f"}, Shed: []string{"1-3", "1-2", "1-1"}, Why: unseen}},
		"blind without jobs":               {"pressure", with(func(n *policies.Node) { n.Stalls, n.Jobs = blind, nil }), lent},
		"not told yet":                     {"pressure", with(func(n *policies.Node) { n.Stalls = policies.Stalls{Awaited: true} }), policies.Offer{Node: "n", Executors: 3, Against: []string{"f"}, Why: "the node has not told yet how its jobs fare"}},
		"not told yet, without jobs":       {"pressure", with(func(n *policies.Node) { n.Stalls, n.Jobs = policies.Stalls{Awaited: true}, nil }), lent},
		"blind under careful":              {"careful", with(func(n *policies.Node) { n.Stalls = blind }), lent},
		"let go with nothing to lend":      {"pressure", with(func(n *policies.Node) { n.Stalls.Memory, n.Free = 0.1, policies.Resources{} }), policies.Offer{Node: "n", Executors: 3, Against: []string{"f"}, Shed: []string{"1-1"}, Why: "the jobs there stall: memory"}},
		"no job that could be disturbed":   {"pressure", with(func(n *policies.Node) { n.Stalls.CPU, n.Jobs = 1, nil }), lent},
		"planned, whatever it would offer": {"pressure", with(func(n *policies.Node) { n.Flags = []string{"planned"} }), policies.Offer{Node: "n", Executors: 3, Against: []string{"f"}, Why: "node is planned for a job"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := policies.Builtin(test.policy).Harvest(policies.View{Now: now, Nodes: []policies.Node{test.node}, Clashes: clashes})
			if diff := cmp.Diff([]policies.Offer{test.want}, got, cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A site that accepts what is not seen gets what a node tells otherwise.
func TestPressureLendsBlind(t *testing.T) {
	node := policies.Node{
		Name: "n", Total: amount(8), Slurm: amount(4), Free: amount(4), Jobs: []policies.Job{{ID: 7}},
		Executors: []policies.Executor{{ID: "1-1", Started: after(-3)}, {ID: "1-2", Started: after(-2)}},
	}
	lent := policies.Offer{Node: "n", Executors: 2, Resources: amount(4)}
	for name, test := range map[string]struct {
		stalls policies.Stalls
		want   policies.Offer
	}{
		"calm":         {policies.Stalls{Missing: []string{"bandwidth"}}, lent},
		"not told yet": {policies.Stalls{Awaited: true}, lent},
		"stalls": {policies.Stalls{Memory: 0.5, Missing: []string{"bandwidth"}},
			policies.Offer{Node: "n", Executors: 2, Shed: []string{"1-2"}, Why: "the jobs there stall: memory"}},
	} {
		t.Run(name, func(t *testing.T) {
			node.Stalls = test.stalls
			got := policies.Pressure{LendBlind: true}.Harvest(policies.View{Now: now, Nodes: []policies.Node{node}})
			if diff := cmp.Diff([]policies.Offer{test.want}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCarefulCoversTheFunction(t *testing.T) {
	offers := []policies.Offer{
		{Node: "long", Resources: amount(1), Until: after(300)}, {Node: "short", Resources: amount(8), Until: after(30)}, {Node: "open", Resources: amount(1)},
	}
	for name, test := range map[string]struct {
		length time.Duration
		want   []string
	}{
		"short":   {10 * time.Second, []string{"open", "long", "short", "short"}},
		"long":    {2 * time.Minute, []string{"open", "long"}},
		"longer":  {10 * time.Minute, []string{"open"}},
		"unknown": {0, []string{"open", "long", "short", "short"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := policies.Careful{}.Place(policies.Request{Now: now, Executors: 4, Each: amount(1), Length: test.length}, offers)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSlackEvictsBorrowersFirst(t *testing.T) {
	got := policies.Slack{}.Evict(policies.Overlap{}, []policies.Executor{
		{ID: "1-1", Started: after(-1)}, {ID: "1-2", Borrowed: 1, Started: after(-9)}, {ID: "1-3", Borrowed: 1, Started: after(-5)}, {ID: "1-4", Borrowed: 2, Started: after(-99)},
	})
	if diff := cmp.Diff([]string{"1-4", "1-3", "1-2", "1-1"}, got); diff != "" {
		t.Error(diff)
	}
}
