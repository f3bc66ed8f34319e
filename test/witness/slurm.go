package main

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// job is the witness's own, as Slurm's environment tells it.
type job struct {
	get func(string) string
}

func (j job) node() string { return j.get("SLURMD_NODENAME") }

// step is "batch" in the batch script itself, else the step's number.
func (j job) step() string {
	if j.get("SLURM_STEP_ID") == "" || j.get("SLURM_PROCID") == "" || j.get("SLURM_STEP_NODELIST") == "" {
		return "batch"
	}
	return j.get("SLURM_STEP_ID")
}

func (j job) gpus() []string {
	s := j.get("SLURM_JOB_GPUS")
	if s == "" {
		s = j.get("SLURM_STEP_GPUS")
	}
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// allocation is what Slurm gave on one node.
type allocation struct {
	cpus     int
	memoryMB int64
}

// node is what scontrol says about one.
type nodeSize struct {
	cpus     int
	memoryMB int64
}

func (m machine) size(node string) (nodeSize, error) {
	out, err := m.scontrol("show", "node", node, "-o")
	if err != nil {
		return nodeSize{}, fmt.Errorf("scontrol show node %s: %w", node, err)
	}
	s := nodeSize{int(number(field(out, "CPUTot"), 0)), number(field(out, "RealMemory"), 0)}
	if s.cpus == 0 || s.memoryMB == 0 {
		return s, fmt.Errorf("scontrol show node %s: no CPUTot or RealMemory in its answer", node)
	}
	return s, nil
}

// field returns the value of the first NAME=value in scontrol's text.
func field(text, name string) string {
	for f := range strings.FieldsSeq(text) {
		if v, ok := strings.CutPrefix(f, name+"="); ok {
			return v
		}
	}
	return ""
}

// started returns the jobs which have a process of a user on the node: those that the owner-first rule is about.
func started(all []process, node string) map[string]bool {
	jobs := map[string]bool{}
	for _, p := range all {
		for _, path := range p.cgroups {
			ours := strings.Contains(path, "slurm_"+node+"/") || strings.Contains(path, "/"+node+"_slurmstepd.scope/") ||
				strings.Contains(path, "/slurmstepd.scope/")
			id := jobInPath.FindStringSubmatch(path)
			if ours && id != nil && !strings.Contains(path, "/step_extern") && p.comm != "slurmstepd" {
				jobs[id[1]] = true
			}
		}
	}
	return jobs
}

var jobInPath = regexp.MustCompile(`/job_(\d+)/`)

// allocations returns what each started job has on the node. The witness's own is always among them.
func (m machine) allocations(node, own string, all []process) (map[string]allocation, error) {
	jobs := started(all, node)
	jobs[own] = true
	given := map[string]allocation{}
	for id := range jobs {
		out, err := m.scontrol("show", "job", "-d", "-o", id)
		if err != nil {
			return nil, fmt.Errorf("scontrol show job %s: %w", id, err)
		}
		if a, ok := onNode(record(out, id), node); ok {
			given[id] = a
		}
	}
	if _, ok := given[own]; !ok {
		return nil, fmt.Errorf("scontrol show job %s: it has nothing on node %s", own, node)
	}
	return given, nil
}

// record picks a job's own line: asked for the first of an array or of a heterogeneous job, scontrol tells all of them.
func record(text, id string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "JobId="+id+" ") {
			return line
		}
	}
	return ""
}

// onNode reads the parts "Nodes=n[1-2] CPU_IDs=0-3 Mem=100 GRES=" of scontrol show job -d.
func onNode(text, node string) (allocation, bool) {
	words := strings.Fields(text)
	for i, w := range words {
		list, ok := strings.CutPrefix(w, "Nodes=")
		if !ok || i+2 >= len(words) {
			continue
		}
		ids, ok1 := strings.CutPrefix(words[i+1], "CPU_IDs=")
		mem, ok2 := strings.CutPrefix(words[i+2], "Mem=")
		if ok1 && ok2 && slices.Contains(expand(list), node) {
			return allocation{len(cpuList(ids)), number(mem, 0)}, true
		}
	}
	return allocation{}, false
}

// expand writes out a host list such as "n[1-3,7],m5".
func expand(list string) []string {
	var names []string
	for list != "" {
		prefix, rest := list, ""
		if i := strings.IndexAny(list, "[,"); i >= 0 {
			prefix, rest = list[:i], list[i:]
		}
		if !strings.HasPrefix(rest, "[") {
			names, list = append(names, prefix), strings.TrimPrefix(rest, ",")
			continue
		}
		inner, after, _ := strings.Cut(rest[1:], "]")
		for part := range strings.SplitSeq(inner, ",") {
			from, to, isRange := strings.Cut(part, "-")
			if !isRange {
				to = from
			}
			a, _ := strconv.Atoi(from)
			b, _ := strconv.Atoi(to)
			for n := a; n <= b && n-a < 100_000; n++ {
				names = append(names, fmt.Sprintf("%s%0*d", prefix, len(from), n))
			}
		}
		list = strings.TrimPrefix(after, ",")
	}
	return names
}

// cpuList writes out "0-2,5".
func cpuList(s string) []int {
	var list []int
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			to = from
		}
		a, err1 := strconv.Atoi(from)
		b, err2 := strconv.Atoi(to)
		for n := a; err1 == nil && err2 == nil && n <= b && n-a < 100_000; n++ {
			list = append(list, n)
		}
	}
	return list
}
