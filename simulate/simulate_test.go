package simulate

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gleaner-hpc/gleaner/policies"
	"github.com/gleaner-hpc/gleaner/simulate/trace"
)

func machine(nodes, cores int) []trace.Node {
	list := make([]trace.Node, nodes)
	for i := range list {
		list[i] = trace.Node{Name: "n" + string(rune('a'+i)), Cores: cores, Memory: 16 << 30}
	}
	return list
}

func run(t testing.TB, tr *trace.Trace, cfg Config) *Report {
	t.Helper()
	s, err := Allocate(tr)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Policies == nil {
		cfg.Policies = []Named{{"idle", policies.Idle{}}}
	}
	r, err := Run(context.Background(), s, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const second = time.Second

// TestByHand: two nodes of two cores; a job takes one node for 50 of 100 seconds. All figures follow by hand.
func TestByHand(t *testing.T) {
	tr := &trace.Trace{Span: 100 * second, Nodes: machine(2, 2), Jobs: []trace.Job{{Start: 25*second + 500*time.Millisecond, End: 75*second + 500*time.Millisecond, Whole: 1}}}
	r := run(t, tr, Config{Startup: 500 * time.Millisecond, Demand: Demand{Lengths: Lengths{Uniform, 10 * second, 10 * second}, Memory: 1 << 30}})
	o := r.Policies[0]
	// The first round is at 0 s. The job's node serves from 0.5 s to 25.5 s: two functions of 10 s and 5 s lost on each core; then from the
	// round at 76 s, from 76.5 s to 100 s: two functions and 3.5 s. The other node serves 99.5 s: nine functions and 9.5 s on each core.
	want := CPU{
		Reported: 400, Allocated: 100, Idle: 300, Harvested: 300 - 2*0.5, Finished: 2 * (20 + 20 + 90), Lost: 2 * 5, Running: 2 * (3.5 + 9.5),
		Starting: 2 * 3 * 0.5, Left: 2 * 0.5,
	}
	if diff := cmp.Diff(want, o.CPU); diff != "" {
		t.Error(diff)
	}
	if want := (Functions{Finished: 26, Lost: 2}); o.Functions != want || o.Evictions != 2 || o.Executors != 6 {
		t.Errorf("%+v, %d evictions, %d executors", o.Functions, o.Evictions, o.Executors)
	}
	if want := (Jobs{Started: 1, Evicting: 1, DelaySeconds: 0.015, DelayMost: 15 * time.Millisecond}); o.Jobs != want {
		t.Errorf("%+v", o.Jobs)
	}
	if held := o.Memory.Harvested / (1 << 30); held != 2*(100+25.5+24) {
		t.Errorf("%v GiB-seconds held", held)
	}
	if w := (Windows{Count: 3, MeanSeconds: 50, MedianSeconds: 25.5, Under10Min: 1}); r.Windows != w {
		t.Errorf("%+v", r.Windows)
	}
}

// TestCarefulKeepsOff: of a job that waits, careful knows; a function that would not end in time is not begun.
func TestCarefulKeepsOff(t *testing.T) {
	tr := &trace.Trace{Span: 100 * second, Nodes: machine(1, 1), Jobs: []trace.Job{
		{Start: 0, End: 40 * second, Whole: 1}, {Submit: 10 * second, Start: 60 * second, End: 100 * second, Whole: 1},
	}}
	cfg := Config{Demand: Demand{Lengths: Lengths{Uniform, 30 * second, 30 * second}}, Policies: []Named{{"idle", policies.Idle{}}, {"careful", policies.Careful{}}}}
	r := run(t, tr, cfg)
	if idle, careful := r.Policies[0], r.Policies[1]; idle.Evictions != 1 || careful.Evictions != 0 || careful.Executors != 0 {
		t.Errorf("idle evicts %d, careful %d of %d", idle.Evictions, careful.Evictions, careful.Executors)
	}
}

// TestSecondTrace: functions of a second trace arrive, wait, are evicted and run again; each is done once.
func TestSecondTrace(t *testing.T) {
	tr := &trace.Trace{Span: 100 * second, Nodes: machine(1, 2), Jobs: []trace.Job{{Start: 10 * second, End: 20 * second, Whole: 1}}}
	demand := &trace.Trace{Jobs: []trace.Job{
		{Submit: 1 * second, Start: 1 * second, End: 21 * second, Cores: 1}, // evicted at 10 s, again from 21 s
		{Submit: 2 * second, Start: 2 * second, End: 5 * second, Cores: 2},  // waits for both cores
		{Submit: 90 * second, Start: 90 * second, End: 140 * second, Cores: 1},
	}}
	o := run(t, tr, Config{Demand: Demand{Trace: demand}}).Policies[0]
	if want := (Functions{Finished: 2, Lost: 1, Left: 1}); o.Functions != want || o.CPU.Finished != 20+2*3 || o.Evictions != 1 {
		t.Errorf("%+v %+v, %d evictions", o.Functions, o.CPU, o.Evictions)
	}
}

// random draws a small trace.
func random(t *rapid.T) *trace.Trace {
	nodes, cores := rapid.IntRange(1, 5).Draw(t, "nodes"), rapid.IntRange(1, 4).Draw(t, "cores")
	tr := &trace.Trace{Span: 500 * second, Nodes: machine(nodes, cores)}
	for range rapid.IntRange(0, 12).Draw(t, "jobs") {
		start := rapid.IntRange(0, 499_999).Draw(t, "start")
		j := trace.Job{Start: time.Duration(start) * time.Millisecond, Limit: 100 * second}
		j.End = min(tr.Span, j.Start+time.Duration(rapid.IntRange(1, 200_000).Draw(t, "length"))*time.Millisecond)
		j.Submit = j.Start - time.Duration(rapid.IntRange(0, 100).Draw(t, "wait"))*second
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			j.Whole = rapid.IntRange(1, nodes).Draw(t, "whole")
		case 1:
			j.Cores = rapid.IntRange(1, nodes*cores).Draw(t, "wide")
		case 2:
			j.On, j.Cores = []int32{int32(rapid.IntRange(0, nodes-1).Draw(t, "on"))}, rapid.IntRange(0, cores).Draw(t, "part")
		default:
			j.On, j.Down = []int32{int32(rapid.IntRange(0, nodes-1).Draw(t, "down"))}, true
		}
		tr.Jobs = append(tr.Jobs, j)
	}
	slicesByStart(tr.Jobs)
	return tr
}

func slicesByStart(jobs []trace.Job) {
	for i := range jobs {
		for k := i; k > 0 && jobs[k].Start < jobs[k-1].Start; k-- {
			jobs[k], jobs[k-1] = jobs[k-1], jobs[k]
		}
	}
}

// TestConservation: under every policy each core-second is in one hand, whatever the trace; and the same seed gives the same bytes.
func TestConservation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tr := random(t)
		cfg := Config{Seed: rapid.Uint64().Draw(t, "seed"), Demand: Demand{
			Lengths: Lengths{rapid.SampledFrom(Distributions).Draw(t, "distribution"), second, time.Duration(rapid.IntRange(1, 100).Draw(t, "max")) * second},
			Cores:   rapid.IntRange(1, 2).Draw(t, "size"), Memory: uint64(rapid.IntRange(1, 8).Draw(t, "GiB")) << 30,
		}}
		for _, name := range policies.Names() {
			cfg.Policies = append(cfg.Policies, Named{name, policies.Builtin(name)})
		}
		s, err := Allocate(tr)
		if err != nil {
			t.Fatal(err)
		}
		var documents [2][]byte
		for i := range documents {
			r, err := Run(context.Background(), s, cfg)
			if err != nil {
				t.Fatal(err)
			}
			for k := range r.Policies {
				conserved(t, &r.Policies[k])
			}
			careful, pressure := r.Policies[2], r.Policies[3]
			if careful.Policy = pressure.Policy; !reflect.DeepEqual(careful, pressure) { // nobody stalls here, and no node is blind
				t.Fatalf("careful %+v\npressure %+v", careful, pressure)
			}
			if documents[i], err = json.Marshal(r); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(documents[0], documents[1]) {
			t.Fatal("the same question was answered twice, and not alike")
		}
	})
}

func conserved(t *rapid.T, o *Outcome) {
	c := o.CPU
	near := func(what string, a, b float64) {
		if math.Abs(a-b) > 0.1 {
			t.Fatalf("%s under %s: %v and %v of %+v", what, o.Policy, a, b, c)
		}
	}
	near("the machine", c.Reported, c.Allocated+c.Down+c.Idle)
	near("what executors held", c.Harvested, c.Finished+c.Running+c.Lost+c.Starting)
	near("what was idle", c.Idle, c.Harvested+c.Left)
	if o.Memory.Harvested > o.Memory.Idle+1e6 || o.Jobs.Evicting > o.Jobs.Started || o.UsedShare > 1 {
		t.Fatalf("%+v", o)
	}
}

// TestServe: many functions drawn as one sum are as many, and lose as much, as those drawn one by one.
func TestServe(t *testing.T) {
	for _, d := range Distributions {
		l := Lengths{d, second, 60 * second}
		mean, deviation := l.moments()
		r := rand.New(rand.NewPCG(7, 7))
		sum, square, n := 0.0, 0.0, 200_000
		for range n {
			x := l.draw(r)
			sum, square = sum+x, square+x*x
		}
		drawn := sum / float64(n)
		if spread := math.Sqrt(square/float64(n) - drawn*drawn); math.Abs(drawn-mean) > 0.02*mean || math.Abs(spread-deviation) > 0.02*deviation {
			t.Errorf("%s: mean %v, deviation %v; drawn %v, %v", d, mean, deviation, drawn, spread)
		}
		var count, partial float64
		const rounds, life = 2000, 40_000
		for range rounds {
			s := l.serve(r, life)
			if s.finished+s.partial > life+1e-6 {
				t.Fatalf("%s: %+v in %v s", d, s, life)
			}
			count, partial = count+float64(s.functions), partial+s.partial
		}
		if got, want := count/rounds, life/mean; math.Abs(got-want) > 0.02*want {
			t.Errorf("%s: %v functions in %v s, want about %v", d, got, life, want)
		}
		// The age of the function that an eviction meets: renewal theory.
		if got, want := partial/rounds, (mean*mean+deviation*deviation)/(2*mean); math.Abs(got-want) > 0.06*want {
			t.Errorf("%s: %v s lost, want about %v", d, got, want)
		}
	}
}

func TestAllocate(t *testing.T) {
	tr := &trace.Trace{Span: 100 * second, Nodes: machine(3, 4), Jobs: []trace.Job{
		{Start: 0, End: 50 * second, Cores: 6},                 // na whole, two cores of nb
		{Start: 10 * second, End: 20 * second, Cores: 2},       // the rest of nb
		{Start: 30 * second, End: 40 * second, Whole: 2},       // waits until 50 s
		{Start: 31 * second, End: 32 * second, Cores: 1},       // behind it
		{Start: 90 * second, End: 95 * second, Cores: 12},      // all
		{Start: 91 * second, End: 92 * second, On: []int32{1}}, // finds nothing left
	}}
	s, err := Allocate(tr)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i := range s.jobs {
		var b strings.Builder
		b.WriteString(s.jobs[i].start.String())
		for _, p := range s.partsOf(&s.jobs[i]) {
			b.WriteString(" " + tr.Nodes[p.node].Name + ":" + string(rune('0'+p.cores)))
		}
		got = append(got, b.String())
	}
	want := []string{"0s na:0 nb:2", "10s nb:2", "50s na:0 nb:0", "50s nc:1", "1m30s na:0 nb:0 nc:0"}
	if diff := cmp.Diff(want, got); diff != "" || s.Late != 2 || s.Clip != 1 {
		t.Errorf("%s, %d late, %d clipped", diff, s.Late, s.Clip)
	}
	if _, err := Allocate(&trace.Trace{Nodes: machine(1, 1), Jobs: []trace.Job{{Line: 7, Cores: 2}}}); err == nil || !strings.Contains(err.Error(), "line 7") {
		t.Errorf("a job wider than the machine: %v", err)
	}
}

func TestPage(t *testing.T) {
	tr := &trace.Trace{Origin: time.Unix(1e9, 0).UTC(), Span: 100 * second, Nodes: machine(2, 2), Jobs: []trace.Job{{Start: 25 * second, End: 75 * second, Whole: 1}}}
	r := run(t, tr, Config{})
	r.Source = "<jobs>"
	var b bytes.Buffer
	if err := r.WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"&lt;jobs&gt;", "Under idle, functions would have used", `class="harvested"`, "default-src 'none'"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in the page", want)
		}
	}
	for _, never := range []string{"<jobs>", "http://", "https://", "<script"} {
		if strings.Contains(b.String(), never) {
			t.Errorf("%s is in the page", never)
		}
	}
}

func TestBadConfig(t *testing.T) {
	s, err := Allocate(&trace.Trace{Span: second, Nodes: machine(1, 1)})
	if err != nil {
		t.Fatal(err)
	}
	one := []Named{{"idle", policies.Idle{}}}
	for name, cfg := range map[string]Config{
		"no policy": {}, "lengths": {Policies: one, Demand: Demand{Lengths: Lengths{Uniform, 2 * second, second}}},
		"distribution": {Policies: one, Demand: Demand{Lengths: Lengths{"zipf", second, second}}}, "time": {Policies: one, Round: -1},
	} {
		if _, err := Run(context.Background(), s, cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
