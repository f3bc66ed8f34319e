package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/test/cluster"
)

// standbyScript is a slurmctld on a host of another name, as far as it can see: with its own host name, address and folder for pids.
const standbyScript = `hostname standby
mount --bind %[1]s/standby.hosts /etc/hosts
mount -t tmpfs none %[1]s/proc
exec slurmctld -D -f %[1]s/etc/slurm.conf
`

// doubled gives a cluster a second slurmctld, which takes over when the first is gone.
func doubled(t *testing.T, c *cluster.Cluster) *background {
	t.Helper()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	host, _, _ = strings.Cut(host, ".")
	conf := c.SlurmConf()
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	hosts, _ := os.ReadFile("/etc/hosts")
	both := fmt.Sprintf("SlurmctldHost=%s(127.0.0.1)\nSlurmctldHost=standby(127.0.0.2)\nCommunicationParameters=NoCtldInAddrAny", host)
	for path, text := range map[string]string{
		conf:                                  strings.Replace(string(text), "SlurmctldHost=localhost", both, 1),
		filepath.Join(c.Dir, "standby.hosts"): string(hosts) + "127.0.0.2 standby\n",
		filepath.Join(c.Dir, "standby"):       fmt.Sprintf(standbyScript, c.Dir),
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, role := range c.Roles() {
		if strings.HasPrefix(role, "slurm") {
			if err := c.Restart(t.Context(), role); err != nil {
				t.Fatal(err)
			}
		}
	}
	return start(t, c, "unshare", "--uts", "--mount", "--kill-child", "sh", filepath.Join(c.Dir, "standby"))
}

// answering waits until a slurmctld of this kind ("primary", "backup") is up or down, and all nodes respond to the one that rules.
func answering(t *testing.T, c *cluster.Cluster, kind, state string) {
	t.Helper()
	last := ""
	eventually(t, time.Minute, "the "+kind+" slurmctld is "+state, func() bool {
		last, _ = try(c, "scontrol", "ping")
		for line := range strings.Lines(last) {
			if strings.Contains(line, "("+kind+")") && strings.HasSuffix(strings.TrimSpace(line), state) {
				return true
			}
		}
		return false
	}, func() string { return last })
	eventually(t, time.Minute, "all nodes respond", func() bool {
		var err error
		last, err = try(c, "sinfo", "-h", "-N", "-o", "%T")
		return err == nil && !strings.ContainsAny(last, "*") && !strings.Contains(last, "unk") && !strings.Contains(last, "down")
	}, func() string { return last })
}

// A slurmctld dies and another takes over, and gives it back. A job that runs, its later steps and the next jobs are as if nothing had
// happened, and no executor ends that is in nobody's way.
func TestSlurmctldFailsOver(t *testing.T) {
	theCluster(t, whole...)
	if _, err := exec.LookPath("unshare"); err != nil {
		t.Skip("a second slurmctld needs a host name of its own: ", err)
	}
	s := site{"-failover", nil, true}
	c := bringUp(t, s, "SlurmctldTimeout=4")
	standby := doubled(t, c)
	t.Cleanup(func() { _ = standby.cmd.Process.Signal(syscall.SIGTERM) })
	answering(t, c, "primary", "UP")
	answering(t, c, "backup", "UP")
	x := newTrial(t, c, s)
	x.lent(full, x.nodes...)
	j := x.sbatch(x.look+"\n"+x.until("look")+"\nsrun "+x.look, "-w", x.nodes[0], "-n1", "-c3", "--mem=600")
	x.sees(1)
	began := time.Now()
	x.update("JobId="+strconv.Itoa(j.id), "Comment=saved")
	eventually(t, time.Minute, "slurmctld has saved the job's start, without which its successor starts it again", func() bool {
		info, err := os.Stat(filepath.Join(c.Dir, "state", "job_state"))
		return err == nil && info.ModTime().After(began)
	})
	before := keys(harvested(c, x.nodes[1]))
	back := killed(t, c, "slurmctld")
	answering(t, c, "primary", "DOWN")
	if after := keys(harvested(c, x.nodes[1])); strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("executors %v, before the failover %v", after, before)
	}
	x.signal("look")
	x.sees(1)
	j.wait("COMPLETED")
	x.sbatch(x.look, "-w", x.nodes[0], "-n1", "-c3").wait("COMPLETED")
	x.sees(1)
	back()
	answering(t, c, "primary", "UP")
	x.lent(full, x.nodes...)
	x.sbatch(x.look, "-w", x.nodes[1], "-n1", "-c5").wait("COMPLETED")
	x.sees(1)
}

// A node is rebooted by Slurm: RebootProgram runs, slurmd and all that is ours on the node go with everything that they started, and
// come again. slurmd says that it has booted.
func TestNodeReboots(t *testing.T) {
	theCluster(t, whole...)
	s := site{"-reboot", nil, true}
	program := filepath.Join(shared.Dir, "reboot-for-real")
	if err := os.WriteFile(program, []byte("#!/bin/sh\ntouch "+program+".ran\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := bringUp(t, s, "RebootProgram="+program, "ResumeTimeout=120")
	x := newTrial(t, c, s)
	x.lent(full, x.nodes...)
	node := x.nodes[0]
	x.run("scontrol", "reboot", "ASAP", "nextstate=RESUME", "reason=kernel", node)
	eventually(t, time.Minute, "RebootProgram has run", func() bool { return exists(program + ".ran") })
	slurmd, agent, launcher := killed(t, c, "slurmd/"+node), killed(t, c, "agentd/"+node), killed(t, c, "launch/"+node)
	for _, pids := range harvested(c, node) {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	booted := start(t, c, "slurmd", "-b", "-D", "-N", node, "-f", c.SlurmConf())
	launcher()
	agent()
	last := ""
	eventually(t, time.Minute, "Slurm has the node back", func() bool {
		var err error
		last, err = try(c, "sinfo", "-h", "-n", node, "-N", "-o", "%T")
		return err == nil && strings.TrimSpace(last) == "idle"
	}, func() string { return last })
	_ = booted.cmd.Process.Signal(syscall.SIGTERM)
	_ = booted.wait(t, 30*time.Second)
	slurmd()
	x.lent(full, x.nodes...)
	x.sbatch(x.look, "-w", node, "-n1", "-c3").wait("COMPLETED")
	x.sees(1)
}
