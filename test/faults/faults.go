// Package faults is the fault suite: on a cluster of its own, function jobs run all the time while batch jobs come and go, and at random
// moments one thing breaks: a daemon, an executor, a disk, a socket, a clock. It believes none of Gleaner's words: what is harvested it
// reads from the cgroup file systems, what is a job's it knows because it submitted the job, and whether the owner came first is the
// witness's to say, as the first process of each job.
//
// A seed replays the same faults, jobs and maps in the same order; the moment at which they meet is the machine's.
package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gleaner-hpc/gleaner/test/cluster"
	"github.com/gleaner-hpc/gleaner/test/functions"
)

// Config says what to break and where.
type Config struct {
	Dir    string // of the cluster, which is brought up and taken down
	Build  string // "" means build/ beside go.mod
	Seed   uint64
	Faults int
	Only   string // a kind, or the beginning of several; "" means all
	Log    func(format string, args ...any)
	Keep   string // folder for the daemons' logs when something was violated; "" keeps none
}

const (
	nodes     = 4
	cpus      = 8
	memoryMiB = 4000
	stateMiB  = 24
)

// run is one run of the suite.
type run struct {
	cfg     Config
	c       *cluster.Cluster
	lib     string // the functions
	folder  string // for what jobs and maps write
	began   time.Time
	aim     aim
	shapes  shapes
	mu      sync.Mutex
	report  Report
	current string // the fault under way

	slurmKills atomic.Int32 // of slurmctld and slurmd
}

// Run breaks things and reports. An error means that the suite itself could not work; violations are in the report.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	r := &run{cfg: cfg, began: time.Now()}
	r.report = Report{Schema: Schema, Seed: cfg.Seed, Kinds: map[string]*Count{}, Violations: []Violation{}, Errors: map[string]int{}}
	if err := r.up(ctx); err != nil {
		return nil, err
	}
	plan := Plan(cfg.Seed, cfg.Faults, r.kinds())
	r.breakThings(ctx, plan)
	r.end()
	return &r.report, nil
}

func (r *run) up(ctx context.Context) error {
	o := cluster.Options{
		Dir: r.cfg.Dir, Build: r.cfg.Build, Nodes: nodes, CPUs: cpus, MemoryMiB: memoryMiB, StateMiB: stateMiB,
		Programs: r.stepped(), SlurmConf: []string{"KillWait=2", "SlurmctldTimeout=10", "MessageTimeout=10"},
	}
	c, err := cluster.Up(ctx, o)
	if err != nil {
		return err
	}
	r.c = c
	if skipped := c.Skipped(); len(skipped) > 0 {
		return errors.Join(fmt.Errorf("not everything is there: %v", skipped), c.Down())
	}
	if r.lib, err = functions.Build(c.Dir); err == nil {
		r.folder, err = os.MkdirTemp(c.Dir, "work")
	}
	if err == nil {
		err = os.Chmod(r.folder, 0o777)
	}
	if err != nil {
		return errors.Join(err, c.Down())
	}
	return nil
}

// stepped are the daemons whose clock can be stepped, as far as they are built.
func (r *run) stepped() map[string]string {
	build := r.cfg.Build
	if build == "" {
		build = cluster.Build()
	}
	found := map[string]string{}
	for _, kind := range []string{"agentd", "brokerd"} {
		path := filepath.Join(build, "tools", "stepped", "gleaner-"+kind)
		if _, err := os.Stat(path); err == nil {
			found[kind] = path
		}
	}
	return found
}

func (r *run) breakThings(ctx context.Context, plan []Fault) {
	work, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	for n := range 2 {
		running.Go(func() { r.maps(work, n) })
	}
	for n := range 3 {
		running.Go(func() { r.jobs(work, n) })
	}
	sampling, over := context.WithCancel(context.WithoutCancel(ctx))
	var sampler sync.WaitGroup
	sampler.Go(func() { r.sample(sampling) })
	for n, f := range plan {
		if ctx.Err() != nil {
			break
		}
		r.one(ctx, n, f)
	}
	stop() // what runs is waited for; nothing new begins
	running.Wait()
	over()
	sampler.Wait()
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
