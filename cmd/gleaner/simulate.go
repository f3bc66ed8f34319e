package main

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gleaner-hpc/gleaner/client/batch"
	"github.com/gleaner-hpc/gleaner/policies"
	"github.com/gleaner-hpc/gleaner/simulate"
	"github.com/gleaner-hpc/gleaner/simulate/trace"
)

// simulateFlags are what simulate and estimate have in common.
type simulateFlags struct {
	policies      []string
	lengths       string
	distribution  string
	cores         int
	memory        memory
	seed          uint64
	nodes         int
	nodeCores     int
	nodeMemory    memory
	startup       duration
	round         duration
	delayEvicting duration
	delayQuiet    duration
	out           string
}

func (f *simulateFlags) add(flags *pflag.FlagSet, names ...string) {
	f.memory, f.round, f.startup = 256<<20, duration(time.Second), duration(100*time.Millisecond)
	f.delayEvicting, f.delayQuiet = duration(15*time.Millisecond), duration(4*time.Millisecond)
	flags.StringSliceVar(&f.policies, "policy", names, "policies to compare: "+strings.Join(policies.Names(), ", ")+", or the absolute path of a site's own")
	flags.StringVar(&f.lengths, "length", "1s-60s", "how long functions take: FROM-TO, or one time")
	flags.StringVar(&f.distribution, "distribution", string(simulate.Uniform), "how lengths are drawn: uniform, loguniform or exponential")
	flags.IntVar(&f.cores, "cores-per-executor", 1, "cores of each executor; 0: all that a node has")
	flags.Var(&f.memory, "mem-per-executor", "memory of each executor")
	flags.Uint64Var(&f.seed, "seed", 1, "of what is drawn; the same seed gives the same result")
	flags.IntVar(&f.nodes, "nodes", 0, "nodes of the machine; 0: as the trace says")
	flags.IntVar(&f.nodeCores, "cores-per-node", 0, "CPUs of each node; 0: as the trace says")
	flags.Var(&f.nodeMemory, "mem-per-node", "memory of each node; 0: as the trace says")
	flags.Var(&f.round, "round", "how often the broker decides at most")
	flags.Var(&f.startup, "startup", "from the decision until a function runs")
	flags.Var(&f.delayEvicting, "delay-evicting", "what a job's start waits where executors go; see 'gleaner bench evict'")
	flags.Var(&f.delayQuiet, "delay-quiet", "what a job's start waits where none do")
	flags.StringVarP(&f.out, "out", "o", "", "file to write to instead of standard output")
}

func (f *simulateFlags) shape() trace.Shape {
	return trace.Shape{Nodes: f.nodes, Cores: f.nodeCores, Memory: uint64(f.nodeMemory)}
}

// config builds the run; the schedule's trace says how large a node is.
func (f *simulateFlags) config(t *trace.Trace) (simulate.Config, error) {
	from, to, isRange := strings.Cut(f.lengths, "-")
	var low, high duration
	err := low.Set(from)
	if high = low; err == nil && isRange {
		err = high.Set(to)
	}
	if err != nil {
		return simulate.Config{}, usage("--length %s: want FROM-TO, such as 1s-60s", f.lengths)
	}
	c := simulate.Config{
		Seed: f.seed, Round: time.Duration(f.round), Startup: time.Duration(f.startup),
		DelayEvicting: time.Duration(f.delayEvicting), DelayQuiet: time.Duration(f.delayQuiet),
		Demand: simulate.Demand{
			Lengths: simulate.Lengths{Distribution: simulate.Distribution(f.distribution), Min: time.Duration(low), Max: time.Duration(high)},
			Cores:   f.cores, Memory: uint64(f.memory),
		},
	}
	if f.cores == 0 {
		for _, n := range t.Nodes {
			c.Demand.Cores = max(c.Demand.Cores, n.Cores)
		}
	}
	if err := c.Demand.Lengths.Check(); err != nil {
		return c, &exitError{exitUsage, err}
	}
	for _, name := range f.policies {
		p := policies.Builtin(name)
		if p == nil && !filepath.IsAbs(name) {
			return c, usage("--policy %s: want %s, or the absolute path of a program", name, strings.Join(policies.Names(), ", "))
		}
		c.Policies = append(c.Policies, simulate.Named{Name: name, Policy: p}) // programs are started when all is known to be right
	}
	return c, nil
}

func (a *app) simulateCommand() *cobra.Command {
	var f simulateFlags
	var format, demand, machine string
	c := &cobra.Command{
		Use: "simulate TRACE...", Short: "Replay a trace of jobs: what would which policy have harvested?", Args: cobra.MinimumNArgs(1),
		Long: `Replay what a machine did and let policies, placement, ledgers and eviction plans decide as they do on a cluster. Nothing is contacted.

TRACE is a log in the Standard Workload Format, what 'sacct --parsable2' prints, or snapshots that count nodes (CSV with date, idle_nodes,
other_nodes, total_nodes; several files, or a folder of them). Each may be compressed with gzip.

Functions run without end, unless --demand names a second trace, each of whose jobs is a function. The same seed gives the same bytes.`,
		Example: `  gleaner simulate log.swf --policy idle,careful --length 1s-60s
  sacct -anP -S now-30days -o ` + trace.SacctFormat + ` > jobs; gleaner simulate jobs --output html -o jobs.html`,
		RunE: func(c *cobra.Command, files []string) error {
			in := input{format: format, machine: machine, shape: f.shape(), seed: f.seed}
			t, err := in.read(files)
			if err != nil {
				return err
			}
			cfg, err := f.config(t)
			if err != nil {
				return err
			}
			if demand != "" {
				second := input{shape: trace.Shape{}}
				if cfg.Demand.Trace, err = second.read([]string{demand}); err != nil {
					return err
				}
			}
			names := make([]string, len(files))
			for i, file := range files {
				names[i] = filepath.Base(file)
			}
			return a.simulate(c.Context(), t, cfg, strings.Join(names[:min(3, len(names))], ", "), f.out)
		},
	}
	f.add(c.Flags(), "idle", "careful")
	c.Flags().StringVar(&format, "format", "", "of the trace: swf, sacct or snapshots; \"\": found out")
	c.Flags().StringVar(&machine, "machine", "", "file with the nodes, for sacct's output: what sinfo --Node --noheader --format='"+trace.NodesFormat+"' prints")
	c.Flags().StringVar(&demand, "demand", "", "a second trace, whose jobs are the functions")
	return c
}

// simulate runs, and writes in the form that was asked for.
func (a *app) simulate(ctx context.Context, t *trace.Trace, cfg simulate.Config, source, out string) error {
	schedule, err := simulate.Allocate(t)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	stop, err := sitePolicies(ctx, fail, cfg.Policies)
	defer stop()
	if err != nil {
		return err
	}
	r, err := simulate.Run(ctx, schedule, cfg)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return err
	}
	r.Source = source
	var text bytes.Buffer
	to := *a
	to.stdout = &text
	switch a.output {
	case "html":
		err = r.WriteHTML(&text)
	case "text":
		fmt.Fprintf(&text, "%s: %s.\nSimulated: %s.\n", source, r.Machine(), r.Functions())
		for i := range r.Policies {
			fmt.Fprintln(&text, r.Sentence(&r.Policies[i]))
		}
		fmt.Fprintln(&text)
		if err = to.print(simulateListing(r)); err == nil {
			fmt.Fprintf(&text, "\n%s\n", strings.Join(r.Notes, "\n"))
		}
	default:
		err = to.print(simulateListing(r))
	}
	if err != nil {
		return err
	}
	if out != "" {
		return batch.Write(out, text.Bytes())
	}
	_, err = a.stdout.Write(text.Bytes())
	return err
}

func simulateListing(r *simulate.Report) listing {
	l := listing{
		header:  []string{"policy", "idle core-h", "used core-h", "of idle", "lost work", "idle GiB-h", "held GiB-h", "functions", "evictions", "jobs", "touched", "added wait", "longest"},
		numeric: map[int]bool{},
		csvNames: []string{"policy", "idle_core_hours", "used_core_hours", "used_share", "lost_share", "idle_gib_hours", "held_gib_hours", "functions_finished", "evictions",
			"jobs", "jobs_touched", "added_wait_s", "longest_wait_ms"},
		document: r,
	}
	for i := 1; i < len(l.header); i++ {
		l.numeric[i] = true
	}
	const hour, gibHour = 3600, 3600 << 30
	for i := range r.Policies {
		o := &r.Policies[i]
		figures := []float64{
			o.CPU.Idle / hour, o.CPU.Finished / hour, o.UsedShare, o.LostShare, o.Memory.Idle / gibHour, o.Memory.Harvested / gibHour, float64(o.Functions.Finished),
			float64(o.Evictions), float64(o.Jobs.Started), float64(o.Jobs.Evicting), o.Jobs.DelaySeconds, float64(o.Jobs.DelayMost) / 1e6,
		}
		forms := []string{"%.1f", "%.1f", "%.1f %%", "%.2f %%", "%.0f", "%.0f", "%.0f", "%.0f", "%.0f", "%.0f", "%.1f s", "%.0f ms"}
		row, machine := []string{o.Policy}, []string{o.Policy}
		for k, x := range figures {
			machine = append(machine, fmt.Sprintf("%.6g", x))
			if strings.HasSuffix(forms[k], "%%") {
				x *= 100
			}
			row = append(row, fmt.Sprintf(forms[k], x))
		}
		l.rows, l.machine = append(l.rows, row), append(l.machine, machine)
	}
	return l
}
