package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/gleaner-hpc/gleaner/api/gate"
	"github.com/gleaner-hpc/gleaner/bench/owner"
	"github.com/gleaner-hpc/gleaner/client"
	"github.com/gleaner-hpc/gleaner/config"
)

// installed is a file of the installation that this program is part of, such as lib/gleaner/functions/resident.so.
func installed(path string) string {
	self, err := os.Executable()
	if err != nil {
		return path
	}
	return filepath.Join(filepath.Dir(filepath.Dir(self)), path)
}

func (a *app) benchEvictCommand() *cobra.Command {
	cfg := owner.Config{AckDeadline: gate.AckDeadline, Bytes: 1 << 30, Settle: 200 * time.Millisecond}
	var out, function string
	c := &cobra.Command{
		Use: "evict", Short: "Measure the gate: nothing to evict, small and large executors, agent stopped, agent idle", Args: cobra.NoArgs,
		Long: `Measure what a claim of a whole node takes, on this node and as root. The executors are this command's own; the node must lend to
nobody else and must be the only one that lends, because executors go where there is room. Claims are of made-up jobs, which the report
shows as evictions.`,
		Example: "  gleaner bench evict -o evict.json",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.benchEvict(c.Context(), cfg, function, out)
		},
	}
	f := c.Flags()
	f.StringVarP(&out, "out", "o", "", "file for the document with all figures")
	f.StringVar(&cfg.Node, "node", "", "this node's name in slurm.conf; \"\": as in agent.toml")
	f.StringVar(&cfg.Socket, "socket", "", "the agent's socket; \"\": as in agent.toml")
	f.StringVar(&cfg.CgroupParent, "cgroup-parent", "gleaner", "as the launcher has it")
	f.StringVar(&cfg.Hook, "hook", installed("libexec/gleaner/hook"), "the Prolog's program, which has the gate in it; \"\": leave the stopped agent out")
	f.StringVar(&function, "function", installed("lib/gleaner/functions/resident.so"), "the function that holds memory")
	f.IntVar(&cfg.Executors, "executors", 8, "executors of one core")
	f.Var((*memory)(&cfg.Bytes), "resident", "memory that they hold together in the scenario with memory; 0: leave it out")
	f.IntVar(&cfg.Trips, "trips", 1000, "round trips with nothing to evict")
	f.IntVar(&cfg.Rounds, "rounds", 100, "rounds of each eviction")
	f.Var((*duration)(&cfg.Settle), "settle", "how long executors serve before they are evicted")
	f.IntVar(&cfg.HungRounds, "hung-rounds", 20, "rounds with the agent stopped")
	f.Var((*duration)(&cfg.IdleTime), "idle", "how long the idle agent is watched; 0: not")
	cfg.IdleTime = 20 * time.Second
	return c
}

func (a *app) benchEvict(ctx context.Context, cfg owner.Config, function, out string) error {
	if os.Geteuid() != 0 {
		return usage("bench evict speaks to the agent as slurmstepd does: run it as root on the node")
	}
	if err := a.thisNode(&cfg.Node, &cfg.Socket); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cfg.Child, cfg.Progress = []string{self, "bench", "child"}, a.stderr
	if cfg.Resident, err = client.LoadFunction(function); err != nil {
		return &exitError{exitUsage, err}
	}
	if cfg.Client, err = a.dial(); err != nil {
		return err
	}
	defer cfg.Client.Close()
	result, err := owner.Evict(ctx, cfg)
	if len(result.Scenarios) > 0 || result.Idle != nil {
		err = a.deliver(out, evictListing(result), err)
	}
	return err
}

// thisNode fills in what is empty from agent.toml.
func (a *app) thisNode(name, socket *string) error {
	if *name != "" && *socket != "" {
		return nil
	}
	file, err := config.LoadAgent(a.confPath(), *name)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	*name = file.Node.Name
	if *socket == "" {
		*socket = file.Agent.Socket
	}
	return nil
}

func evictListing(r *owner.Result) listing {
	l := listing{
		header:   []string{"what", "rounds", "p50 ms", "p99 ms", "max ms", "bound p50/p99", "baseline p50", "ratio", "freed", "within"},
		numeric:  map[int]bool{1: true, 2: true, 3: true, 4: true, 6: true, 7: true},
		csvNames: []string{"what", "rounds", "p50_ms", "p99_ms", "max_ms", "bound", "baseline_p50_ms", "ratio_p50", "freed_at_answer", "within"},
		document: r,
	}
	for _, s := range r.Scenarios {
		m := s.Measured
		l.rows = append(l.rows, []string{s.What, fmt.Sprint(m.Samples), ms(m.P50), ms(m.P99), ms(m.Max), bound(s.Bound.P50) + "/" + bound(s.Bound.P99),
			ms(s.Baseline.P50), fmt.Sprintf("%.2f", s.Ratio), yesNo(s.Freed), yesNo(s.Within)})
	}
	if i := r.Idle; i != nil {
		what := fmt.Sprintf("idle agent: %.3f %% of a core, %.1f MiB resident (bounds 0.1 %%, 32 MiB)", i.Percent, float64(i.Resident)/(1<<20))
		l.rows = append(l.rows, []string{what, "", "", "", "", "", "", "", "", yesNo(i.Within)})
	}
	return l
}

func ms(v float64) string { return fmt.Sprintf("%.2f", v) }

func bound(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%g", v)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// benchChildCommand is what a measurement runs beside itself.
func (a *app) benchChildCommand() *cobra.Command {
	return &cobra.Command{
		Use: "child hold BYTES | echo PATH", Hidden: true, Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error { return owner.Child(args, a.stdin, a.stdout) },
	}
}
