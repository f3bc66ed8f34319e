package policies_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gleaner-hpc/gleaner/policies"
)

func TestLearner(t *testing.T) {
	l := policies.NewLearner()
	at := now
	see := func(times int, kind string, stall float64, functions ...string) {
		n := policies.Node{Name: "n", Jobs: []policies.Job{{ID: 1, Kind: kind}}, Stalls: policies.Stalls{Memory: stall}}
		for i, f := range functions {
			n.Executors = append(n.Executors, policies.Executor{ID: fmt.Sprint(i), Function: f})
		}
		for range times {
			at = at.Add(time.Second)
			l.Note(at, &n)
		}
	}
	check := func(what string, want ...policies.Clash) {
		t.Helper()
		near := cmp.Comparer(func(a, b float64) bool { return a-b < 0.01 && b-a < 0.01 })
		if diff := cmp.Diff(want, l.Clashes(at), near); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	see(20, "milc", 0)
	see(policies.EnoughSeen-1, "milc", 0.5, "stream")
	check("too little seen")
	see(6, "milc", 0.5, "stream")
	see(10, "milc", 0, "dgemm")
	check("one of two functions", policies.Clash{Kind: "milc", Function: "stream", Share: 1})
	see(10, "lulesh", 0.5)
	see(10, "lulesh", 0.5, "stream")
	check("a job that stalls alone too", policies.Clash{Kind: "milc", Function: "stream", Share: 1})
	at = at.Add(time.Hour)
	check("after an hour", policies.Clash{Kind: "milc", Function: "stream", Share: 0.5})
	at = at.Add(9 * time.Hour)
	check("after ten")
	see(20, "milc", 0, "stream")
	check("tried again", policies.Clash{Kind: "milc", Function: "stream", Share: 1.0 / 3})
}

// A node that does not see how its jobs fare teaches neither that a pair clashes nor that it does not.
func TestLearnerHeedsNobodyBlind(t *testing.T) {
	for name, unseen := range map[string]policies.Stalls{
		"cannot tell": {Memory: 0.5, Missing: []string{"bandwidth"}}, "calm for all that it knows": {Missing: []string{"bandwidth"}}, "has not told": {Awaited: true},
	} {
		t.Run(name, func(t *testing.T) {
			l := policies.NewLearner()
			see := func(times int, stalls policies.Stalls) {
				n := policies.Node{Jobs: []policies.Job{{Kind: "k"}}, Executors: []policies.Executor{{Function: "f"}}, Stalls: stalls}
				for range times {
					l.Note(now, &n)
				}
			}
			see(50, unseen)
			if got := l.Clashes(now); got != nil {
				t.Errorf("learnt %v", got)
			}
			see(policies.EnoughSeen, policies.Stalls{Bandwidth: 0.9})
			see(50, unseen)
			if diff := cmp.Diff([]policies.Clash{{Kind: "k", Function: "f", Share: 1}}, l.Clashes(now)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLearnerIsBounded(t *testing.T) {
	l := policies.NewLearner()
	for i := range 30_000 {
		n := policies.Node{Jobs: []policies.Job{{Kind: "k"}}, Executors: []policies.Executor{{Function: fmt.Sprint(i)}}, Stalls: policies.Stalls{CPU: 1}}
		for range policies.EnoughSeen {
			l.Note(now.Add(time.Duration(i)*time.Second), &n)
		}
	}
	if known := len(l.Clashes(now.Add(30_000 * time.Second))); known == 0 || known > 4096 {
		t.Errorf("%d pairs", known)
	}
}
