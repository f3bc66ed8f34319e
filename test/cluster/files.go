package cluster

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// writeFiles lays out the cluster's folder.
func (c *Cluster) writeFiles() error {
	dirs := []string{"etc", "lib", "log", "proc", "state", "spool", "rest", "munge", "broker", "run", "agent", "clock", "files"}
	for _, node := range c.NodeNames() {
		dirs = append(dirs, "spool/"+node, "run/"+node, "agent/"+node, "agent/"+node+"/state")
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(c.path(dir), 0o755); err != nil {
			return err
		}
	}
	if err := c.mountState(); err != nil {
		return err
	}
	if err := c.handOver(); err != nil {
		return err
	}
	key := make([]byte, 128)
	_, _ = rand.Read(key)
	files := map[string]string{
		"munge.key":      string(key),
		"slurm.conf":     c.slurmConf(),
		"cgroup.conf":    c.cgroupConf(),
		"plugstack.conf": c.plugstackConf(),
		"broker.toml":    c.brokerConf(),
		"client.toml":    c.agentConf("client"),
	}
	if c.GPUs > 0 {
		files["gres.conf"] = fmt.Sprintf("NodeName=%s Name=gpu File=%s\n", c.NodeList(), c.gpuFiles())
	}
	for _, node := range c.NodeNames() {
		files["agent-"+node+".toml"] = c.agentConf(node)
	}
	for name, text := range files {
		mode := os.FileMode(0o644)
		if name == "munge.key" {
			mode = 0o600
		}
		if err := os.WriteFile(c.etc(name), []byte(text), mode); err != nil {
			return err
		}
	}
	return errors.Join(c.writeCertificates(), c.writeHooks(), c.copyClosed(), c.makeGPUs(), c.save())
}

// StateDir is where the broker ("brokerd") or a node's agent ("agentd/NODE") keeps its state; "" for other roles.
func (s *spec) StateDir(role string) string {
	if node, ok := strings.CutPrefix(role, "agentd/"); ok {
		return s.path("agent", node, "state")
	}
	if role == "brokerd" {
		return s.path("broker")
	}
	return ""
}

// mountState gives each state folder a small file system, when asked to.
func (c *Cluster) mountState() error {
	if c.StateMiB == 0 {
		return nil
	}
	roles := []string{"brokerd"}
	for _, node := range c.NodeNames() {
		roles = append(roles, "agentd/"+node)
	}
	for _, role := range roles {
		if err := unix.Mount("tmpfs", c.StateDir(role), "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0755", c.StateMiB)); err != nil {
			return fmt.Errorf("mount a file system for the state of %s: %w", role, err)
		}
	}
	return nil
}

// hooked says whether slurmd shall run the Prolog and Epilog hook.
func (c *Cluster) hooked() bool {
	return executable(c.lib("libexec", "gleaner", "hook")) && !c.without("hook")
}

func (c *Cluster) gated() bool {
	_, err := os.Stat(c.built())
	return err == nil && !c.without("gate")
}

// writeHooks stands in for Prolog=…/hook of a site with one agent per machine: here the node's name leads to the agent.
func (c *Cluster) writeHooks() error {
	if !c.hooked() {
		return nil
	}
	mode := "warn"
	if !c.gated() {
		mode = "blunt" // the Prolog gates alone
	}
	for _, context := range []string{"prolog", "epilog"} {
		text := fmt.Sprintf("#!/bin/sh\nexec %s %s %s mode=%s\n", c.lib("libexec", "gleaner", "hook"), context, c.hookArgs(), mode)
		if err := os.WriteFile(c.etc(context), []byte(text), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// hookArgs are understood by gate and hook alike; both put the node's name for %n, and below the cgroup.
func (c *Cluster) hookArgs() string {
	return fmt.Sprintf("socket=%s cgroup=%s", c.AgentSocket("%n"), c.CgroupParent())
}

func (c *Cluster) plugstackConf() string {
	if !c.gated() {
		return "# spank_gleaner.so is not built\n"
	}
	return fmt.Sprintf("optional %s %s\n", c.plugin(), c.hookArgs())
}

func (c *Cluster) built() string { return c.lib("lib", "slurm", "spank_gleaner.so") }

// plugin is the SPANK plugin where every user's srun can load it.
func (c *Cluster) plugin() string { return c.passable(c.built()) }

func (c *Cluster) slurmConf() string {
	hardware, plugins := fmt.Sprintf("CPUs=%d", c.CPUs), "TaskPlugin=task/cgroup\n"
	if c.Mode == Cgroup {
		hardware = fmt.Sprintf("Sockets=1 CoresPerSocket=%d ThreadsPerCore=1", c.CPUs)
		plugins = "TaskPlugin=task/cgroup,task/affinity\n"
	}
	if c.hooked() {
		plugins += fmt.Sprintf("Prolog=%s\nEpilog=%s\n", c.etc("prolog"), c.etc("epilog"))
	}
	gres := ""
	if c.GPUs > 0 {
		plugins += "GresTypes=gpu\n"
		gres = fmt.Sprintf(" Gres=gpu:%d", c.GPUs)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `ClusterName=%s
SlurmctldHost=localhost
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=%s
SlurmctldPort=%d
StateSaveLocation=%s
SlurmdSpoolDir=%s/%%n
SlurmctldPidFile=%s
SlurmdPidFile=%s/slurmd-%%n.pid
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=%d
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,nohold_on_prolog_fail
SlurmdParameters=config_overrides
ReturnToService=2
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
JobAcctGatherType=jobacct_gather/cgroup
ProctrackType=proctrack/cgroup
PrologFlags=Contain
PlugStackConfig=%s
`, c.Name, c.MungeSocket(), c.Port, c.path("state"), c.path("spool"), c.path("proc", "slurmctld.pid"), c.path("proc"),
		max(1, c.MemoryMiB/c.CPUs/2), c.etc("plugstack.conf"))
	b.WriteString(plugins)
	for _, line := range c.Lines {
		b.WriteString(line + "\n")
	}
	ports := fmt.Sprintf("[%d-%d]", c.Port+1, c.Port+c.Nodes)
	if c.Nodes == 1 {
		ports = fmt.Sprint(c.Port + 1)
	}
	fmt.Fprintf(&b, "NodeName=%s NodeHostname=localhost Port=%s %s RealMemory=%d%s State=UNKNOWN\n",
		c.NodeList(), ports, hardware, c.MemoryMiB, gres)
	b.WriteString("PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n")
	return b.String()
}

func (c *Cluster) cgroupConf() string {
	yes := map[bool]string{true: "yes", false: "no"}[c.Mode == Cgroup]
	text := fmt.Sprintf("CgroupAutomount=no\nConstrainCores=%s\nConstrainRAMSpace=yes\nConstrainDevices=%s\n", yes, yes)
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		return "CgroupPlugin=cgroup/v1\n" + text
	}
	text = "CgroupPlugin=cgroup/v2\n" + text
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		text += "IgnoreSystemd=yes\n"
	}
	return text
}

// gpuFiles are the devices of all nodes in Slurm's words.
func (c *Cluster) gpuFiles() string {
	if c.GPUs == 1 {
		return c.gpuFile(0)
	}
	return fmt.Sprintf("%s[0-%d]", gpuPrefix(c.Name), c.GPUs-1)
}

// gpuFile is a device that no driver answers, below /dev: elsewhere the launcher lends none.
func (c *Cluster) gpuFile(gpu int) string { return fmt.Sprint(gpuPrefix(c.Name), gpu) }

func gpuPrefix(cluster string) string { return "/dev/gleaner-" + cluster + "-gpu" }

// makeGPUs makes device nodes, which is all that Slurm looks at.
func (c *Cluster) makeGPUs() error {
	if err := removeGPUs(c.Name); err != nil {
		return err
	}
	for i := range c.GPUs {
		path := c.gpuFile(i)
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(195, uint32(i)))); err != nil {
			return fmt.Errorf("make device %s: %w", path, err)
		}
	}
	return nil
}

func (c *Cluster) brokerConf() string {
	return fmt.Sprintf(`[broker]
listen = %q
state_dir = %q
metrics = ""
log_level = "debug"

[slurm]
source = "rest"
url = %q
poll = "1s"

[tls]
cert_file = %q
key_file = %q
ca_file = %q
agent_certificates = "required"

[identity]
method = "munge"
munge_socket = %q
allow_root = true
agents = ["%d"]
`, c.Broker(), c.StateDir("brokerd"), "unix:"+c.RestSocket(), c.etc("broker.pem"), c.etc("broker.key"), c.etc("ca.pem"), c.MungeSocket(), agentUser().Uid)
}

func (c *Cluster) agentConf(node string) string {
	affinity := map[Mode]string{Virtual: "no", Cgroup: "yes"}[c.Mode]
	var gpus []string
	for i := range c.GPUs {
		gpus = append(gpus, fmt.Sprintf("%q", c.gpuFile(i)))
	}
	certificate := ""
	if node != "client" {
		certificate = fmt.Sprintf("cert_file = %q\nkey_file = %q\n", c.etc("agent-"+node+".pem"), c.etc("agent-"+node+".key"))
	}
	return fmt.Sprintf(`[node]
name = %q
cpus = %d
memory = "%dM"
reserve_memory = "128M"
gpus = [%s]
affinity = %q

[agent]
socket = %q
run_dir = %q
state_dir = %q
metrics = ""
log_level = "debug"

[broker]
address = %q
munge_socket = %q

[tls]
ca_file = %q
%s
[launcher]
socket = %q

[executor]
listen = "127.0.0.1"
parked = %d

[sandbox]
waive = [%s]
binds = [%q]
network = true

[images]
socket = %q
`, node, c.CPUs, c.MemoryMiB, strings.Join(gpus, ", "), affinity, c.AgentSocket(node), c.RunDir(node), c.StateDir("agentd/"+node),
		c.Broker(), c.MungeSocket(), c.etc("ca.pem"), certificate, c.LaunchSocket(node), c.Parked, strings.Join(lacking(), ", "), c.Files(), c.ImagesSocket(node))
}
