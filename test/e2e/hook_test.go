package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/api/gate"
	"github.com/gleaner-hpc/gleaner/test/cluster"
)

// runHook runs the hook as slurmd would, with nothing but env, and fails the test unless it exits 0 soon: anything else would drain
// a node. It returns what the hook printed.
func runHook(t *testing.T, c *cluster.Cluster, env []string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(c.Build, "libexec", "gleaner", "hook"), args...)
	cmd.Env = env
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("hook %v with %v: %v: %s", args, env, err, out)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("hook %v took %v", args, took)
	}
	return string(out)
}

func words(c *cluster.Cluster, node string) []string {
	return []string{"socket=" + c.AgentSocket(node), "cgroup=" + c.CgroupParent()}
}

// TestBluntHook: at a site without the gate the Prolog alone frees the whole node, by force when there is no agent, and asks for
// everything when there is one.
func TestBluntHook(t *testing.T) {
	c := theCluster(t, "hook")
	stopped(t, c, "agentd")
	node := c.NodeNames()[2]
	env := []string{"SLURM_JOB_ID=77", "SLURM_JOB_UID=1000", "SLURM_JOB_GPUS=0,1", "SLURMD_NODENAME=" + node}
	victim := harvest(t, c, node, "blunt-0")
	runHook(t, c, env, append([]string{"prolog", "mode=blunt"}, words(c, node)...)...)
	if left := harvested(c, node)["blunt-0"]; len(left) > 0 {
		t.Errorf("%v left on the node, among them our %d", left, victim.Process.Pid)
	}
	agent := pretend(t, c, node, temper["done"])
	runHook(t, c, env, append([]string{"prolog", "mode=blunt"}, words(c, node)...)...)
	claims := agent.of(gate.Claim)
	if len(claims) != 1 || claims[0].Flags != gate.FlagBlunt || claims[0].Cores != "" || claims[0].MiB != gate.MemoryUnknown ||
		claims[0].GPUs != "0,1" || claims[0].Job != 77 || claims[0].UID != 1000 || claims[0].Node != node {
		t.Errorf("claims %+v", claims)
	}
}

// TestHookWithoutArguments: as Prolog=…/hook, told what it is by slurmd's environment and what to do by a file.
func TestHookWithoutArguments(t *testing.T) {
	c := theCluster(t, "hook")
	stopped(t, c, "agentd")
	node := c.NodeNames()[2]
	agent := pretend(t, c, node, temper["done"])
	conf := filepath.Join(t.TempDir(), "hook.conf")
	text := fmt.Sprintf("# where the agent is\nsocket=%s\ncgroup=%s mode=warn # both\ncolour=red\n", c.AgentSocket("%n"), c.CgroupParent())
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	env := []string{"SLURM_JOB_ID=78", "SLURMD_NODENAME=" + node, "SLURM_JOB_GPUS=$(reboot)"}
	runHook(t, c, append(env, "SLURM_SCRIPT_CONTEXT=prolog_slurmd"), "conf="+conf)
	runHook(t, c, append(env, "SLURM_SCRIPT_CONTEXT=epilog_slurmd"), "conf="+conf)
	if warns := agent.of(gate.Warn); len(warns) != 1 || warns[0].Job != 78 || warns[0].GPUs != "" {
		t.Errorf("warnings %+v", warns)
	}
	if releases := agent.of(gate.Release); len(releases) != 1 || releases[0].Job != 78 {
		t.Errorf("releases %+v", releases)
	}
}

// TestHookAlwaysSucceeds: whatever it is told and whatever the agent does.
func TestHookAlwaysSucceeds(t *testing.T) {
	c := theCluster(t, "hook")
	stopped(t, c, "agentd")
	node := c.NodeNames()[2]
	for _, env := range [][]string{nil, {"SLURM_JOB_ID=x"}, {"SLURM_JOB_ID=99999999999999999999"}, {"SLURM_JOB_ID=1", "SLURMD_NODENAME=../x"}} {
		for _, args := range [][]string{nil, {"prolog"}, {"epilog"}, {"what"}, {"prolog", "socket=x", "conf=/nonexistent", "=", ""}} {
			runHook(t, c, env, append(args, words(c, node)...)...)
		}
	}
	for name, answers := range temper {
		t.Run(name, func(t *testing.T) {
			pretend(t, c, node, answers)
			for _, role := range []string{"prolog", "epilog"} {
				runHook(t, c, []string{"SLURM_JOB_ID=1", "SLURMD_NODENAME=" + node}, append([]string{role, "mode=blunt"}, words(c, node)...)...)
			}
		})
	}
}
