package report

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var t0 = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

func genIntervals(t *rapid.T) []Interval {
	var ivs []Interval
	for _, node := range []string{"n1", "n2"} {
		now := t0.Add(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "first")))
		for range rapid.IntRange(0, 12).Draw(t, "count") {
			now = now.Add(time.Duration(max(rapid.Int64Range(-int64(time.Minute), int64(time.Minute)).Draw(t, "gap"), 0)))
			end := now.Add(time.Duration(rapid.Int64Range(1, int64(2*time.Hour)).Draw(t, "length")))
			cpus := rapid.IntRange(0, 128).Draw(t, "cpus")
			ivs = append(ivs, Interval{
				Node: node, Start: now, End: end, CPUs: cpus,
				State:         rapid.SampledFrom([]State{Idle, Planned, Down, PlannedDown, "odd"}).Draw(t, "state"),
				AllocatedCPUs: rapid.IntRange(-1, cpus+2).Draw(t, "allocated"),
				HarvestedCPUs: rapid.IntRange(-1, cpus+2).Draw(t, "harvested"),
			})
			now = end
		}
	}
	return ivs
}

func roll(since, until time.Time, ivs []Interval) *Report {
	u := newRollup(since, until)
	for _, iv := range ivs {
		u.interval(iv)
	}
	return u.report()
}

func TestSlicesSumExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ivs := genIntervals(t)
		since := t0.Add(time.Duration(rapid.Int64Range(-int64(time.Hour), int64(6*time.Hour)).Draw(t, "since")))
		window := time.Duration(rapid.Int64Range(0, int64(24*time.Hour)).Draw(t, "window"))
		until := since.Add(window)
		r := roll(since, until, ivs)
		var nodes, cells Slices
		for _, n := range r.Nodes {
			if n.CPU.Sum() != n.CPU.Reported {
				t.Fatalf("node %s: parts sum to %d, reported %d", n.Node, n.CPU.Sum(), n.CPU.Reported)
			}
			nodes.Add(n.CPU)
		}
		for _, row := range r.Heatmap.Rows {
			for _, c := range row.Cells {
				cells.Add(c)
			}
		}
		if r.CPU.Sum() != r.CPU.Reported || nodes != r.CPU || cells != r.CPU {
			t.Fatalf("total %+v, nodes %+v, heatmap %+v", r.CPU, nodes, cells)
		}
		// Cutting the window anywhere loses and invents nothing.
		cut := since.Add(time.Duration(rapid.Int64Range(0, int64(window)).Draw(t, "cut")))
		left := roll(since, cut, ivs).CPU
		left.Add(roll(cut, until, ivs).CPU)
		if left != r.CPU {
			t.Fatalf("two halves %+v, whole %+v", left, r.CPU)
		}
	})
}

func TestGapsAndCoverFillTheWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ivs := genIntervals(t)
		for i := range ivs {
			ivs[i].CPUs = 1
		}
		since, until := t0, t0.Add(8*time.Hour)
		r := roll(since, until, ivs)
		if got, want := r.CPU.Reported+r.Quality.GapMS, int64(len(r.Nodes))*8*3_600_000; got != want {
			t.Fatalf("covered and gaps are %d ms, want %d", got, want)
		}
	})
}

func TestRollup(t *testing.T) {
	hour := func(node string, from, to float64, cpus, allocated, harvested int, s State) Interval {
		at := func(h float64) time.Time { return t0.Add(time.Duration(h * float64(time.Hour))) }
		return Interval{Node: node, Start: at(from), End: at(to), CPUs: cpus, AllocatedCPUs: allocated, HarvestedCPUs: harvested, State: s}
	}
	const h = 3_600_000
	tests := map[string]struct {
		intervals []Interval
		want      Slices
		quality   Quality
	}{
		"nothing": {},
		"each slice": {
			intervals: []Interval{hour("a", 0, 1, 8, 2, 3, Idle), hour("a", 1, 2, 8, 0, 0, Down), hour("b", 0, 1, 8, 1, 0, Planned), hour("b", 1, 2, 8, 0, 0, PlannedDown)},
			want:      Slices{Allocated: 3 * h, Harvested: 3 * h, Idle: 3 * h, Down: 8 * h, Planned: 7 * h, PlannedDown: 8 * h, Reported: 32 * h},
		},
		"owner first": {
			intervals: []Interval{hour("a", 0, 2, 8, 6, 4, Idle)},
			want:      Slices{Allocated: 12 * h, Harvested: 4 * h, Reported: 16 * h},
			quality:   Quality{OverlapMS: 4 * h},
		},
		"cut to the window": {
			intervals: []Interval{hour("a", -1, 3, 1, 0, 1, Idle)},
			want:      Slices{Harvested: 2 * h, Reported: 2 * h},
		},
		"told twice": {
			intervals: []Interval{hour("a", 0, 1.5, 1, 1, 0, Idle), hour("a", 0.5, 2, 1, 0, 0, Idle)},
			want:      Slices{Allocated: 1.5 * h, Idle: 0.5 * h, Reported: 2 * h},
			quality:   Quality{Repeated: 1},
		},
		"gap": {
			intervals: []Interval{hour("a", 0, 0.5, 1, 0, 0, Idle), hour("a", 1.5, 2, 1, 0, 0, Idle)},
			want:      Slices{Idle: h, Reported: h},
			quality:   Quality{GapMS: h, Gaps: []Gap{{"a", t0.Add(30 * time.Minute), t0.Add(90 * time.Minute)}}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := roll(t0, t0.Add(2*time.Hour), test.intervals)
			if d := cmp.Diff(test.want, r.CPU); d != "" {
				t.Errorf("CPU (-want +got):\n%s", d)
			}
			if d := cmp.Diff(test.quality, r.Quality); d != "" {
				t.Errorf("quality (-want +got):\n%s", d)
			}
		})
	}
}

func TestHarm(t *testing.T) {
	u := newRollup(t0, t0.Add(time.Hour))
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	for _, c := range []Claim{
		{Job: 1, Node: "a", Path: "gate", Time: t0, Duration: ms(9), Evicted: 2, Memory: 100, Complete: true},
		{Job: 1, Node: "a", Path: "gate", Time: t0.Add(time.Second), Duration: ms(1), Complete: true}, // a later step asks again
		{Job: 1, Node: "a", Path: "prolog", Time: t0, Duration: ms(2), Complete: true},
		{Job: 1, Node: "b", Path: "gate", Time: t0, Duration: ms(4), Complete: true},
		{Job: 2, Node: "b", Path: "gate", Time: t0, Duration: ms(30), Evicted: 1, Memory: 50},
		{Job: 3, Node: "b", Path: "gate", Time: t0.Add(-time.Second), Duration: ms(99), Evicted: 1},
	} {
		u.claim(c)
	}
	u.executor(Executor{Start: t0, End: t0.Add(time.Minute), Cores: 1, Memory: 150, Reason: "evicted"})
	u.drain(Drain{Time: t0, Ours: true})
	u.drain(Drain{Time: t0})
	u.drain(Drain{Time: t0.Add(2 * time.Hour)})
	want := Harm{
		Evictions: 1, EvictedMemory: 150, Late: 1, DrainsByGleaner: 1, DrainsOther: 1,
		Eviction:      Distribution{2, ms(9), ms(30), ms(30)},
		JobStartDelay: Distribution{2, ms(11), ms(30), ms(30)},
	}
	if d := cmp.Diff(want, u.report().Harm); d != "" {
		t.Errorf("harm (-want +got):\n%s", d)
	}
}

func TestExecutorsAreCutToTheWindow(t *testing.T) {
	u := newRollup(t0, t0.Add(time.Hour))
	e := Executor{User: "ada", Cores: 2, Memory: 1 << 30, CPUTime: 2 * time.Hour, SpinTime: time.Hour, Reason: "released", Startup: time.Millisecond}
	e.Start, e.End = t0.Add(-time.Hour), t0.Add(time.Hour)
	u.executor(e)
	e.Start, e.End = t0.Add(30*time.Minute), t0.Add(90*time.Minute) // goes on after the window
	u.executor(e)
	e.Start, e.End = t0.Add(2*time.Hour), t0.Add(3*time.Hour)
	u.executor(e)
	r := u.report()
	want := []UsageRow{{Name: "ada", Executors: 2, CPUMS: 3 * 3_600_000, UsedCPUMS: 2 * 3_600_000, PolledCPUMS: 3_600_000, MemoryByteHours: 1.5 * (1 << 30)}}
	if d := cmp.Diff(want, r.Users); d != "" {
		t.Errorf("users (-want +got):\n%s", d)
	}
	if r.Startup.Count != 1 || len(r.Ends) != 1 || r.Ends[0].Count != 1 {
		t.Errorf("startup %+v, ends %+v: want the one that ended within the window", r.Startup, r.Ends)
	}
}

func TestDistributionTakesNearestRank(t *testing.T) {
	var d []time.Duration
	for i := 100; i > 0; i-- {
		d = append(d, time.Duration(i))
	}
	if got, want := distribution(d), (Distribution{100, 50, 99, 100}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, want := distribution(d[:1]), (Distribution{1, 1, 1, 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
