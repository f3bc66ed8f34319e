package simulate

import (
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/policies"
	"github.com/gleaner-hpc/gleaner/simulate/trace"
)

// TestBounds: on a machine whose nodes are idle for a quarter of an hour at a time, functions of 1 to 60 s that finish use nine tenths of
// what is idle, and less than 3 % of their work is lost.
func TestBounds(t *testing.T) {
	tr, err := trace.Make(trace.Made{Nodes: 60, Cores: 4, Jobs: 400, Span: 5 * 24 * time.Hour, Load: 0.8, Widest: 30, Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	for _, cores := range []int{1, 4} {
		r := run(t, tr, Config{Seed: 1, Demand: Demand{Cores: cores}, Policies: []Named{{"careful", policies.Careful{}}}})
		o := r.Policies[0]
		if o.UsedShare < 0.9 || o.LostShare >= 0.03 || o.Evictions == 0 || r.Windows.MeanSeconds < 900 {
			t.Errorf("executors of %d cores: used %.3f, lost %.4f, %d evictions, windows %+v", cores, o.UsedShare, o.LostShare, o.Evictions, r.Windows)
		}
	}
}

// TestMake: what is made up is as wide, as long and as loaded as was asked for.
func TestMake(t *testing.T) {
	m := trace.Made{Nodes: 100, Cores: 2, Jobs: 1000, Span: 48 * time.Hour, Load: 0.7, Widest: 20, Seed: 1}
	tr, err := trace.Make(m)
	if err != nil {
		t.Fatal(err)
	}
	area := 0.0
	for _, j := range tr.Jobs {
		area += float64(j.Whole) * (j.End - j.Start).Hours()
		if j.Whole < 1 || j.Whole > m.Widest || j.Start > m.Span {
			t.Fatalf("%+v", j)
		}
	}
	if load := area / (100 * 48); load < 0.69 || load > 0.71 {
		t.Errorf("load %v", load)
	}
	if _, err := trace.Make(trace.Made{Nodes: 1}); err == nil {
		t.Error("nothing was asked for, and made")
	}
}
