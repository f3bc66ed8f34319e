package meter

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gleaner-hpc/gleaner/report"
)

var t0 = time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)

func TestIntervals(t *testing.T) {
	m := New()
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	sample := func(allocated, harvested int) report.Interval {
		return report.Interval{Node: "n1", CPUs: 8, State: report.Idle, AllocatedCPUs: allocated, HarvestedCPUs: harvested}
	}
	between := func(from, to int, i report.Interval) report.Interval {
		i.Start, i.End = at(from), at(to)
		return i
	}
	var got []report.Interval
	add := func(ended []report.Interval) { got = append(got, ended...) }
	add(m.Set(at(0), sample(2, 0)))
	add(m.Set(at(5), sample(2, 0))) // nothing changed
	add(m.Set(at(10), sample(2, 6)))
	add(m.Tick(at(30)))
	add(m.Set(at(40), sample(8, 6))) // a job took it all and the executors are not gone yet
	add(m.Tick(at(100)))
	add(m.Clear(at(110), "n1"))
	add(m.Set(at(200), sample(0, 0)))
	add(m.Close(at(350))) // the loop stood still
	want := []report.Interval{
		between(0, 10, sample(2, 0)), between(10, 40, sample(2, 6)), between(40, 100, sample(8, 0)), between(100, 110, sample(8, 0)),
		between(200, 260, sample(0, 0)), between(260, 320, sample(0, 0)), between(320, 350, sample(0, 0)),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Intervals of a node never overlap, even when the clock is set back, are at most a minute long, and hold no more than the node has.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, now := New(), t0
		var all []report.Interval
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(-5, 70).Draw(t, "seconds")) * time.Second)
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				all = append(all, m.Set(now, report.Interval{
					Node: "n1", CPUs: 4, AllocatedCPUs: rapid.IntRange(0, 5).Draw(t, "allocated"), HarvestedCPUs: rapid.IntRange(0, 5).Draw(t, "harvested"),
					MemoryBytes: 100, AllocatedMemory: rapid.Uint64Range(0, 120).Draw(t, "memory"), HarvestedMemory: 50,
				})...)
			case 2:
				all = append(all, m.Tick(now)...)
			case 3:
				all = append(all, m.Close(now)...)
			}
		}
		for i, v := range all {
			if !v.End.After(v.Start) || v.End.Sub(v.Start) > longest || i > 0 && v.Start.Before(all[i-1].End) {
				t.Fatalf("interval %d: %+v after %+v", i, v, all[max(0, i-1)])
			}
			if v.AllocatedCPUs+v.HarvestedCPUs > v.CPUs || v.AllocatedMemory+v.HarvestedMemory > v.MemoryBytes {
				t.Fatalf("more than there is: %+v", v)
			}
		}
	})
}

func TestStateOf(t *testing.T) {
	for _, test := range []struct {
		state string
		flags []string
		want  report.State
	}{
		{"idle", nil, report.Idle}, {"mixed", nil, report.Idle}, {"idle", []string{"planned"}, report.Planned},
		{"idle", []string{"drain"}, report.Down}, {"down", nil, report.Down}, {"unknown", nil, report.Down},
		{"idle", []string{"drain", "maint"}, report.PlannedDown}, {"idle", []string{"powered_down"}, report.PlannedDown},
		{"allocated", []string{"reserved"}, report.Planned},
	} {
		if got := StateOf(test.state, test.flags); got != test.want {
			t.Errorf("%s %v: %s, want %s", test.state, test.flags, got, test.want)
		}
	}
}
