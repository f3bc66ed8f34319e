package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/test/cluster"
)

// theCluster returns the shared cluster, or skips with the reason why there is none. roles have to be running in it, for example
// "agentd", "brokerd", "launch", "gate", "hook"; each that is not built is a reason to skip. When the test ends, no node may be
// drained.
func theCluster(t *testing.T, roles ...string) *cluster.Cluster {
	t.Helper()
	if unavailable != nil {
		t.Skip(unavailable)
	}
	for _, role := range roles {
		for _, line := range shared.Skipped() {
			if strings.HasPrefix(line, role+":") {
				t.Skip("needs " + line)
			}
		}
	}
	t.Cleanup(func() {
		if bad := drained(t, shared); len(bad) > 0 {
			t.Errorf("drained or down: %s", strings.Join(bad, ", "))
			resume(t, shared)
		}
	})
	return shared
}

// output runs a command in the cluster's environment, with a limit, and returns its standard output and error together.
func output(t *testing.T, c *cluster.Cluster, name string, args ...string) string {
	t.Helper()
	out, err := try(c, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// commandLimit ends a command that hangs; nothing in this suite needs a minute.
const commandLimit = time.Minute

func try(c *cluster.Cluster, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	cmd := c.Command(ctx, name, args...)
	cmd.Dir = c.Dir
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// srun runs one task and returns what it printed.
func srun(t *testing.T, c *cluster.Cluster, args ...string) string {
	t.Helper()
	return output(t, c, "srun", args...)
}

// job is a batch job. It is cancelled when its test ends.
type job struct {
	id   int
	out  string // the file with what it prints
	c    *cluster.Cluster
	test *testing.T
}

// sbatch submits a script (its lines, without the first) with further options of sbatch.
func sbatch(t *testing.T, c *cluster.Cluster, script string, options ...string) *job {
	t.Helper()
	dir, err := os.MkdirTemp(c.Dir, "job")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil { // jobs of other users write there
		t.Fatal(err)
	}
	file := filepath.Join(dir, "script")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	j := &job{out: filepath.Join(dir, "out"), c: c, test: t}
	options = append([]string{"--parsable", "-o", j.out, "-D", dir}, options...)
	said := output(t, c, "sbatch", append(options, file)...)
	if j.id, err = strconv.Atoi(said); err != nil {
		t.Fatalf("sbatch said %q", said)
	}
	t.Cleanup(j.cancel)
	return j
}

// state is Slurm's word: PENDING, RUNNING, COMPLETED, …
func (j *job) state() string {
	said, err := try(j.c, "scontrol", "show", "job", "-o", strconv.Itoa(j.id))
	if err != nil {
		return "UNKNOWN"
	}
	return field(said, "JobState")
}

// wait waits until the job is in a state.
func (j *job) wait(state string) {
	j.test.Helper()
	last := ""
	eventually(j.test, 40*time.Second, fmt.Sprintf("job %d is %s", j.id, state), func() bool {
		last = j.state()
		return last == state
	}, func() string { return "it is " + last + ": " + j.text() })
}

// text is what the job has printed so far.
func (j *job) text() string {
	text, _ := os.ReadFile(j.out)
	return string(text)
}

// goneLimit is more than Slurm's KillWait of 30 s: slurmd waits that long when a cancellation meets the extern step half started.
const goneLimit = time.Minute

// cancel ends the job and waits until it has left its nodes.
func (j *job) cancel() {
	_, _ = try(j.c, "scancel", strconv.Itoa(j.id))
	gone := []string{"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "UNKNOWN", "OUT_OF_MEMORY"}
	last := ""
	eventually(j.test, goneLimit, fmt.Sprintf("job %d is gone", j.id), func() bool {
		last = j.state()
		return slices.Contains(gone, last)
	}, func() string { return "it is " + last })
}

// field finds KEY=VALUE in the one-line form of scontrol.
func field(line, key string) string {
	_, rest, found := strings.Cut(" "+line, " "+strings.TrimSpace(key)+"=")
	if !found {
		return ""
	}
	value, _, _ := strings.Cut(rest, " ")
	return value
}

// eventually waits for a condition with a deadline. what reads as "wait until <what>"; details add what was seen last.
func eventually(t *testing.T, limit time.Duration, what string, ok func() bool, details ...func() string) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			more := ""
			for _, detail := range details {
				more += "; " + detail()
			}
			t.Fatalf("after %v it does not hold that %s%s", limit, what, more)
		case <-tick.C:
		}
	}
}

// drained lists the nodes that Slurm has taken out of service, with its reason.
func drained(t *testing.T, c *cluster.Cluster) []string {
	t.Helper()
	var bad []string
	for line := range strings.Lines(output(t, c, "sinfo", "-h", "-N", "-o", "%N %T %E")) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		state, _, _ := strings.Cut(rest, " ")
		if strings.Contains(state, "drain") || strings.Contains(state, "down") || strings.Contains(state, "fail") {
			bad = append(bad, name+" "+rest)
		}
	}
	return bad
}

// resume puts drained nodes back for the tests that follow.
func resume(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	_, _ = try(c, "scontrol", "update", "NodeName="+c.NodeList(), "State=RESUME")
}

// harvested lists the processes in a node's harvested cgroups, by sandbox id.
func harvested(c *cluster.Cluster, node string) map[string][]int { return c.Harvested(node) }

// nothingLeft waits until no trace of any sandbox is left.
func nothingLeft(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	var last []string
	eventually(t, 10*time.Second, "nothing harvested is left", func() bool {
		last = c.Leftovers()
		return len(last) == 0
	}, func() string { return strings.Join(last, ", ") })
}

// stopped ends the daemons of a kind (such as every "agentd") for the rest of the test and starts them again afterwards.
func stopped(t *testing.T, c *cluster.Cluster, kind string) {
	t.Helper()
	for _, role := range c.Roles() {
		if role != kind && !strings.HasPrefix(role, kind+"/") {
			continue
		}
		if c.PID(role) != 0 {
			if err := c.Stop(role); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() {
			if err := c.Start(context.Background(), role); err != nil {
				t.Error(err)
			}
		})
	}
}

// harvest puts a process into a cgroup as the launcher would name it, without any daemon of ours, and returns the process. It ends
// with the test at the latest.
func harvest(t *testing.T, c *cluster.Cluster, node, id string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for _, root := range hierarchies() {
		parent := filepath.Join(root, c.CgroupParent())
		group := filepath.Join(parent, node, id)
		if err := os.MkdirAll(group, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			eventually(t, 5*time.Second, "the cgroup can be removed", func() bool {
				err := os.Remove(group)
				return err == nil || os.IsNotExist(err)
			})
		})
	}
	return cmd
}

// hierarchies are those in which an empty cgroup accepts processes at once (cpuset of v1 wants settings first).
func hierarchies() []string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return []string{"/sys/fs/cgroup"}
	}
	var roots []string
	for _, name := range []string{"memory", "freezer", "pids"} {
		if root := filepath.Join("/sys/fs/cgroup", name); exists(filepath.Join(root, "cgroup.procs")) {
			roots = append(roots, root)
		}
	}
	return roots
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
