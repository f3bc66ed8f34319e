// Package policytest is the conformance suite of the policy contract: what every policy must hold to, built in or a site's own.
// Run draws nodes, requests and executors at random and checks what the policy answers.
package policytest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gleaner-hpc/gleaner/policies"
)

// Run runs the suite.
func Run(t *testing.T, policy policies.Policy) {
	t.Run("Harvest", func(t *testing.T) { rapid.Check(t, func(t *rapid.T) { harvest(t, policy) }) })
	t.Run("Place", func(t *testing.T) { rapid.Check(t, func(t *rapid.T) { place(t, policy) }) })
	t.Run("EvictionOrder", func(t *testing.T) { rapid.Check(t, func(t *rapid.T) { order(t, policy) }) })
}

// harvest: an offer lies within what is allocated to nobody and what the agent would accept, names its node, gives a reason when
// it is empty, and is nothing on a node whose state speaks against it.
func harvest(t *rapid.T, policy policies.Policy) {
	n := Node(t)
	before := n
	before.Flags, before.Partitions = slices.Clone(n.Flags), slices.Clone(n.Partitions)
	o := policy.Harvest(n)
	if !equal(n, before) {
		t.Fatalf("node changed: %+v", n)
	}
	r := o.Resources
	if o.Node != n.Name || r.Cores < 0 || r.GPUs < 0 || !n.Free.Fits(r) {
		t.Fatalf("offer %+v of node %+v", o, n)
	}
	if r.Cores+n.Slurm.Cores+n.Leased.Cores > n.Total.Cores && r.Cores > 0 ||
		r.GPUs+n.Slurm.GPUs+n.Leased.GPUs > n.Total.GPUs && r.GPUs > 0 {
		t.Fatalf("offer %+v is not all of it nobody's: %+v", o, n)
	}
	if r == (policies.Resources{}) && o.Why == "" {
		t.Fatalf("nothing offered of %+v, and no reason given", n)
	}
	for _, flag := range []string{"drain", "maint", "reserved", "planned", "powered_down", "powering_down", "reboot_requested", "fail"} {
		if slices.Contains(n.Flags, flag) && r != (policies.Resources{}) {
			t.Fatalf("offer %+v of a node with flag %s", o, flag)
		}
	}
}

// place: at most what is asked for, only of offers that are there, each within its offer; and the same answer to the same question.
func place(t *rapid.T, policy policies.Policy) {
	offers := rapid.SliceOfNDistinct(rapid.Custom(offer), 0, 8, func(o policies.Offer) string { return o.Node }).Draw(t, "offers")
	request := policies.Request{
		Lease: 1, UID: 1000, Executors: rapid.IntRange(0, 20).Draw(t, "executors"),
		Each:  policies.Resources{Cores: rapid.IntRange(1, 4).Draw(t, "cores"), MemoryBytes: rapid.Uint64Range(1, 4).Draw(t, "GiB") << 30, GPUs: rapid.IntRange(0, 1).Draw(t, "gpus")},
		Avoid: rapid.SliceOfN(rapid.SampledFrom(names), 0, 3).Draw(t, "avoid"),
	}
	before := slices.Clone(offers)
	picks := policy.Place(request, offers)
	if !slices.Equal(offers, before) {
		t.Fatalf("offers changed")
	}
	if len(picks) > request.Executors {
		t.Fatalf("%d picks, asked for %d", len(picks), request.Executors)
	}
	for _, node := range picks {
		i := slices.IndexFunc(before, func(o policies.Offer) bool { return o.Node == node })
		if i < 0 || !before[i].Resources.Fits(request.Each) {
			t.Fatalf("pick %s does not fit what is left: %+v", node, before)
		}
		before[i].Resources = before[i].Resources.Minus(request.Each)
	}
	if again := policy.Place(request, offers); !slices.Equal(again, picks) {
		t.Fatalf("the same question was answered %v and then %v", picks, again)
	}
}

// order: the same executors, each once.
func order(t *rapid.T, policy policies.Policy) {
	executors := rapid.SliceOfNDistinct(rapid.Custom(executor), 0, 10, func(e policies.Executor) string { return e.ID }).Draw(t, "executors")
	before := slices.Clone(executors)
	sorted := policy.EvictionOrder(executors)
	if !slices.Equal(executors, before) {
		t.Fatalf("the argument was changed")
	}
	left := slices.Clone(before)
	for _, e := range sorted {
		i := slices.Index(left, e)
		if i < 0 {
			t.Fatalf("%+v was not asked about, or comes twice", e)
		}
		left = slices.Delete(left, i, i+1)
	}
	if len(left) > 0 {
		t.Fatalf("%+v are missing", left)
	}
}

var names = []string{"n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8"}

// Node draws a node. Reports may contradict each other, as they do for a moment on a real cluster.
func Node(t *rapid.T) policies.Node {
	amount := func(name string) policies.Resources {
		return policies.Resources{
			Cores: rapid.IntRange(0, 16).Draw(t, name+" cores"), MemoryBytes: rapid.Uint64Range(0, 64).Draw(t, name+" GiB") << 30,
			GPUs: rapid.IntRange(0, 2).Draw(t, name+" gpus"),
		}
	}
	return policies.Node{
		Name: rapid.SampledFrom(names).Draw(t, "name"), Partitions: []string{"batch"}, Total: amount("total"), Slurm: amount("slurm"),
		Leased: amount("leased"), Free: amount("free"), Load: rapid.Float64Range(0, 64).Draw(t, "load"),
		Flags: rapid.SliceOfN(rapid.SampledFrom([]string{"drain", "maint", "reserved", "planned", "powered_down", "powering_down", "reboot_requested", "fail", "cloud"}), 0, 2).Draw(t, "flags"),
	}
}

func offer(t *rapid.T) policies.Offer {
	return policies.Offer{
		Node:      rapid.SampledFrom(names).Draw(t, "node"),
		Resources: policies.Resources{Cores: rapid.IntRange(0, 8).Draw(t, "cores"), MemoryBytes: rapid.Uint64Range(0, 16).Draw(t, "GiB") << 30, GPUs: rapid.IntRange(0, 2).Draw(t, "gpus")},
		Executors: rapid.IntRange(0, 5).Draw(t, "running"),
	}
}

func executor(t *rapid.T) policies.Executor {
	return policies.Executor{
		ID: fmt.Sprintf("%d-1", rapid.IntRange(1, 99).Draw(t, "id")), Lease: 1, UID: 1000,
		Started: time.Unix(rapid.Int64Range(0, 5).Draw(t, "started"), 0), Resources: policies.Resources{Cores: 1},
	}
}

func equal(a, b policies.Node) bool {
	return a.Name == b.Name && slices.Equal(a.Flags, b.Flags) && slices.Equal(a.Partitions, b.Partitions) &&
		a.Total == b.Total && a.Slurm == b.Slurm && a.Leased == b.Leased && a.Free == b.Free && a.Load == b.Load
}
