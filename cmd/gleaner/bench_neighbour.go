package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gleaner-hpc/gleaner/bench/neighbour"
	"github.com/gleaner-hpc/gleaner/client"
	"github.com/gleaner-hpc/gleaner/client/batch"
)

func (a *app) benchNeighbourCommand() *cobra.Command {
	cfg := neighbour.Config{Work: 300 * time.Millisecond, Slice: 50 * time.Millisecond, Patience: 5 * time.Second}
	request := client.Request{Buffer: 4 << 10, Cores: 1, Memory: 192 << 20, Tasks: client.TaskOptions{Depth: 1}}
	var out, function, program, srun string
	c := &cobra.Command{
		Use: "neighbour", Short: "Measure what functions cost a job beside which they run, by kind of work, in pairs with and without them", Args: cobra.NoArgs,
		Long: `Start a job that does one kind of work, on a node that lends what the job leaves, and compare how long a fixed amount of it takes with functions
of each kind beside it and without. The node must be the only one that lends. The table gives the host's slowdown: the median over pairs, and in
the next column the interval that holds it with 95 % confidence (percentile bootstrap); where the bound lies within it, the question is open. Which policy the broker has is the site's business: --policy only
names it in the document.`,
		Example: `  gleaner bench neighbour --srun "srun -w node7 -n1 -c16 --mem=8G" --executors 16 --policy pressure -o neighbour.json`,
		RunE: func(c *cobra.Command, _ []string) error {
			for _, kind := range slices.Concat(cfg.Hosts, cfg.Functions) {
				if !slices.Contains(neighbour.Kinds, kind) {
					return usage("kind of work %q: want %s", kind, strings.Join(neighbour.Kinds, ", "))
				}
			}
			if cfg.Pairs < 1 || request.Executors < 1 || cfg.Work < time.Millisecond || cfg.Slice < time.Millisecond || srun == "" {
				return usage("--pairs, --executors, --work and --slice take positive values, --srun a command")
			}
			var err error
			if request.Function, err = client.LoadFunction(function); err != nil {
				return &exitError{exitUsage, err}
			}
			cfg.Host = append(strings.Fields(srun), program)
			return a.benchNeighbour(c.Context(), cfg, request, out)
		},
	}
	f := c.Flags()
	f.StringVarP(&out, "out", "o", "", "file for the document with all figures")
	f.StringVar(&srun, "srun", "srun -n1 -c1 --mem=512M", "how the host's program is started")
	f.StringVar(&cfg.Policy, "policy", "", "name of the broker's policy, for the document")
	f.StringSliceVar(&cfg.Hosts, "host", neighbour.Kinds, "kinds of the host's work")
	f.StringSliceVar(&cfg.Functions, "function-kind", neighbour.Kinds, "kinds of the functions' work")
	f.IntVar(&cfg.Pairs, "pairs", 20, "pairs of each")
	f.IntVar(&request.Executors, "executors", 1, "executors of one core beside the host")
	f.Var((*memory)(&request.Memory), "mem-per-executor", "memory of each executor; bandwidth takes 64 MiB of it")
	f.Var((*duration)(&cfg.Work), "work", "how long the host's work takes alone")
	f.Var((*duration)(&cfg.Slice), "slice", "how long one invocation takes")
	f.StringVar(&program, "program", installed("libexec/gleaner/neighbour"), "the host's program")
	f.StringVar(&function, "function", installed("lib/gleaner/functions/stress.so"), "the function")
	return c
}

func (a *app) benchNeighbour(ctx context.Context, cfg neighbour.Config, request client.Request, out string) error {
	broker, err := a.dial()
	if err != nil {
		return err
	}
	defer broker.Close()
	lease, err := broker.Acquire(ctx, request)
	if err != nil {
		return err
	}
	cfg.Invoke, cfg.Load = lease.Invoke, request.Executors
	cfg.Executors = func() int { return lease.Counts().Executors }
	cfg.Progress = func(what string) { fmt.Fprintln(a.stderr, "measuring:", what) }
	result, err := neighbour.Run(ctx, cfg)
	release, cancel := context.WithTimeout(context.WithoutCancel(ctx), batch.ReleaseTimeout)
	defer cancel()
	if e := lease.Release(release); err == nil {
		err = e
	}
	if len(result.Cells) == 0 {
		return err
	}
	return a.deliver(out, neighbourListing(result), err)
}

func neighbourListing(r *neighbour.Result) listing {
	l := listing{
		header:   []string{"policy", "host", "function", "pairs", "slowdown", "95 % interval", "bound", "invocations", "within"},
		numeric:  map[int]bool{3: true, 4: true, 5: true, 6: true, 7: true},
		csvNames: []string{"policy", "host", "function", "pairs", "slowdown", "low", "high", "bound", "invocations", "within"},
		document: r,
	}
	for _, c := range r.Cells {
		percent := func(x float64) string { return fmt.Sprintf("%+.1f %%", 100*x) }
		plain := func(x float64) string { return fmt.Sprintf("%.5f", x) }
		s, pairs, calls, within := c.Slowdown, fmt.Sprint(c.Pairs), fmt.Sprint(c.Calls), yesNo(c.Within)
		if !c.Told {
			within = "open"
		}
		l.rows = append(l.rows, []string{r.Policy, c.Host, c.Function, pairs, percent(s.Median), percent(s.Low) + " … " + percent(s.High),
			fmt.Sprintf("%.0f %%", 100*c.Bound), calls, within})
		l.machine = append(l.machine, []string{r.Policy, c.Host, c.Function, pairs, plain(s.Median), plain(s.Low), plain(s.High), plain(c.Bound), calls, within})
	}
	return l
}
