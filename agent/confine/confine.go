// Package confine says which of the things that keep strangers' code in its place this node's kernel and site can give. It only reads, and
// only below the file system that it is handed; it decides nothing: the agent harvests nothing while one is missing that agent.toml
// does not waive by name, and gleaner check node prints them all.
package confine

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/gleaner-hpc/gleaner/config"
)

// Finding is one guard.
type Finding struct {
	Name    string // as sandbox.waive in agent.toml has it
	Promise string // what functions cannot do where it is given
	Given   bool
	Why     string // why not, and what to do; "" when given
	Waived  bool   // the site does without
}

// Look tells of every guard, in the order of config.Guards. root is the node's file system.
func Look(root fs.FS, waive []string) []Finding {
	h := host{root: root}
	h.unified = h.has("sys/fs/cgroup/cgroup.controllers")
	findings := make([]Finding, 0, len(guards))
	for _, g := range guards {
		why := g.missing(h)
		findings = append(findings, Finding{Name: g.name, Promise: g.promise, Given: why == "", Why: why, Waived: slices.Contains(waive, g.name)})
	}
	return findings
}

// Objection is why a node with these findings lends nothing; "" when it may.
func Objection(findings []Finding) string {
	var names []string
	why := ""
	for _, f := range findings {
		if !f.Given && !f.Waived {
			names = append(names, f.Name)
			if why == "" {
				why = f.Why
			}
		}
	}
	if names == nil {
		return ""
	}
	return fmt.Sprintf("sandboxes lack %s (%s); see gleaner check node there, or waive by name in [sandbox] of agent.toml", strings.Join(names, ", "), why)
}

var guards = []struct {
	name, promise string
	missing       func(host) string
}{
	{config.GuardKernel, "keep from being ended, or be taken for another process", func(h host) string { return h.atLeast(5, 10) }},
	{config.GuardNamespaces, "see processes, users and mounts outside", host.namespaces},
	{config.GuardSeccomp, "make system calls that are not on the list", func(h host) string {
		return h.holds("proc/sys/kernel/seccomp/actions_avail", "errno", "the kernel has no seccomp filters: CONFIG_SECCOMP_FILTER")
	}},
	{config.GuardReadOnly, "write to what is mounted below a folder of the host's", func(h host) string { return h.atLeast(5, 12) }},
	{config.GuardProc, "see more of /proc than its own", host.proc},
	{config.GuardIdentity, "pass for another's executor", host.identity},
	{config.GuardCPUQuota, "use more cores than it leased", func(h host) string { return h.controller("cpu", "cpu.cfs_quota_us") }},
	{config.GuardCPUSet, "run on cores that are a job's", func(h host) string { return h.controller("cpuset", "cpuset.cpus") }},
	{config.GuardCPULast, "take a core's time from a job", func(h host) string { return h.controller("cpu", "cpu.shares") }},
	{config.GuardMemory, "use more memory than it leased", func(h host) string { return h.controller("memory", "memory.limit_in_bytes") }},
	{config.GuardSwap, "use swap", host.swap},
	{config.GuardIO, "take a disk's time from a job", host.io},
	{config.GuardProcesses, "make processes without end", func(h host) string { return h.controller("pids", "") }},
	{config.GuardDevices, "use a device that it did not lease", host.devices},
	{config.GuardOOM, "outlive a job when memory runs out", func(h host) string {
		return h.holds("proc/self/oom_score_adj", "", "the kernel has no oom_score_adj")
	}},
}

// host is one machine as its files tell.
type host struct {
	root    fs.FS
	unified bool
}

func (h host) read(name string) string {
	text, _ := fs.ReadFile(h.root, name)
	return strings.TrimSpace(string(text))
}

func (h host) has(name string) bool {
	_, err := fs.Stat(h.root, name)
	return err == nil
}

// any says whether a file matches.
func (h host) any(pattern string) bool {
	found, _ := fs.Glob(h.root, pattern)
	return len(found) > 0
}

func (h host) holds(name, word, otherwise string) string {
	if !h.has(name) || !strings.Contains(h.read(name), word) {
		return otherwise
	}
	return ""
}

func (h host) atLeast(major, minor int) string {
	release := h.read("proc/sys/kernel/osrelease")
	first, rest, _ := strings.Cut(release, ".")
	second, _, _ := strings.Cut(rest, ".")
	second, _, _ = strings.Cut(second, "-")
	a, err1 := strconv.Atoi(first)
	b, err2 := strconv.Atoi(second)
	if err1 != nil || err2 != nil || a < major || a == major && b < minor {
		return fmt.Sprintf("kernel %q; want %d.%d or later", release, major, minor)
	}
	return ""
}

func (h host) namespaces() string {
	for _, kind := range []string{"user", "pid", "mnt", "ipc", "uts", "cgroup"} {
		file := path.Join("proc/sys/user", "max_"+kind+"_namespaces")
		if limit := h.read(file); limit == "" || limit == "0" {
			return fmt.Sprintf("no %s namespaces: /%s is %q; sysctl user.max_%s_namespaces=10000", kind, file, limit, kind)
		}
	}
	return ""
}

// proc is mounted anew in a sandbox, which the kernel refuses where the host's has parts covered.
func (h host) proc() string {
	for line := range strings.Lines(h.read("proc/self/mountinfo")) {
		fields := strings.Fields(line)
		if len(fields) > 4 && strings.HasPrefix(fields[4], "/proc/") && fields[4] != "/proc/sys/fs/binfmt_misc" {
			return fmt.Sprintf("%s is covered by a mount, so that no sandbox can have a /proc of its own; unmount it", fields[4])
		}
	}
	return ""
}

// identity: the agent, an ordinary user, reads of each caller which sandbox it is in.
func (h host) identity() string {
	for line := range strings.Lines(h.read("proc/self/mountinfo")) {
		fields := strings.Fields(line)
		if len(fields) > 4 && fields[4] == "/proc" && strings.Contains(line, "hidepid=") && !strings.Contains(line, "hidepid=off") && !strings.Contains(line, "hidepid=0") {
			return "/proc is mounted with hidepid=, which hides from the agent whose executor speaks; mount it with gid= of a group that gleaner is in"
		}
	}
	return ""
}

// controller wants a cgroup controller, and on v1 a file of it. Its files are in the root, or, those that the root has not, below it.
func (h host) controller(name, file string) string {
	if h.unified {
		if !slices.Contains(strings.Fields(h.read("sys/fs/cgroup/cgroup.controllers")), name) {
			return fmt.Sprintf("cgroup v2 has no controller %s: cgroup_disable= on the kernel's command line?", name)
		}
		return ""
	}
	dir := path.Join("sys/fs/cgroup", name)
	if !h.has(path.Join(dir, "cgroup.procs")) || file != "" && !h.has(path.Join(dir, file)) && !h.any(path.Join(dir, "*", file)) {
		return fmt.Sprintf("cgroup v1 has no /%s with %s: mount it, or boot with cgroup v2", dir, file)
	}
	return ""
}

func (h host) swap() string {
	if strings.Count(h.read("proc/swaps"), "\n") == 0 {
		return "" // there is none
	}
	switch {
	case h.unified && (h.any("sys/fs/cgroup/*/memory.swap.max") || h.any("sys/fs/cgroup/*/*/memory.swap.max")),
		!h.unified && h.has("sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"):
		return ""
	}
	return "the kernel does not count swap: boot with swapaccount=1, or switch swap off"
}

func (h host) io() string {
	v1 := h.any("sys/fs/cgroup/blkio/blkio.bfq.*") || h.any("sys/fs/cgroup/blkio/blkio.weight")
	v2 := h.any("sys/fs/cgroup/*/io.weight") || h.any("sys/fs/cgroup/*/io.bfq.weight")
	if h.unified && v2 || !h.unified && v1 {
		return ""
	}
	return "the kernel weighs nobody's disk access: CONFIG_BLK_CGROUP_IOCOST, or the scheduler bfq"
}

func (h host) devices() string {
	if !h.unified {
		return h.controller("devices", "")
	}
	return h.holds("proc/sys/kernel/unprivileged_bpf_disabled", "", "cgroup v2 keeps devices with BPF programs, and this kernel has none: CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF")
}
