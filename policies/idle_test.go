package policies_test

import (
	"slices"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/policies"
)

func TestIdleSpreads(t *testing.T) {
	offers := []policies.Offer{
		{Node: "busy", Executors: 3, Resources: policies.Resources{Cores: 8, MemoryBytes: 8}},
		{Node: "n1", Resources: policies.Resources{Cores: 2, MemoryBytes: 8}},
		{Node: "n2", Resources: policies.Resources{Cores: 4, MemoryBytes: 8}},
		{Node: "evicted", Resources: policies.Resources{Cores: 8, MemoryBytes: 8}},
		{Node: "full", Why: "allocated"},
	}
	each := policies.Resources{Cores: 1, MemoryBytes: 1}
	for name, test := range map[string]struct {
		n     int
		avoid []string
		want  []string
	}{
		"most cores first":        {1, nil, []string{"evicted"}},
		"fewest executors first":  {5, []string{"evicted"}, []string{"n2", "n1", "n2", "n1", "n2"}},
		"avoided ones when short": {15, []string{"evicted"}, append(slices.Repeat([]string{"n2", "n1"}, 2), "n2", "busy", "n2", "busy", "busy", "busy", "busy", "busy", "busy", "busy", "evicted")},
	} {
		t.Run(name, func(t *testing.T) {
			got := policies.Idle{}.Place(policies.Request{Executors: test.n, Each: each, Avoid: test.avoid}, offers)
			if !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestIdleEvictsTheYoungest(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	got := policies.Idle{}.Evict(policies.Overlap{}, []policies.Executor{{ID: "1-1", Started: at(5)}, {ID: "2-1", Started: at(9)}, {ID: "1-2", Started: at(5)}})
	if !slices.Equal(got, []string{"2-1", "1-1", "1-2"}) {
		t.Errorf("got %v", got)
	}
}
