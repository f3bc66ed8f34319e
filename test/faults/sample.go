package faults

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// sampleEvery is how often all nodes are looked at.
const sampleEvery = 60 * time.Millisecond

// sample looks, all the time, whether what is harvested on each node fits beside the jobs that have begun there.
func (r *run) sample(ctx context.Context) {
	told := map[string]bool{}
	for ctx.Err() == nil {
		for _, node := range r.c.NodeNames() {
			if what, key := r.promised(node); what != "" && !told[key] {
				told[key] = true
				r.violated(what)
			}
		}
		r.count(func(p *Report) { p.Samples++ })
		pause(ctx, sampleEvery)
	}
}

// promised says what is wrong on a node, "" when nothing is. The order matters: the jobs are looked at first and last, the executors in
// between and once more, so that all that is added up has been there at the same moment.
func (r *run) promised(node string) (what, key string) {
	begun := r.begun(node)
	harvested := r.c.Harvested(node)
	if len(harvested) == 0 {
		return "", ""
	}
	cores, mib := 0.0, int64(0)
	for id := range harvested {
		c, m := r.limits(node, id)
		cores, mib = cores+c, mib+m
	}
	jobCores, jobMiB, names := 0, int64(0), []string{}
	for job := range begun {
		sh, known := r.shapes.get(job)
		if !known {
			continue
		}
		jobCores, jobMiB, names = jobCores+sh.cpus, jobMiB+sh.mib, append(names, fmt.Sprint(job))
	}
	if cores+float64(jobCores) <= cpus+0.001 && mib+jobMiB <= memoryMiB {
		return "", ""
	}
	now, jobsNow := r.c.Harvested(node), r.begun(node)
	for id, pids := range harvested {
		if !slices.ContainsFunc(pids, func(pid int) bool { return slices.Contains(now[id], pid) }) {
			return "", ""
		}
	}
	for job, pids := range begun {
		if !slices.ContainsFunc(pids, func(pid int) bool { return slices.Contains(jobsNow[job], pid) }) {
			return "", ""
		}
	}
	slices.Sort(names)
	what = fmt.Sprintf("double promise on %s: %.1f cores and %d MiB of executors %v, %d cores and %d MiB of jobs %v, of %d cores and %d MiB",
		node, cores, mib, harvested, jobCores, jobMiB, names, cpus, memoryMiB)
	return what, node + fmt.Sprint(names, len(harvested))
}

// limits are those that a sandbox's cgroups set: cores by quota, and MiB.
func (r *run) limits(node, id string) (cores float64, mib int64) {
	for _, top := range r.c.NodeGroups(node) {
		group := filepath.Join(top, id)
		if quota := integer(group, "cpu.cfs_quota_us"); quota > 0 {
			cores = float64(quota) / float64(max(1, integer(group, "cpu.cfs_period_us")))
		}
		if text, err := os.ReadFile(filepath.Join(group, "cpu.max")); err == nil {
			var quota, period float64
			if n, _ := fmt.Sscan(string(text), &quota, &period); n == 2 && period > 0 {
				cores = quota / period
			}
		}
		for _, name := range []string{"memory.limit_in_bytes", "memory.max"} {
			if bytes := integer(group, name); bytes > 0 && bytes < 1<<50 {
				mib = bytes >> 20
			}
		}
	}
	return cores, mib
}

func integer(group, name string) int64 {
	text, err := os.ReadFile(filepath.Join(group, name))
	if err != nil {
		return 0
	}
	number, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return number
}

// begun are the jobs whose user has a process on a node, with these processes: not those that slurmstepd is still preparing.
func (r *run) begun(node string) map[uint32][]int {
	found := map[uint32][]int{}
	for _, top := range []string{"/sys/fs/cgroup/memory/slurm_" + node, "/sys/fs/cgroup/system.slice/" + node + "_slurmstepd.scope"} {
		_ = filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.Name() != "cgroup.procs" || !strings.Contains(path, "/task_") || strings.Contains(path, "/step_extern/") {
				return nil
			}
			_, rest, _ := strings.Cut(path, "/job_")
			digits, _, _ := strings.Cut(rest, "/")
			job, err := strconv.ParseUint(digits, 10, 32)
			text, _ := os.ReadFile(path)
			for field := range strings.FieldsSeq(string(text)) {
				comm, gone := os.ReadFile("/proc/" + field + "/comm")
				pid, bad := strconv.Atoi(field)
				if err == nil && gone == nil && bad == nil && strings.TrimSpace(string(comm)) != "slurmstepd" {
					found[uint32(job)] = append(found[uint32(job)], pid)
				}
			}
			return nil
		})
	}
	return found
}
