package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gleaner-hpc/gleaner/simulate/trace"
)

func (a *app) estimateCommand() *cobra.Command {
	var f simulateFlags
	var since, until, machine string
	c := &cobra.Command{
		Use: "estimate [FILE]", Short: "What would we have gained? From what sacct says of the past, with nothing installed", Args: cobra.MaximumNArgs(1),
		Long: `Estimate what harvesting would have given in a time that is over. Runs sacct for the jobs and sinfo for the nodes, once each and as you, or
reads FILE, what sacct printed (-: standard input); nothing is installed and no daemon of Gleaner is asked. Jobs of others are seen only by those who may:
run it as SlurmUser, as an operator, or on a FILE. Time that a file does not cover counts as idle: give it --since and --until.`,
		Example: `  gleaner estimate                                        # the last 30 days
  gleaner estimate --since 2026-10-01 --until 2026-11-01 --output html -o october.html
  sacct -anP -S 2026-10-01 -E 2026-11-01 -o ` + trace.SacctFormat + ` | gleaner estimate -`,
		RunE: func(c *cobra.Command, args []string) error {
			window, err := estimateWindow(since, until, len(args) > 0, time.Now())
			if err != nil {
				return err
			}
			in := input{format: "sacct", machine: machine, window: window, shape: f.shape(), seed: f.seed}
			t, source, err := a.estimateTrace(c.Context(), in, args)
			if err != nil {
				return err
			}
			cfg, err := f.config(t)
			if err != nil {
				return err
			}
			return a.simulate(c.Context(), t, cfg, source, f.out)
		},
	}
	f.add(c.Flags(), "idle", "careful")
	c.Flags().StringVar(&since, "since", "", "start, in sacct's forms; \"\": now-30days, or with FILE its first job")
	c.Flags().StringVar(&until, "until", "", "end; \"\": now, or with FILE its last job")
	c.Flags().StringVar(&machine, "machine", "", "file with the nodes, what sinfo --Node --noheader --format='"+trace.NodesFormat+"' prints; \"\": sinfo is run, or with FILE the nodes that jobs ran on")
	return c
}

// estimateWindow reads the times. A file has its own where none are given.
func estimateWindow(since, until string, file bool, now time.Time) (trace.Window, error) {
	if !file && since == "" {
		since = "now-30days"
	}
	if !file && until == "" {
		until = "now"
	}
	var w trace.Window
	for _, x := range []struct {
		text string
		into *time.Time
	}{{since, &w.From}, {until, &w.Until}} {
		if x.text == "" {
			continue
		}
		t, err := parseTime(x.text, now)
		if err != nil {
			return w, &exitError{exitUsage, err}
		}
		*x.into = t.Truncate(time.Second)
	}
	if !w.From.IsZero() && !w.Until.IsZero() && !w.From.Before(w.Until) {
		return w, usage("--since %s is not before --until %s", since, until)
	}
	return w, nil
}

// estimateTrace reads the file, or asks Slurm.
func (a *app) estimateTrace(ctx context.Context, in input, args []string) (*trace.Trace, string, error) {
	nodes, err := in.nodes()
	if err != nil {
		return nil, "", &exitError{exitUsage, err}
	}
	switch {
	case len(args) == 1 && args[0] != "-":
		t, err := in.read(args)
		return t, filepath.Base(args[0]), err
	case len(args) == 1:
		t, err := trace.ReadSacct("standard input", a.stdin, time.Local, in.window, nodes, in.shape)
		if err != nil {
			return nil, "", &exitError{exitUsage, err}
		}
		return t, "standard input", nil
	}
	if nodes == nil && in.shape.Nodes == 0 {
		text, err := a.slurm(ctx, "sinfo", "--Node", "--noheader", "--format="+trace.NodesFormat)
		if err != nil {
			return nil, "", err
		}
		if nodes, err = trace.ReadNodes("sinfo", bytes.NewReader(text)); err != nil {
			return nil, "", err
		}
	}
	const layout = "2006-01-02T15:04:05"
	text, err := a.slurm(ctx, "sacct", "--allusers", "--parsable2", "--noconvert", "--format="+trace.SacctFormat,
		"--starttime="+in.window.From.Local().Format(layout), "--endtime="+in.window.Until.Local().Format(layout))
	if err != nil {
		return nil, "", err
	}
	t, err := trace.ReadSacct("sacct", bytes.NewReader(text), time.Local, in.window, nodes, in.shape)
	if errors.Is(err, trace.ErrEmpty) {
		return nil, "", fmt.Errorf("sacct shows no job from %s to %s; does the site keep accounts (slurmdbd), and may you see jobs of others? %w",
			in.window.From.Format(layout), in.window.Until.Format(layout), err)
	}
	return t, "sacct", err
}

// slurm runs one of Slurm's commands once. Its times do not depend on the user's settings.
func (a *app) slurm(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "SLURM_TIME_FORMAT=standard")
	var errors bytes.Buffer
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run %s: %w %s; or give a file that sacct has written", name, err, strings.TrimSpace(errors.String()))
	}
	return out, nil
}
