package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/gleaner-hpc/gleaner/client"
	"github.com/gleaner-hpc/gleaner/client/batch"
)

type mapFlags struct {
	lease      leaseFlags
	out        string
	lines      string
	force      bool
	failEmpty  bool
	summary    string
	failedList string
}

func (a *app) mapCommand() *cobra.Command {
	var f mapFlags
	c := &cobra.Command{
		Use: "map FUNCTION INPUTS... --out TEMPLATE", Short: "Run a function on many inputs, one result file each", Args: cobra.MinimumNArgs(1),
		Long: `Run a function once per input file, or per line of --lines, and write each result to its own file.

TEMPLATE names result files with {name} {stem} {ext} {dir} {index}: results/{stem}.jpg. Results that exist are skipped, so the same command
again runs only what is missing; --force runs all. Tasks whose executor Slurm took back run again elsewhere. FUNCTION is
path/to/lib.so:symbol. Inside a Slurm job the lease ends with the job.`,
		Example: `  gleaner map lib/libthumbnailer.so photos/*.jpg --out small/{stem}.jpg --executors 8 --mem-per-executor 512M`,
		RunE:    func(c *cobra.Command, args []string) error { return a.runMap(c.Context(), &f, args) },
	}
	f.lease.add(c.Flags(), a.getenv)
	c.Flags().StringVarP(&f.out, "out", "o", "", "template of result files (required)")
	c.Flags().StringVar(&f.lines, "lines", "", "one task per line of this file (- for standard input) instead of per input file")
	c.Flags().BoolVar(&f.force, "force", false, "run also what has a result already")
	c.Flags().BoolVar(&f.failEmpty, "fail-empty", false, "count an empty result as a failure: functions have no other way to refuse an input")
	c.Flags().StringVar(&f.summary, "summary", "", "file for the summary as JSON")
	c.Flags().StringVar(&f.failedList, "failed-list", "", "file for the names of the inputs that failed, one per line")
	return c
}

func (a *app) runMap(ctx context.Context, f *mapFlags, args []string) error {
	function, err := client.LoadFunction(args[0])
	if err != nil {
		return &exitError{exitUsage, err}
	}
	plan, err := a.plan(f, args[1:])
	if err != nil {
		return &exitError{exitUsage, err}
	}
	request, err := f.lease.request(function, len(plan.Items), plan.Largest, a.getenv)
	if err != nil {
		return err
	}
	if err := plan.MakeFolders(); err != nil {
		return &exitError{exitUsage, err}
	}
	for flag, file := range map[string]string{"--summary": f.summary, "--failed-list": f.failedList} {
		if file == "" {
			continue
		}
		if err := batch.MakeFolder(file); err != nil {
			return usage("%s: %w", flag, err)
		}
	}
	summary, err := a.execute(ctx, plan, request, f.failEmpty)
	if e := a.writeSummary(f, &summary); e != nil {
		err = errors.Join(err, e)
	}
	if summary.Lease == 0 && err != nil && ctx.Err() == nil {
		return err // nothing ran, and the same command again fares no better
	}
	if e := a.printSummary(&summary); e != nil {
		err = errors.Join(err, e)
	}
	return a.verdict(ctx, &summary, err)
}

func (a *app) plan(f *mapFlags, inputs []string) (*batch.Plan, error) {
	if f.out == "" {
		return nil, errors.New("--out is missing: write where results go, such as --out results/{stem}.out")
	}
	var items []batch.Item
	var err error
	switch {
	case f.lines != "" && len(inputs) > 0:
		return nil, errors.New("give either input files or --lines, not both")
	case f.lines == "-":
		items, err = batch.Lines(a.stdin)
	case f.lines != "":
		var file *os.File
		if file, err = os.Open(f.lines); err == nil {
			defer file.Close()
			items, err = batch.Lines(file)
		}
	default:
		items, err = batch.Files(inputs)
	}
	if err != nil {
		return nil, err
	}
	if len(items) == 0 && f.lines != "" {
		return nil, fmt.Errorf("no inputs: --lines %s has only empty lines", f.lines)
	}
	if len(items) == 0 {
		return nil, errors.New("no inputs: name files, or a file of lines with --lines")
	}
	return batch.NewPlan(items, f.out, f.force)
}

// brokerPatience is longer than the restart of a broker takes.
const brokerPatience = time.Minute

// execute runs the plan; a plan with nothing to do needs no broker.
func (a *app) execute(ctx context.Context, plan *batch.Plan, request client.Request, failEmpty bool) (batch.Summary, error) {
	if len(plan.Items) == 0 {
		return batch.Run(ctx, batch.Config{Plan: plan})
	}
	broker, err := a.dial()
	if err != nil {
		return batch.Summary{}, err
	}
	defer broker.Close()
	var shown *progress
	stop := func() {
		if shown != nil {
			shown.stop()
			shown = nil
		}
	}
	defer stop()
	done := 0
	return batch.Run(ctx, batch.Config{
		Plan: plan, FailEmpty: failEmpty, Patience: brokerPatience,
		Acquire: func(ctx context.Context) (batch.Lease, error) {
			stop()
			answered := a.await(ctx, broker, request.Job)
			lease, err := broker.Acquire(ctx, request)
			answered()
			if err != nil {
				return nil, err
			}
			shown = a.follow(lease, len(plan.Items)-done)
			return lease, nil
		},
		Each: func(_ batch.Item, err error) {
			done++
			shown.ends(err)
		},
		Warn: func(err error) {
			stop()
			a.warn(err)
		},
	})
}

// verdict turns a map's end into an exit code.
func (a *app) verdict(ctx context.Context, s *batch.Summary, err error) error {
	if s.Schema == "" {
		return err // it never began
	}
	if s.Left > 0 {
		code := a.codeOf(ctx, err)
		return &exitError{code, fmt.Errorf("%s: %d of %d tasks are left; run the same command again to resume with these", describeEnd(ctx, err), s.Left, s.Tasks)}
	}
	if err != nil {
		return err
	}
	if s.Failed > 0 {
		return &exitError{exitFailed, nil}
	}
	return nil
}

func describeEnd(ctx context.Context, err error) string {
	if ctx.Err() != nil {
		return "interrupted"
	}
	return err.Error()
}

// codeOf is the exit code that an error alone would give.
func (a *app) codeOf(ctx context.Context, err error) int {
	quiet := app{stderr: discard{}, getenv: a.getenv}
	return quiet.finish(ctx, err)
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
