package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gleaner-hpc/gleaner/bench/owner"
	"github.com/gleaner-hpc/gleaner/client"
	"github.com/gleaner-hpc/gleaner/config"
)

func (a *app) benchGrowthCommand() *cobra.Command {
	cfg := owner.Growth{Rate: 1 << 30}
	var out, function, program, srun string
	c := &cobra.Command{
		Use: "growth", Short: "Measure what a job feels that grows into memory which it has lent", Args: cobra.NoArgs,
		Long: `Start a job that shares and uses little, let this command's executors borrow all that it lends, and have it grow to nearly its allocation:
its longest step and how far it falls behind by its own clock, beside the same growth with nothing lent, and how long the memory takes to come
back, by the cgroup file system alone. The time counts from the moment at which the job's use and what is lent are its allocation, or, when
the memory is back by then, from the growth's beginning. Run it on the node, which must lend to nobody else and be the only one that lends;
with all of the node's memory in the job, all that is lent is the job's. A short window and settle in agent.toml's [lend] make rounds short.`,
		Example: `  gleaner bench growth --srun "srun --gleaner=yes -w node7 -n1 -c8 --mem=64G" --executors 8 -o growth.json`,
		RunE: func(c *cobra.Command, _ []string) error {
			if cfg.Rounds < 1 || cfg.Executors < 1 || cfg.Rate < 1<<20 || srun == "" {
				return usage("--rounds and --executors take positive values, --rate 1M or more, --srun a command")
			}
			cfg.Job = append(strings.Fields(srun), program)
			return a.benchGrowth(c.Context(), cfg, function, out)
		},
	}
	f := c.Flags()
	f.StringVarP(&out, "out", "o", "", "file for the document with all figures")
	f.StringVar(&srun, "srun", "srun --gleaner=yes -n1 -c1 --mem=0", "how the job is started")
	f.StringVar(&cfg.Node, "node", "", "this node's name in slurm.conf; \"\": as in agent.toml")
	f.StringVar(&cfg.CgroupParent, "cgroup-parent", "gleaner", "as the launcher has it")
	f.StringVar(&cfg.Policy, "policy", "", "name of the broker's policy, for the document")
	f.IntVar(&cfg.Rounds, "rounds", 20, "rounds with executors, and as many without")
	f.IntVar(&cfg.Executors, "executors", 1, "executors of one core, which share what is lent")
	f.Var((*memory)(&cfg.Rate), "rate", "memory that the job takes each second")
	f.StringVar(&program, "program", installed("libexec/gleaner/grow"), "the job's program")
	f.StringVar(&function, "function", installed("lib/gleaner/functions/resident.so"), "the function that holds memory")
	return c
}

func (a *app) benchGrowth(ctx context.Context, cfg owner.Growth, function, out string) error {
	if cfg.Node == "" {
		if err := a.thisNode(&cfg.Node, new(string)); err != nil {
			return err
		}
	}
	var err error
	if cfg.Resident, err = client.LoadFunction(function); err != nil {
		return &exitError{exitUsage, err}
	}
	if cfg.Client, err = a.dial(); err != nil {
		return err
	}
	defer cfg.Client.Close()
	cfg.Progress = a.stderr
	result, err := owner.Grow(ctx, cfg)
	if result.Figures[0].Baseline.Samples == 0 {
		return err
	}
	return a.deliver(out, growthListing(result), err)
}

func growthListing(r *owner.GrowthResult) listing {
	l := listing{
		header:   []string{"what", "rounds", "p50 ms", "p99 ms", "max ms", "bound", "alone p50", "alone max", "within"},
		numeric:  map[int]bool{1: true, 2: true, 3: true, 4: true, 5: true, 6: true, 7: true},
		csvNames: []string{"what", "rounds", "p50_ms", "p99_ms", "max_ms", "bound_ms", "alone_p50_ms", "alone_max_ms", "within"},
		document: r,
	}
	for _, f := range r.Figures {
		m, alone := f.Measured, []string{"", ""}
		if f.Baseline.Samples > 0 {
			alone = []string{ms(f.Baseline.P50), ms(f.Baseline.Max)}
		}
		within := ""
		if f.Bound != (owner.Bound{}) {
			within = yesNo(f.Within)
		}
		l.rows = append(l.rows, []string{f.What, fmt.Sprint(m.Samples), ms(m.P50), ms(m.P99), ms(m.Max), bound(f.Bound.Max), alone[0], alone[1], within})
	}
	killed := fmt.Sprintf("killed for lack of memory, on the whole machine; %s borrowed of %s", config.FormatMemory(r.Borrowed), config.FormatMemory(r.Allocation))
	l.rows = append(l.rows, []string{killed, "", "", "", fmt.Sprint(r.Killed), "0", "", "", yesNo(r.Killed == 0)})
	for _, why := range r.Invalid {
		l.rows = append(l.rows, []string{"invalid round: " + why, "", "", "", "", "", "", "", ""})
	}
	return l
}
