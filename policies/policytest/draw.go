package policytest

import (
	"encoding/json"
	"fmt"
	"time"

	"pgregory.net/rapid"

	"github.com/gleaner-hpc/gleaner/policies"
)

var names = []string{"n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8"}

var functions = []string{"f@1", "g@2", "h@3"}

var now = time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)

// request draws what is asked of Place.
func request(t *rapid.T) policies.Request {
	return policies.Request{
		Now: now, Lease: 1, UID: 1000, Executors: rapid.IntRange(0, 20).Draw(t, "executors"),
		Function: rapid.SampledFrom(functions).Draw(t, "function"), Length: time.Duration(rapid.IntRange(0, 600).Draw(t, "length")) * time.Second,
		Each:  policies.Resources{Cores: rapid.IntRange(1, 4).Draw(t, "cores"), MemoryBytes: rapid.Uint64Range(1, 4).Draw(t, "GiB") << 30, GPUs: rapid.IntRange(0, 1).Draw(t, "gpus")},
		Avoid: rapid.SliceOfN(rapid.SampledFrom(names), 0, 3).Draw(t, "avoid"),
	}
}

func drawOffers(t *rapid.T) []policies.Offer {
	return rapid.SliceOfNDistinct(rapid.Custom(offer), 0, 8, func(o policies.Offer) string { return o.Node }).Draw(t, "offers")
}

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
	s := policies.Stalls{CPU: share("cpu"), Memory: share("memory"), IO: share("io"), Bandwidth: share("bandwidth")}
	switch rapid.IntRange(0, 4).Draw(t, "told") {
	case 0:
		return policies.Stalls{Awaited: true}
	case 1:
		s.Bandwidth, s.Missing = 0, []string{"bandwidth"}
	case 2:
		return policies.Stalls{Missing: []string{"cpu", "memory", "io", "bandwidth"}}
	}
	return s
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
