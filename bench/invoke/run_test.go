package invoke

import (
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestSeries(t *testing.T) {
	var s series
	s.add([]uint32{30, 10, 20}, 3, 3*time.Second)
	s.add([]uint32{15, 14, 16, 15}, 4, time.Second)
	if !slices.Equal(s.turns, []float64{20, 15}) || s.rate != 4 {
		t.Errorf("turns %v, best rate %v; want 20, 15 and 4", s.turns, s.rate)
	}
	if got, want := times(s.samples), (Times{Samples: 7, P50: 15, P99: 30, P999: 30}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := times(nil); got != (Times{}) {
		t.Errorf("of nothing: %+v", got)
	}
}

func TestJudge(t *testing.T) {
	sampled := Times{Samples: 1}
	for name, c := range map[string]struct {
		row      Row
		provider string
		bound    float64
		within   bool
	}{
		"ring from C":           {Row{Carrier: "ring", What: "hot", Caller: "C", Bytes: 64, Measured: sampled, Ratio: 1.6}, "", 1.5, false},
		"ring from Go":          {Row{Carrier: "ring", What: "hot", Caller: "Go", Bytes: 64, Measured: sampled, Ratio: 3.9}, "", 4, true},
		"ring from Go, garbage": {Row{Carrier: "ring", What: "hot", Caller: "Go", Bytes: 64, Measured: sampled, Ratio: 3.9, Allocs: 1}, "", 4, false},
		"in place, garbage":     {Row{Carrier: "ring", What: "hot", Caller: inPlace, Bytes: 4096, Measured: sampled, Allocs: 1}, "", 0, false},
		"ofi, large":            {Row{Carrier: "ofi", What: "hot", Caller: "C", Bytes: 1 << 20, Measured: sampled, Ratio: 1.1}, "", 1.1, true},
		"verbs":                 {Row{Carrier: "ofi", What: "hot", Caller: "C", Bytes: 64, Measured: sampled, Ratio: 1.09}, "verbs;ofi_rxm", 1.1, true},
		"tcp":                   {Row{Carrier: "ofi", What: "hot", Caller: "C", Bytes: 64, Measured: sampled, Ratio: 1.09}, "tcp;ofi_rxm", 1.05, false},
		"ofi, no bound":         {Row{Carrier: "ofi", What: "hot", Caller: "C", Bytes: 65536, Measured: sampled, Ratio: 9}, "", 0, true},
		"warm":                  {Row{Carrier: "ofi", What: "warm", Caller: "C", Bytes: 64, Measured: sampled, Ratio: 1.2}, "", 1.15, false},
		"many in flight":        {Row{Carrier: "ring", What: "in-flight", Rate: 2.1e6}, "", 2e6, true},
		"bandwidth":             {Row{Carrier: "ofi", What: "bandwidth", Ratio: 0.8}, "", 0.9, false},
	} {
		if bound, within := judge(&c.row, c.provider); bound != c.bound || within != c.within {
			t.Errorf("%s: got %v %v, want %v %v", name, bound, within, c.bound, c.within)
		}
	}
}

// TestBare runs the bare ring as 'gleaner bench invoke' does.
func TestBare(t *testing.T) {
	wire := filepath.Join(t.TempDir(), "wire")
	sources, err := filepath.Glob("../wire/*.c")
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-std=c11", "-O1", "-I../../fabric", "-o", wire}
	for _, s := range sources {
		if filepath.Base(s) != "echo.c" {
			args = append(args, s)
		}
	}
	for _, s := range []string{"carrier", "conn", "control", "dial", "frame", "layout", "libfabric", "ofi"} {
		args = append(args, "../../fabric/"+s+".c")
	}
	if out, err := exec.Command("cc", append(args, "-ldl", "-lpthread")...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	p, err := startProgram(ctx, wire, "ring")
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	for _, mode := range []int{modeSpin, modeBlock} {
		samples, total, err := p.run(job{64, 20, mode, 1})
		if err != nil {
			t.Fatal(err)
		}
		if len(samples) != 20 || total <= 0 {
			t.Errorf("mode %d: %d samples in %v", mode, len(samples), total)
		}
	}
	if _, err := startProgram(ctx, wire, "nonsense"); err == nil {
		t.Error("a program that does not start is an error")
	}
}

// TestPair: sides are compared turn by turn, so that a machine that slows down meanwhile, or a turn that was disturbed, changes nothing.
func TestPair(t *testing.T) {
	var r Result
	r.pair(Row{}, &series{turns: []float64{15, 15, 30, 30}}, &series{turns: []float64{10, 10, 20, 40}})
	r.pair(Row{}, &series{turns: []float64{3}}, &series{})
	for i, want := range []float64{1.5, 0} {
		if got := r.Rows[i].Ratio; got != want {
			t.Errorf("row %d: ratio %v, want %v", i, got, want)
		}
	}
}
