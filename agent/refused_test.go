package agent

import (
	"testing"

	apiexec "github.com/gleaner-hpc/gleaner/api/executor"
)

// TestRefusedTokens: what executors count becomes a metric; what they invent does not.
func TestRefusedTokens(t *testing.T) {
	n := newNode(t)
	n.cfg.Metrics = NewMetrics("test")
	n.start()
	b := n.ready("7-1", 1, 64)
	b.say(apiexec.FromExecutor{Refused: &apiexec.Refused{Tokens: map[string]uint64{"forged": 3, "invented": 5, "expired": 1 << 60}}})
	b.say(apiexec.FromExecutor{Refused: &apiexec.Refused{Tokens: map[string]uint64{"forged": 1}}})
	want := map[string]float64{"forged": 4, "expired": maxRefusals}
	n.waitFor("count of refused tokens", func() bool {
		families, err := n.cfg.Metrics.Registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		matching := 0
		for _, f := range families {
			if f.GetName() != "gleaner_tokens_refused_total" {
				continue
			}
			for _, m := range f.GetMetric() {
				reason := m.GetLabel()[0].GetValue()
				if want[reason] == 0 {
					t.Fatalf("counts reason %q", reason)
				}
				if m.GetCounter().GetValue() == want[reason] {
					matching++
				}
			}
		}
		return matching == len(want)
	})
}
