package ledger

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gleaner-hpc/gleaner/agent/coreset"
)

// TestParked: to leases what is parked is free, to jobs it is harvested.
func TestParked(t *testing.T) {
	now := time.Unix(1000, 0)
	l, err := New(Config{Cores: 4, Memory: 1000, ReserveMemory: 100})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"parked-1", "parked-2"} {
		e, err := l.Park(id, 200, now)
		if err != nil || e.Cores.String() != "3" {
			t.Fatalf("%s: %+v, %v", id, e, err)
		}
		now = now.Add(time.Second)
	}
	if _, err := l.Park("parked-3", 600, now); err == nil {
		t.Error("parked more memory than the node lends")
	}
	if free, leased := l.Free(now), l.Leased(); free != (Totals{4, 900, 0}) || leased != (Totals{}) {
		t.Errorf("free %+v, leased %+v", free, leased)
	}
	// A lease takes the core at once; a parked sandbox goes when the memory is short.
	if _, err := l.Reserve("1-1", 1, Need{Cores: 2, Memory: 500}, now); err != nil {
		t.Fatal(err)
	}
	if crowd := l.Crowd(); crowd != nil {
		t.Errorf("%v are in the way", crowd)
	}
	if _, err := l.Reserve("1-2", 1, Need{Cores: 2, Memory: 300}, now); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"parked-2", "parked-1"}, l.Crowd()); diff != "" {
		t.Error(diff)
	}
	l.Remove("parked-2")
	l.Remove("1-2")
	// A job meets the one on its core, and the one whose memory it needs before any executor.
	ids := func(victims []Executor) (names []string) {
		for _, v := range victims {
			names = append(names, v.ID)
		}
		return names
	}
	l.Claim(Hold{Job: 7, Cores: coreset.Of(0), Memory: 400})
	if diff := cmp.Diff([]string{"parked-1"}, ids(l.Overlap(7))); diff != "" {
		t.Error(diff)
	}
	l.Claim(Hold{Job: 7, Cores: coreset.Of(3), Memory: 100})
	if got := ids(l.Overlap(7)); len(got) != 2 || l.Clear(7) {
		t.Errorf("on core 3: %v, clear %v", got, l.Clear(7))
	}
}
