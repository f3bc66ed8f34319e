package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/test/cluster"
)

// site is one of the ways in which Slurm is told to ask for its resources back.
type site struct {
	folder  string
	without []string
	contain bool // PrologFlags=Contain: each node has an extern step before any other
}

func (s site) gated() bool { return s.without == nil }

var sites = map[string]site{
	"gate and Prolog":      {"-gate", nil, true},
	"gate without Contain": {"-steps", nil, false},
	"Prolog alone":         {"-prolog", []string{"gate"}, true},
}

// slurmLines let jobs be preempted, share cores and grow, which a bare slurm.conf does not.
func slurmLines(reboot string) []string {
	return []string{
		"PreemptType=preempt/partition_prio",
		"PreemptMode=SUSPEND,GANG",
		"SchedulerTimeSlice=300",
		"SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,nohold_on_prolog_fail,permit_job_expansion,bf_interval=1",
		"KillWait=1",
		"RebootProgram=" + reboot,
		"PartitionName=DEFAULT Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF",
		"PartitionName=scavenge PriorityTier=1 PreemptMode=REQUEUE",
		"PartitionName=sleepy PriorityTier=1 PreemptMode=SUSPEND",
		"PartitionName=urgent PriorityTier=5",
		"PartitionName=crowded OverSubscribe=FORCE:2",
	}
}

const (
	siteNodes = 2
	full      = 8 // executors on a node while no job runs: one on each core
)

// trial is one way in which a job comes and goes, on a site whose every core is lent.
type trial struct {
	*testing.T
	c     *cluster.Cluster
	nodes []string
	dir   string // for the findings of the witness
	look  string // command: the witness, as a process of a job
	site  site
}

// bringUp brings a site up and lends all of it to functions that do nothing for ever.
func bringUp(t *testing.T, s site, lines ...string) *cluster.Cluster {
	t.Helper()
	if !s.contain {
		lines = append(lines, "PrologFlags=Alloc")
	}
	c, err := cluster.Up(t.Context(), cluster.Options{
		Dir: folder() + s.folder, Nodes: siteNodes, CPUs: full, Without: s.without, SlurmConf: lines,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			keepLogs(c)
		}
		if err := c.Down(); err != nil {
			t.Error(err)
		}
	})
	w := newWork(t, c, 2*siteNodes*full)
	args := w.args(t, function(t, "idle"), "--executors", strconv.Itoa(siteNodes*full), "--mem-per-executor", "400M")
	var filler sync.WaitGroup
	filler.Go(func() {
		for t.Context().Err() == nil { // a broker that is restarted in the wrong moment costs it its tasks
			cmd := c.Command(t.Context(), "gleaner", args...)
			cmd.Dir = c.Dir
			_ = cmd.Run()
		}
	})
	t.Cleanup(filler.Wait)
	eventually(t, 20*time.Second, "the site is lent", func() bool { return count(c) == siteNodes*full })
	return c
}

func newTrial(t *testing.T, c *cluster.Cluster, s site) *trial {
	t.Helper()
	dir, err := os.MkdirTemp(c.Dir, "findings")
	if err != nil {
		t.Fatal(err)
	}
	x := &trial{T: t, c: c, nodes: c.NodeNames(), dir: dir, look: witness(t, c) + " --patience 10s --out " + dir, site: s}
	t.Cleanup(func() {
		for job := range strings.FieldsSeq(x.run("squeue", "-h", "-o", "%A")) {
			_, _ = try(c, "scancel", job)
		}
		if bad := drained(t, c); len(bad) > 0 {
			t.Errorf("drained or down: %v", bad)
			resume(t, c)
		}
		eventually(t, 20*time.Second, "no job is left", func() bool {
			said, err := try(c, "squeue", "-h")
			return err == nil && said == ""
		})
	})
	return x
}

// count is the number of executors on all nodes.
func count(c *cluster.Cluster) int {
	sum := 0
	for _, node := range c.NodeNames() {
		sum += len(harvested(c, node))
	}
	return sum
}

// lent waits until nodes have as many executors as they have room for. The broker lets a node rest from which executors were evicted,
// each time longer; a new one knows nothing of that.
func (x *trial) lent(executors int, nodes ...string) {
	x.Helper()
	if executors > 0 {
		if err := x.c.Restart(context.Background(), "brokerd"); err != nil {
			x.Fatal(err)
		}
	}
	for _, node := range nodes {
		have := 0
		eventually(x.T, 45*time.Second, fmt.Sprintf("%s has %d executors", node, executors), func() bool {
			all := harvested(x.c, node)
			have = len(all)
			return have == executors && started(all) == executors
		}, func() string {
			said, _ := try(x.c, "gleaner", "nodes")
			return fmt.Sprintf("it has %d\n%s", have, said)
		})
	}
}

// settled waits until all that a node can lend beside its jobs is lent, and has started.
func (x *trial) settled(node string) {
	x.Helper()
	eventually(x.T, 45*time.Second, "all that "+node+" can lend is lent", func() bool {
		var list struct {
			Nodes []struct {
				Node      string
				Executors int
				Free      struct{ Cores int }
			}
		}
		said, err := try(x.c, "gleaner", "nodes", "--output", "json")
		if err != nil || json.Unmarshal([]byte(said), &list) != nil {
			return false
		}
		for _, n := range list.Nodes {
			all := harvested(x.c, node)
			if n.Node == node {
				return n.Free.Cores == 0 && n.Executors == len(all) && started(all) == len(all)
			}
		}
		return false
	})
}

// started counts the executors that have a worker. One that is just starting is alone in a cgroup that may have no bounds yet.
func started(all map[string][]int) int {
	n := 0
	for _, pids := range all {
		if len(pids) > 1 {
			n++
		}
	}
	return n
}

type finding struct {
	Job, Step, Node string
	OwnerFirst      bool `json:"owner_first"`
	Untold          bool // slurmctld did not say what the job holds, and nothing else is wrong
	Violations      []string
	Harvested       []struct{ ID string }
}

// findings are what witnesses have said so far.
func (x *trial) findings() []finding {
	x.Helper()
	var all []finding
	files, _ := filepath.Glob(filepath.Join(x.dir, "*.json"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			x.Fatal(err)
		}
		var f finding
		if err := json.Unmarshal(text, &f); err != nil {
			x.Fatalf("%s: %v", text, err)
		}
		all = append(all, f)
	}
	return all
}

// sees waits for the findings of so many witnesses, all of which have to say that the owner came first, and forgets them.
func (x *trial) sees(count int) {
	x.Helper()
	var all []finding
	eventually(x.T, 20*time.Second, fmt.Sprintf("%d witnesses have spoken", count), func() bool {
		all = x.findings()
		return len(all) >= count
	}, func() string {
		said, _ := try(x.c, "squeue", "-o", "%i %T %r %N")
		outs, _ := filepath.Glob(filepath.Join(x.c.Dir, "job*", "out"))
		last := ""
		if len(outs) > 0 {
			text, _ := os.ReadFile(slices.MaxFunc(outs, byTime))
			last = string(text)
		}
		return fmt.Sprintf("only %+v\n%s\nthe last job printed: %s", all, said, last)
	})
	for _, f := range all {
		if nothing := f.Untold && len(f.Harvested) == 0; !f.OwnerFirst && !nothing {
			x.Errorf("job %s step %s on %s: something harvested holds what is the job's: %s; harvested %v",
				f.Job, f.Step, f.Node, strings.Join(f.Violations, "; "), f.Harvested)
		}
	}
	files, _ := filepath.Glob(filepath.Join(x.dir, "*.json"))
	for _, file := range files {
		_ = os.Remove(file)
	}
}

func byTime(a, b string) int {
	var times [2]time.Time
	for i, path := range []string{a, b} {
		if info, err := os.Stat(path); err == nil {
			times[i] = info.ModTime()
		}
	}
	return times[0].Compare(times[1])
}

func (x *trial) sbatch(script string, options ...string) *job {
	x.Helper()
	return sbatch(x.T, x.c, script, options...)
}

func (x *trial) run(name string, args ...string) string {
	x.Helper()
	return output(x.T, x.c, name, args...)
}

// update is scontrol update; slurmctld asks to be patient with jobs that have just started.
func (x *trial) update(words ...string) {
	x.Helper()
	last := ""
	eventually(x.T, 10*time.Second, "scontrol update "+strings.Join(words, " ")+" is done", func() bool {
		said, err := try(x.c, "scontrol", append([]string{"update"}, words...)...)
		last = said
		return err == nil && !strings.Contains(said, "try again")
	}, func() string { return last })
}

// signal makes a script that waits for it go on; see until.
func (x *trial) signal(name string) {
	x.Helper()
	if err := os.WriteFile(filepath.Join(x.dir, name), nil, 0o644); err != nil {
		x.Fatal(err)
	}
}

// until is a script's line that waits for signal.
func (x *trial) until(name string) string {
	return fmt.Sprintf("while [ ! -e %s ]; do sleep 0.05; done", filepath.Join(x.dir, name))
}

// hook runs a node's Prolog or Epilog as slurmd does.
func (x *trial) hook(node, context string, job int) {
	x.Helper()
	mode := "mode=warn"
	if !x.site.gated() {
		mode = "mode=blunt"
	}
	env := []string{fmt.Sprintf("SLURM_JOB_ID=%d", job), "SLURM_JOB_UID=0", "SLURMD_NODENAME=" + node}
	runHook(x.T, x.c, env, append([]string{context, mode}, words(x.c, node)...)...)
}

// restart restarts a daemon and waits until Slurm is itself again.
func (x *trial) restart(role string) {
	x.Helper()
	if err := x.c.Restart(context.Background(), role); err != nil {
		x.Fatal(err)
	}
	eventually(x.T, 45*time.Second, "all nodes respond", func() bool {
		said, err := try(x.c, "sinfo", "-h", "-N", "-o", "%T")
		return err == nil && !strings.ContainsAny(said, "*") && !strings.Contains(said, "unk")
	})
}

// TestEveryWayAJobComesAndGoes is docs/jobs.md as a test. Every core is lent; a job comes in each of the ways that Slurm knows, its
// first process looks around and finds nothing of ours on what is the job's; it goes, and everything is lent again.
func TestEveryWayAJobComesAndGoes(t *testing.T) {
	theCluster(t, whole...) // for the reasons to skip
	reboot := filepath.Join(shared.Dir, "reboot")
	if err := os.WriteFile(reboot, []byte("#!/bin/sh\n"), 0o755); err != nil { // does nothing
		t.Fatal(err)
	}
	for name, site := range sites {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := bringUp(t, site, slurmLines(reboot)...)
			for _, way := range ways {
				t.Run(way.name, func(t *testing.T) {
					x := newTrial(t, c, site)
					x.lent(full, x.nodes...)
					way.run(x)
				})
			}
			x := newTrial(t, c, site)
			x.lent(full, x.nodes...)
		})
	}
}

// TestWitnessSeesWhatNobodyGates: with neither gate nor hook the same witness does find executors on a job's cores. It keeps the
// test above honest.
func TestWitnessSeesWhatNobodyGates(t *testing.T) {
	theCluster(t, whole...)
	nobody := site{"-nobody", []string{"gate", "hook"}, true}
	x := newTrial(t, bringUp(t, nobody), nobody)
	x.lent(full, x.nodes...)
	x.sbatch(x.look, "-c3", "--mem=600").wait("FAILED")
	if all := x.findings(); len(all) != 1 || all[0].OwnerFirst || len(all[0].Violations) == 0 {
		t.Errorf("the witness says %+v", all)
	}
}
