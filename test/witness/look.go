package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// residue is how many bytes memory.stat may still show for an empty cgroup: the kernel sums it up in batches of each processor.
const residue = 4 << 20

// look compares what the job was given on its node with what is harvested there.
func look(m machine, parent string, j job) Finding {
	node := j.node()
	f := Finding{Job: j.get("SLURM_JOB_ID"), Step: j.step(), Node: node, Harvested: []Cgroup{}, Violations: []string{}}
	against := func(format string, args ...any) { f.Violations = append(f.Violations, fmt.Sprintf(format, args...)) }
	if f.Job == "" || node == "" {
		against("no Slurm job: SLURM_JOB_ID or SLURMD_NODENAME is not set")
		return f
	}
	before := m.harvested(parent, node, nil)
	all := m.processes()
	f.Processes, f.Job = len(all), m.ownJob(all, f.Job)
	if f.Processes == 0 {
		against("no process can be seen in /proc")
	}
	f.Harvested = append(f.Harvested, m.settled(parent, node, bounded(m.harvested(parent, node, all), before))...)
	f.Elsewhere = elsewhere(all, parent, node)
	for _, p := range m.strays(all, parent) {
		against("process %d (%s) is an executor outside of %s", p.pid, p.exe, parent)
	}

	held := m.unreclaimable(parent, node)
	seen := append(judgeCores(f.Harvested, m.ownCores(all), all), m.judgeGPUs(f.Harvested, j.gpus())...)
	f.Violations = append(f.Violations, seen...)
	size, err := m.size(node)
	var given map[string]allocation
	if err == nil {
		given, err = m.allocations(node, f.Job, all)
	}
	if err != nil {
		f.Untold = len(f.Violations) == 0
		against("cannot tell: %v", err)
		return f
	}
	f.NodeCPUs, f.JobCPUs = size.cpus, given[f.Job].cpus
	f.Exclusive = f.JobCPUs >= f.NodeCPUs
	f.Violations = append(f.Violations, judge(f.Harvested, size, given, f.Exclusive)...)
	if f.Exclusive && held > residue {
		against("%d bytes that nobody can reclaim are charged to %s/%s on a node that the job has alone", held, parent, node)
	}
	f.OwnerFirst = len(f.Violations) == 0
	return f
}

// bounded completes what ended while it was looked at, and has no cgroup any more that would tell its bounds, by what was seen before.
func bounded(now, before []Cgroup) []Cgroup {
	for i, c := range now {
		for _, b := range before {
			if b.ID == c.ID && c.QuotaCores < 0 && c.MemoryLimit < 0 {
				now[i].QuotaCores, now[i].MemoryLimit = b.QuotaCores, b.MemoryLimit
			}
		}
	}
	return now
}

// making is how long a sandbox may be in the making: its first process waits in a cgroup that has no bounds yet.
const making = 500 * time.Millisecond

// settled looks again at what has no bounds until it has some, or is gone; what remains without counts as it is.
func (m machine) settled(parent, node string, list []Cgroup) []Cgroup {
	deadline := time.Now().Add(making + m.patience)
	var settled []Cgroup
	for _, c := range list {
		for len(c.Pids) > 0 && (c.MemoryLimit < 0 || c.QuotaCores < 0) && time.Now().Before(deadline) {
			now := m.harvested(parent, node, m.processes())
			i := slices.IndexFunc(now, func(n Cgroup) bool { return n.ID == c.ID })
			if i < 0 {
				c.Pids, c.MemoryUsed = nil, 0
				break
			}
			if c = now[i]; c.MemoryLimit < 0 || c.QuotaCores < 0 {
				time.Sleep(making / 50)
			}
		}
		settled = append(settled, c)
	}
	return settled
}

// judge compares sums. On a node that the job has alone nothing may be left; else all must fit beside all started jobs.
func judge(harvested []Cgroup, size nodeSize, given map[string]allocation, exclusive bool) []string {
	var bad []string
	var cores float64
	var memory int64
	for _, c := range harvested {
		switch {
		case len(c.Pids) == 0:
			memory += c.MemoryUsed
			if exclusive && c.MemoryUsed > residue {
				bad = append(bad, fmt.Sprintf("%s has no process but still holds %d bytes", c.ID, c.MemoryUsed))
			}
			continue
		case exclusive:
			bad = append(bad, fmt.Sprintf("%s still has processes %v on a node that the job has alone", c.ID, c.Pids))
		case c.QuotaCores < 0 && c.CPUs == "":
			bad = append(bad, fmt.Sprintf("%s has no bound on its cores", c.ID))
		case c.MemoryLimit < 0:
			bad = append(bad, fmt.Sprintf("%s has no bound on its memory", c.ID))
		}
		cores += held(c)
		memory += max(c.MemoryLimit, 0)
	}
	if exclusive {
		return bad
	}
	jobs := allocation{}
	for _, a := range given {
		jobs.cpus += a.cpus
		jobs.memoryMB += a.memoryMB
	}
	if cores > 0 && cores+float64(jobs.cpus) > float64(size.cpus)+0.001 {
		bad = append(bad, fmt.Sprintf("harvested %.2f cores and %d cores of jobs do not fit into %d", cores, jobs.cpus, size.cpus))
	}
	if memory > 0 && memory>>20+jobs.memoryMB > size.memoryMB {
		bad = append(bad, fmt.Sprintf("harvested %d MiB and %d MiB of jobs do not fit into %d MiB", memory>>20, jobs.memoryMB, size.memoryMB))
	}
	return bad
}

func held(c Cgroup) float64 {
	cores := float64(len(cpuList(c.CPUs)))
	if c.QuotaCores >= 0 {
		return c.QuotaCores
	}
	return cores
}

// ownJob is the job in whose cgroup the witness runs. In a component of a heterogeneous job the environment names the first one's.
func (m machine) ownJob(all []process, named string) string {
	for _, p := range all {
		if p.pid != m.self() {
			continue
		}
		for _, path := range p.cgroups {
			if id := jobInPath.FindStringSubmatch(path + "/"); id != nil {
				return id[1]
			}
		}
	}
	return named
}

// self is the witness's own pid.
func (m machine) self() int {
	if s := m.read("proc/self-pid"); s != "" {
		return int(number(s, 0))
	}
	return os.Getpid()
}

// ownCores returns the cores to which Slurm has bound the witness's job, nil when it binds none.
func (m machine) ownCores(all []process) []int {
	for _, p := range all {
		if p.pid != m.self() {
			continue
		}
		for _, path := range p.cgroups {
			if !jobInPath.MatchString(path + "/") {
				continue
			}
			for _, file := range []string{
				filepath.Join("sys/fs/cgroup/cpuset", path, "cpuset.cpus"), filepath.Join("sys/fs/cgroup", path, "cpuset.cpus"),
				filepath.Join("sys/fs/cgroup", jobOf(path), "cpuset.cpus"),
			} {
				if s := m.read(file); s != "" {
					return cpuList(s)
				}
			}
		}
	}
	return nil
}

// judgeCores checks affinity masks and cpusets against the job's own cores, where Slurm binds jobs to cores.
func judgeCores(harvested []Cgroup, own []int, all []process) []string {
	var bad []string
	byPid := map[int]process{}
	for _, p := range all {
		byPid[p.pid] = p
	}
	for _, c := range harvested {
		for _, pid := range c.Pids {
			for _, cpu := range cpuList(byPid[pid].affinity) {
				if slices.Contains(own, cpu) {
					bad = append(bad, fmt.Sprintf("process %d of %s may run on core %d of the job", pid, c.ID, cpu))
					break
				}
			}
		}
	}
	return bad
}

// judgeGPUs checks device lists and open files against the job's GPUs.
func (m machine) judgeGPUs(harvested []Cgroup, gpus []string) []string {
	var bad []string
	for _, gpu := range gpus {
		for _, c := range harvested {
			if len(c.Pids) > 0 && slices.ContainsFunc(strings.Split(c.Devices, ", "), func(d string) bool {
				return d == "a *:* rwm" || strings.HasPrefix(d, "c 195:"+gpu+" ")
			}) {
				bad = append(bad, fmt.Sprintf("%s may open GPU %s of the job", c.ID, gpu))
			}
			for _, pid := range c.Pids {
				if m.any(pid, "fd", gpu) {
					bad = append(bad, fmt.Sprintf("process %d of %s has GPU %s of the job open", pid, c.ID, gpu))
				}
				if m.any(pid, "root/dev", gpu) {
					bad = append(bad, fmt.Sprintf("process %d of %s has GPU %s of the job in its /dev", pid, c.ID, gpu))
				}
			}
		}
	}
	return bad
}

// any says whether one of the files in a folder of /proc/PID is a GPU's device, whatever its name.
func (m machine) any(pid int, folder, gpu string) bool {
	files, _ := filepath.Glob(filepath.Join(m.root, "proc", fmt.Sprint(pid), folder, "*"))
	for _, file := range files {
		if to, _ := os.Readlink(file); to == "/dev/nvidia"+gpu {
			return true
		}
		var s unix.Stat_t
		isDevice := unix.Stat(file, &s) == nil && s.Mode&unix.S_IFMT == unix.S_IFCHR
		if isDevice && unix.Major(s.Rdev) == nvidia && fmt.Sprint(unix.Minor(s.Rdev)) == gpu {
			return true
		}
	}
	return false
}

// nvidia is the major number of GPUs' devices, whose minor number is the GPU's.
const nvidia = 195

// unreclaimable is the memory that a node's harvested processes are charged for and that only their end gives back, also where a cgroup has been
// removed and its memory has not gone yet.
func (m machine) unreclaimable(parent, node string) int64 {
	held := int64(0)
	for _, hierarchy := range []string{"memory", ""} {
		text := m.read("sys/fs/cgroup", hierarchy, parent, node, "memory.stat")
		for line := range strings.Lines(text) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			if slices.Contains([]string{"total_rss", "total_shmem", "anon", "shmem"}, name) {
				held += number(value, 0)
			}
		}
	}
	return held
}

// elsewhere counts harvested processes of the other nodes that share this machine.
func elsewhere(all []process, parent, node string) int {
	n := 0
	for _, p := range all {
		other := slices.ContainsFunc(p.cgroups, func(path string) bool { return strings.Contains(path, "/"+parent+"/") })
		here := slices.ContainsFunc(p.cgroups, func(path string) bool { _, ok := below(path, parent, node); return ok })
		if other && !here {
			n++
		}
	}
	return n
}

// strays finds executors and workers that run outside of every harvested cgroup: those of the installation that the witness came with,
// if it came with one. Those in the witness's own mount namespace are in no sandbox: somebody tries them by hand.
func (m machine) strays(all []process, parent string) []process {
	var found []process
	own := ""
	if exe, err := os.Executable(); err == nil {
		own = filepath.Join(filepath.Dir(filepath.Dir(exe)), "libexec", "gleaner") + "/"
	}
	if _, err := os.Stat(own); err != nil {
		own = ""
	}
	for _, p := range all {
		name := filepath.Base(p.exe)
		if !strings.HasPrefix(p.exe, own) || !strings.Contains(p.exe, "/libexec/gleaner/") || (name != "executor" && name != "worker") {
			continue
		}
		here, _ := os.Readlink(filepath.Join(m.root, "proc", fmt.Sprint(m.self()), "ns/mnt"))
		there, _ := os.Readlink(filepath.Join(m.root, "proc", fmt.Sprint(p.pid), "ns/mnt"))
		if there != "" && there == here {
			continue
		}
		if !slices.ContainsFunc(p.cgroups, func(path string) bool { return strings.Contains(path, "/"+parent+"/") }) {
			found = append(found, p)
		}
	}
	return found
}

// jobOf cuts a cgroup's path behind the job.
func jobOf(path string) string {
	before, _, _ := strings.Cut(path, "/step_")
	return before
}
