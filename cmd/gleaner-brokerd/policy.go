package main

import (
	"context"
	"encoding/hex"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gleaner-hpc/gleaner/broker"
	"github.com/gleaner-hpc/gleaner/config"
	"github.com/gleaner-hpc/gleaner/policies"
	"github.com/gleaner-hpc/gleaner/policies/plugin"
)

// newPolicy returns the policy that broker.toml names, and what has to run for it; nil for nothing.
func newPolicy(c *config.Policy, registry prometheus.Registerer, log *slog.Logger) (policies.Policy, func(context.Context) error, error) {
	own := builtin(c)
	if c.Plugin == "" {
		return own, nil, nil
	}
	replaced := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gleaner_policy_replaced_total", Help: "Answers of the policy plugin that a built-in policy gave in its place: late, failed, nonsense, resting or spent.",
	}, []string{"question", "reason"})
	starts := prometheus.NewCounter(prometheus.CounterOpts{Name: "gleaner_policy_starts_total", Help: "Starts of the policy plugin's process."})
	registry.MustRegister(replaced, starts)
	sum, err := hex.DecodeString(c.SHA256)
	if err != nil {
		return nil, nil, err
	}
	p, err := plugin.New(plugin.Config{Path: c.PluginPath(), SHA256: sum, Log: log, Started: starts.Inc})
	if err != nil {
		return nil, nil, err
	}
	guard := policies.NewGuard(policies.GuardConfig{
		Policy: p, Fallback: own, Deadline: time.Duration(c.Deadline),
		Count: func(question, reason string) { replaced.WithLabelValues(question, reason).Inc() },
	})
	return guard, p.Run, nil
}

// builtin is the policy of Gleaner's own that broker.toml names.
func builtin(c *config.Policy) policies.Policy {
	if c.Name == "pressure" {
		return policies.Pressure{LendBlind: c.Blind == "lend"}
	}
	return policies.Builtin(c.Name)
}

// watch is how often agents look how jobs fare; 0 where the policy does not ask.
func watch(c *config.Policy) time.Duration {
	if !c.Watches() {
		return 0
	}
	return time.Duration(c.Watch)
}

func sharing(c *config.Share) broker.Sharing {
	words := func(said map[string]string) map[string]bool {
		yes := map[string]bool{}
		for name, word := range said {
			yes[name] = word == "yes"
		}
		return yes
	}
	return broker.Sharing{
		Default: c.Default == "yes", Exclusive: c.Exclusive == "yes", Partitions: words(c.Partitions), Accounts: words(c.Accounts),
	}
}
