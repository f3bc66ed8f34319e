// Package policytest is the conformance suite of the policy contract: what every policy must hold to, built in or a site's own.
// Run draws nodes, requests and executors at random and checks what the policy answers.
package policytest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gleaner-hpc/gleaner/policies"
)

// Run runs the suite.
func Run(t *testing.T, policy policies.Policy) {
	for name, check := range Checks(policy) {
		t.Run(name, func(t *testing.T) { rapid.Check(t, check) })
	}
}

// Checks are the suite's parts by name, for callers that are no test.
func Checks(policy policies.Policy) map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"Harvest": func(t *rapid.T) { harvest(t, policy) },
		"Place":   func(t *rapid.T) { place(t, policy) },
		"Evict":   func(t *rapid.T) { evict(t, policy) },
	}
}

// harvest: what the contract says of offers, with the same answer to the same question.
func harvest(t *rapid.T, policy policies.Policy) {
	view := View(t)
	before := clone(view)
	offers := policy.Harvest(view)
	if !reflect.DeepEqual(view, before) {
		t.Fatalf("the view was changed: %+v", view)
	}
	if err := policies.CheckOffers(view, offers); err != nil {
		t.Fatalf("%v\nview %+v", err, view)
	}
	for i, o := range offers {
		if n := &view.Nodes[i]; o.Executors != len(n.Executors) {
			t.Fatalf("%s runs %d executors, its offer says %d", n.Name, len(n.Executors), o.Executors)
		}
	}
	if again := policy.Harvest(view); !reflect.DeepEqual(again, offers) {
		t.Fatalf("the same question was answered %+v and then %+v", offers, again)
	}
}

// place: at most what is asked for, only of offers that are there, each within its offer; and the same answer to the same question.
func place(t *rapid.T, policy policies.Policy) {
	offers := rapid.SliceOfNDistinct(rapid.Custom(offer), 0, 8, func(o policies.Offer) string { return o.Node }).Draw(t, "offers")
	request := policies.Request{
		Now: now, Lease: 1, UID: 1000, Executors: rapid.IntRange(0, 20).Draw(t, "executors"),
		Function: rapid.SampledFrom(functions).Draw(t, "function"), Length: time.Duration(rapid.IntRange(0, 600).Draw(t, "length")) * time.Second,
		Each:  policies.Resources{Cores: rapid.IntRange(1, 4).Draw(t, "cores"), MemoryBytes: rapid.Uint64Range(1, 4).Draw(t, "GiB") << 30, GPUs: rapid.IntRange(0, 1).Draw(t, "gpus")},
		Avoid: rapid.SliceOfN(rapid.SampledFrom(names), 0, 3).Draw(t, "avoid"),
	}
	asked := clone(offers)
	picks := policy.Place(request, offers)
	if !reflect.DeepEqual(offers, asked) {
		t.Fatalf("the offers were changed")
	}
	if err := policies.CheckPicks(request, offers, picks); err != nil {
		t.Fatalf("%v\nrequest %+v of %+v", err, request, offers)
	}
	if again := policy.Place(request, offers); !slices.Equal(again, picks) {
		t.Fatalf("the same question was answered %v and then %v", picks, again)
	}
}

// evict: the same executors, each once; and the same answer to the same question.
func evict(t *rapid.T, policy policies.Policy) {
	executors := drawExecutors(t)
	before := slices.Clone(executors)
	overlap := policies.Overlap{Node: "n1"}
	sorted := policy.Evict(overlap, executors)
	if !slices.Equal(executors, before) {
		t.Fatalf("the argument was changed")
	}
	if err := policies.CheckOrder(executors, sorted); err != nil {
		t.Fatalf("%v\nexecutors %+v, order %v", err, executors, sorted)
	}
	if again := policy.Evict(overlap, executors); !slices.Equal(again, sorted) {
		t.Fatalf("the same question was answered %v and then %v", sorted, again)
	}
}

var names = []string{"n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8"}

var functions = []string{"f@1", "g@2", "h@3"}

var now = time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)

// View draws a cluster.
func View(t *rapid.T) policies.View {
	nodes := rapid.SliceOfNDistinct(rapid.Custom(Node), 0, 5, func(n policies.Node) string { return n.Name }).Draw(t, "nodes")
	return policies.View{Now: now, Nodes: nodes, Clashes: rapid.SliceOfN(rapid.Custom(clash), 0, 3).Draw(t, "clashes")}
}

func amount(t *rapid.T, name string) policies.Resources {
	return policies.Resources{
		Cores: rapid.IntRange(0, 16).Draw(t, name+" cores"), MemoryBytes: rapid.Uint64Range(0, 64).Draw(t, name+" GiB") << 30,
		GPUs: rapid.IntRange(0, 2).Draw(t, name+" gpus"),
	}
}

// Node draws a node. Reports may contradict each other, as they do for a moment on a real cluster.
func Node(t *rapid.T) policies.Node {
	n := policies.Node{
		Name: rapid.SampledFrom(names).Draw(t, "name"), Partitions: []string{"batch"},
		Total: amount(t, "total"), Slurm: amount(t, "slurm"), Leased: amount(t, "leased"), Free: amount(t, "free"),
		Unused: amount(t, "unused"), Borrowed: amount(t, "borrowed"), Load: rapid.Float64Range(0, 64).Draw(t, "load"),
		Flags:     rapid.SliceOfN(rapid.SampledFrom(flags), 0, 2).Draw(t, "flags"),
		NextStart: soon(t, "next start"), Waiting: rapid.IntRange(0, 3).Draw(t, "waiting"),
		Jobs:      rapid.SliceOfNDistinct(rapid.Custom(job), 0, 3, func(j policies.Job) uint32 { return j.ID }).Draw(t, "jobs"),
		Executors: drawExecutors(t), Stalls: stalls(t), Alone: stalls(t),
	}
	n.Unused.Cores, n.Borrowed.Cores = 0, 0
	for range rapid.IntRange(0, 2).Draw(t, "evictions") {
		n.Evictions = append(n.Evictions, now.Add(-time.Minute))
	}
	return n
}

var flags = []string{"drain", "maint", "reserved", "planned", "powered_down", "powering_down", "reboot_requested", "fail", "cloud"}

func soon(t *rapid.T, what string) time.Time {
	minutes := rapid.IntRange(-2, 60).Draw(t, what)
	if minutes < -1 {
		return time.Time{}
	}
	return now.Add(time.Duration(minutes) * time.Minute)
}

func stalls(t *rapid.T) policies.Stalls {
	share := func(name string) float64 { return rapid.Float64Range(0, 1).Draw(t, name) }
	return policies.Stalls{CPU: share("cpu"), Memory: share("memory"), IO: share("io"), Bandwidth: share("bandwidth")}
}

var kinds = []string{"1000/a/batch", "1001/b/batch"}

func job(t *rapid.T) policies.Job {
	return policies.Job{
		ID: rapid.Uint32Range(1, 99).Draw(t, "job"), Kind: rapid.SampledFrom(kinds).Draw(t, "kind"), End: soon(t, "end"),
		Share: rapid.Bool().Draw(t, "share"), Cores: rapid.IntRange(0, 8).Draw(t, "job's cores"),
	}
}

func clash(t *rapid.T) policies.Clash {
	return policies.Clash{
		Kind: rapid.SampledFrom(kinds).Draw(t, "kind"), Function: rapid.SampledFrom(functions).Draw(t, "function"),
		Share: rapid.Float64Range(0, 1).Draw(t, "share"),
	}
}

func offer(t *rapid.T) policies.Offer {
	return policies.Offer{
		Node:      rapid.SampledFrom(names).Draw(t, "node"),
		Resources: policies.Resources{Cores: rapid.IntRange(0, 8).Draw(t, "cores"), MemoryBytes: rapid.Uint64Range(0, 16).Draw(t, "GiB") << 30, GPUs: rapid.IntRange(0, 2).Draw(t, "gpus")},
		Executors: rapid.IntRange(0, 5).Draw(t, "running"), Until: soon(t, "until"),
		Against: rapid.SliceOfN(rapid.SampledFrom(functions), 0, 1).Draw(t, "against"),
	}
}

func drawExecutors(t *rapid.T) []policies.Executor {
	return rapid.SliceOfNDistinct(rapid.Custom(executor), 0, 10, func(e policies.Executor) string { return e.ID }).Draw(t, "executors")
}

func executor(t *rapid.T) policies.Executor {
	return policies.Executor{
		ID: fmt.Sprintf("%d-1", rapid.IntRange(1, 99).Draw(t, "id")), Lease: 1, UID: 1000, Function: rapid.SampledFrom(functions).Draw(t, "function"),
		Started: now.Add(-time.Duration(rapid.IntRange(0, 5).Draw(t, "age")) * time.Second), Resources: policies.Resources{Cores: 1, MemoryBytes: 1 << 30},
		Borrowed: rapid.Uint64Range(0, 1).Draw(t, "borrowed") << 30,
	}
}

// clone copies a value with all that it points to.
func clone[T any](v T) T {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	var copied T
	if err := json.Unmarshal(text, &copied); err != nil {
		panic(err)
	}
	return copied
}
