package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestSlurmAlone: the cluster under everything else is a working one.
func TestSlurmAlone(t *testing.T) {
	c := theCluster(t)
	got := strings.Fields(srun(t, c, "-N4", "-n4", "sh", "-c", "echo $SLURMD_NODENAME"))
	slices.Sort(got)
	if !slices.Equal(got, c.NodeNames()) {
		t.Errorf("tasks ran on %v, want %v", got, c.NodeNames())
	}
	j := sbatch(t, c, "echo hello from $SLURM_JOB_ID")
	j.wait("COMPLETED")
	if !strings.Contains(j.text(), "hello from") {
		t.Errorf("the job printed %q", j.text())
	}
}

// TestJobsWithoutAgent: with gate and hook in place and no agent, jobs of every kind run, users see nothing of it, no node drains.
func TestJobsWithoutAgent(t *testing.T) {
	c := theCluster(t, "gate", "hook")
	stopped(t, c, "agentd")
	began := time.Now()
	if out := srun(t, c, "-N4", "-n4", "true"); out != "" {
		t.Errorf("srun's user sees %q", out)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("srun took %v without agents", took)
	}
	j := sbatch(t, c, "srun true && echo done", "-N2", "--exclusive")
	j.wait("COMPLETED")
	if got := strings.TrimSpace(j.text()); got != "done" {
		t.Errorf("the batch job printed %q", got)
	}
}

// TestForceWithoutAgent: the gate itself ends what is harvested on the node when no agent answers, before the job's first process.
func TestForceWithoutAgent(t *testing.T) {
	c := theCluster(t, "gate")
	stopped(t, c, "agentd")
	node := c.NodeNames()[1]
	victim := harvest(t, c, node, "orphan-0")
	spared := harvest(t, c, c.NodeNames()[2], "orphan-1")
	gone := make(chan error, 1)
	go func() { gone <- victim.Wait() }()
	// The task looks for itself, since afterwards anybody could have killed it.
	pattern := "/sys/fs/cgroup/*/" + c.CgroupParent() + "/" + node
	look := "cat /sys/fs/cgroup/" + c.CgroupParent() + "/" + node + "/*/cgroup.procs " + pattern + "/*/cgroup.procs 2>/dev/null; true"
	if left := srun(t, c, "-w", node, "sh", "-c", look); left != "" {
		t.Errorf("the job's first process found harvested processes %q on its node", left)
	}
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Error("the harvested process on the job's node still runs")
	}
	if spared.ProcessState != nil || len(harvested(c, c.NodeNames()[2])["orphan-1"]) != 1 {
		t.Error("the harvested process on another node is gone")
	}
}
