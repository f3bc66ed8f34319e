package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gleaner-hpc/gleaner/bench/owner"
	"github.com/gleaner-hpc/gleaner/client"
)

func (a *app) benchJobStartCommand() *cobra.Command {
	cfg := owner.StartConfig{With: a.getenv("SLURM_CONF")}
	var out, function string
	c := &cobra.Command{
		Use: "job-start --without-conf FILE", Short: "Measure what Gleaner adds to srun, in pairs with and without it", Args: cobra.NoArgs,
		Long: `Start jobs in turns on a cluster with Gleaner and on one that is the same but for Gleaner, and tell what it adds to the time from srun's
start to its end. Both have one node; the other cluster may be a second set of daemons on the same machines.`,
		RunE: func(c *cobra.Command, _ []string) error { return a.benchJobStart(c.Context(), cfg, function, out) },
	}
	f := c.Flags()
	f.StringVarP(&out, "out", "o", "", "file for the document with all figures")
	f.StringVar(&cfg.With, "conf", cfg.With, "slurm.conf of the cluster with Gleaner")
	f.StringVar(&cfg.Without, "without-conf", "", "slurm.conf of the cluster without")
	f.StringVar(&function, "function", installed("lib/gleaner/functions/resident.so"), "the function of the executors")
	f.IntVar(&cfg.Pairs, "pairs", 50, "pairs with nothing to evict")
	f.IntVar(&cfg.Evictions, "evictions", 50, "pairs with the node full of executors")
	f.IntVar(&cfg.Executors, "executors", 8, "executors of one core")
	return c
}

func (a *app) benchJobStart(ctx context.Context, cfg owner.StartConfig, function, out string) error {
	if cfg.With == "" || cfg.Without == "" {
		return usage("bench job-start compares two clusters: give --without-conf, and --conf or SLURM_CONF")
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
	result, err := owner.JobStart(ctx, cfg)
	if len(result.Starts) > 0 {
		err = a.deliver(out, startListing(result), err)
	}
	return err
}

func startListing(r *owner.StartResult) listing {
	l := listing{
		header:   []string{"what", "pairs", "with p50 ms", "without p50 ms", "added median ms", "added max ms", "bound", "ratio", "within"},
		numeric:  map[int]bool{1: true, 2: true, 3: true, 4: true, 5: true, 6: true, 7: true},
		csvNames: []string{"what", "pairs", "with_p50_ms", "without_p50_ms", "added_median_ms", "added_max_ms", "bound_ms", "ratio_p50", "within"},
		document: r,
	}
	for _, s := range r.Starts {
		l.rows = append(l.rows, []string{s.What, fmt.Sprint(s.With.Samples), ms(s.With.P50), ms(s.Without.P50), ms(s.AddedMedian), ms(s.AddedMax),
			bound(s.Bound), fmt.Sprintf("%.2f", s.Ratio), yesNo(s.Within)})
	}
	return l
}
