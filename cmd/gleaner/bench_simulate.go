package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/gleaner-hpc/gleaner/bench"
	"github.com/gleaner-hpc/gleaner/policies"
	"github.com/gleaner-hpc/gleaner/simulate"
	"github.com/gleaner-hpc/gleaner/simulate/trace"
)

// simulateResult is what 'bench simulate' reports.
type simulateResult struct {
	Schema      string             `json:"schema"`
	Nodes       int                `json:"nodes"`
	Jobs        int                `json:"jobs"`
	Days        float64            `json:"days"`
	Placements  int                `json:"executors_placed"`
	WallSeconds float64            `json:"wall_seconds"`
	CPUSeconds  float64            `json:"cpu_seconds"`
	PeakBytes   uint64             `json:"peak_resident_bytes"`
	BoundWall   float64            `json:"bound_wall_seconds"`
	BoundBytes  uint64             `json:"bound_bytes"`
	Within      bool               `json:"within"`
	Outcomes    []simulate.Outcome `json:"outcomes"`
	Machine     bench.Machine      `json:"machine"`
}

func (a *app) benchSimulateCommand() *cobra.Command {
	m := trace.Made{Nodes: 40_000, Cores: 64, Jobs: 70_000, Span: 30 * 24 * time.Hour, Load: 0.9, Widest: 512, Seed: 1}
	names, out, cores := []string{"careful"}, "", 0
	c := &cobra.Command{
		Use: "simulate", Short: "Measure the simulator: a month of a large machine, made up", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			result := simulateResult{Schema: "gleaner.bench.simulate/1", Nodes: m.Nodes, Jobs: m.Jobs, Days: m.Span.Hours() / 24, BoundWall: 60, BoundBytes: 2 << 30}
			begin, before := time.Now(), processorTime()
			t, err := trace.Make(m)
			if err != nil {
				return &exitError{exitUsage, err}
			}
			s, err := simulate.Allocate(t)
			if err != nil {
				return err
			}
			cfg := simulate.Config{Seed: m.Seed, Demand: simulate.Demand{Cores: cores}}
			if cores == 0 {
				cfg.Demand.Cores = m.Cores
			}
			for _, name := range names {
				p := policies.Builtin(name)
				if p == nil {
					return usage("--policy %s: want %s", name, strings.Join(policies.Names(), ", "))
				}
				cfg.Policies = append(cfg.Policies, simulate.Named{Name: name, Policy: p})
			}
			r, err := simulate.Run(c.Context(), s, cfg)
			if err != nil {
				return err
			}
			result.WallSeconds, result.CPUSeconds = time.Since(begin).Seconds(), (processorTime() - before).Seconds()
			result.PeakBytes, result.Machine = peakResident(), bench.Here()
			for i := range r.Policies {
				result.Placements += r.Policies[i].Executors
				r.Policies[i].Timeline = nil
			}
			result.Outcomes = r.Policies
			result.Within = result.WallSeconds <= result.BoundWall && result.PeakBytes <= result.BoundBytes
			return a.deliver(out, benchSimulateListing(&result), nil)
		},
	}
	f := c.Flags()
	f.StringVarP(&out, "out", "o", "", "file for the document with all figures")
	f.StringSliceVar(&names, "policy", names, "policies to simulate")
	f.IntVar(&m.Nodes, "nodes", m.Nodes, "nodes of the machine")
	f.IntVar(&m.Cores, "cores-per-node", m.Cores, "CPUs of each")
	f.IntVar(&m.Jobs, "jobs", m.Jobs, "jobs")
	f.IntVar(&m.Widest, "widest", m.Widest, "nodes of the widest job")
	f.Float64Var(&m.Load, "load", m.Load, "share of the machine that jobs ask for")
	f.IntVar(&cores, "cores-per-executor", 0, "cores of each executor; 0: all that a node has")
	f.Uint64Var(&m.Seed, "seed", m.Seed, "of what is made up")
	return c
}

func benchSimulateListing(r *simulateResult) listing {
	return listing{
		header:   []string{"nodes", "jobs", "executors placed", "wall s", "processor s", "peak MiB", "bound", "within"},
		numeric:  map[int]bool{0: true, 1: true, 2: true, 3: true, 4: true, 5: true},
		csvNames: []string{"nodes", "jobs", "executors_placed", "wall_s", "processor_s", "peak_mib", "bound", "within"},
		rows: [][]string{{
			fmt.Sprint(r.Nodes), fmt.Sprint(r.Jobs), fmt.Sprint(r.Placements), fmt.Sprintf("%.1f", r.WallSeconds), fmt.Sprintf("%.1f", r.CPUSeconds),
			fmt.Sprint(r.PeakBytes >> 20), fmt.Sprintf("%.0f s, %d MiB", r.BoundWall, r.BoundBytes>>20), yesNo(r.Within),
		}},
		document: r,
	}
}

// processorTime is what this process has used.
func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peakResident is the most memory that this process has had; 0 when the kernel does not tell.
func peakResident() uint64 {
	text, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, _ := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kb << 10
		}
	}
	return 0
}
