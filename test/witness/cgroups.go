package main

import (
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Cgroup is one harvested executor, joined over the controllers.
type Cgroup struct {
	ID          string  `json:"id"`
	Pids        []int   `json:"pids,omitempty"`
	QuotaCores  float64 `json:"quota_cores"`  // -1: none
	CPUs        string  `json:"cpus"`         // its cpuset, or its processes' affinity
	MemoryLimit int64   `json:"memory_limit"` // bytes; -1: none
	MemoryUsed  int64   `json:"memory_used"`
	Devices     string  `json:"devices,omitempty"` // cgroup v1's list
	affinity    []string
}

// machine is the system as the witness sees it; tests put a folder and a script in its place.
type machine struct {
	root     string
	scontrol func(args ...string) (string, error)
	patience time.Duration
}

func (m machine) read(elem ...string) string {
	b, err := os.ReadFile(filepath.Join(append([]string{m.root}, elem...)...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// process is what /proc says about one.
type process struct {
	pid      int
	comm     string
	exe      string
	cgroups  []string // paths, one for each hierarchy
	affinity string
}

// processes reads all of them. One that ends meanwhile is left out.
func (m machine) processes() []process {
	entries, _ := os.ReadDir(filepath.Join(m.root, "proc"))
	var all []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		p := process{pid: pid, comm: m.read("proc", e.Name(), "comm")}
		for line := range strings.Lines(m.read("proc", e.Name(), "cgroup")) {
			if parts := strings.SplitN(strings.TrimSpace(line), ":", 3); len(parts) == 3 {
				p.cgroups = append(p.cgroups, parts[2])
			}
		}
		if len(p.cgroups) == 0 {
			continue
		}
		for line := range strings.Lines(m.read("proc", e.Name(), "status")) {
			if rest, ok := strings.CutPrefix(line, "Cpus_allowed_list:"); ok {
				p.affinity = strings.TrimSpace(rest)
			}
			if strings.HasPrefix(line, "State:") && strings.Contains(line, "Z (zombie)") {
				p.cgroups = nil
			}
		}
		if p.cgroups == nil {
			continue // it holds nothing any more
		}
		p.exe, _ = os.Readlink(filepath.Join(m.root, "proc", e.Name(), "exe"))
		all = append(all, p)
	}
	return all
}

// below returns the component after /parent/node/ of a path that has it.
func below(path, parent, node string) (string, bool) {
	_, rest, found := strings.Cut(path+"/", "/"+parent+"/"+node+"/")
	id, _, _ := strings.Cut(rest, "/")
	return id, found
}

// harvested joins the cgroups <parent>/<node>/<id> of all hierarchies, v1 and v2, and the processes in or below them.
func (m machine) harvested(parent, node string, all []process) []Cgroup {
	found := map[string]*Cgroup{}
	get := func(id string) *Cgroup {
		if found[id] == nil {
			found[id] = &Cgroup{ID: id, QuotaCores: -1, MemoryLimit: -1}
		}
		return found[id]
	}
	for _, hierarchy := range []string{"", "*"} {
		dirs, _ := filepath.Glob(filepath.Join(m.root, "sys/fs/cgroup", hierarchy, parent, node, "*"))
		for _, dir := range dirs {
			if st, err := os.Stat(dir); err == nil && st.IsDir() {
				m.limits(strings.TrimPrefix(dir, filepath.Clean(m.root)), get(filepath.Base(dir)))
			}
		}
	}
	for _, p := range all {
		for _, path := range p.cgroups {
			if id, ok := below(path, parent, node); ok {
				c := get(id)
				c.Pids = append(c.Pids, p.pid)
				c.affinity = append(c.affinity, p.affinity)
				break
			}
		}
	}
	var list []Cgroup
	for _, c := range found {
		if c.CPUs == "" && len(c.affinity) > 0 {
			c.CPUs = c.affinity[0]
		}
		list = append(list, *c)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].ID < list[j].ID })
	return list
}

// limits reads what a cgroup of either version says about itself; the files that another controller lacks are just not there.
func (m machine) limits(dir string, c *Cgroup) {
	if quota := number(m.read(dir, "cpu.cfs_quota_us"), -1); quota > 0 {
		c.QuotaCores = float64(quota) / float64(max(number(m.read(dir, "cpu.cfs_period_us"), 100_000), 1))
	}
	if quota, period, ok := strings.Cut(m.read(dir, "cpu.max"), " "); ok && quota != "max" {
		c.QuotaCores = float64(number(quota, 0)) / float64(max(number(period, 100_000), 1))
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.cpus.effective"} {
		if s := m.read(dir, file); s != "" && c.CPUs == "" {
			c.CPUs = s
		}
	}
	for _, file := range []string{"memory.limit_in_bytes", "memory.max"} {
		if n := number(m.read(dir, file), -1); n >= 0 && n < 1<<60 {
			c.MemoryLimit = n
		}
	}
	for _, file := range []string{"memory.usage_in_bytes", "memory.current"} {
		c.MemoryUsed = max(c.MemoryUsed, number(m.read(dir, file), 0))
	}
	if s := m.read(dir, "devices.list"); s != "" {
		c.Devices = strings.ReplaceAll(s, "\n", ", ")
	}
}

func number(s string, otherwise int64) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return otherwise
	}
	return n
}
