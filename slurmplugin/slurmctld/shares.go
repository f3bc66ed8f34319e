package slurmctld

import (
	"strconv"
	"strings"

	"github.com/gleaner-hpc/gleaner/slurmplugin/hostlist"
)

// addShares fills in what scontrol -d says that jobs hold. Its text may be forged by a job's name, so it is believed only where it
// is the only record of a job and speaks of exactly the nodes that squeue names; otherwise the shares stay without details.
func addShares(v *View, text string) {
	records := map[uint32][]string{}
	for line := range strings.Lines(text) {
		word, rest, _ := strings.Cut(line, " ")
		digits, ok := strings.CutPrefix(word, "JobId=")
		if id, err := strconv.ParseUint(digits, 10, 32); ok && err == nil {
			records[uint32(id)] = append(records[uint32(id)], rest)
		}
	}
	nodes := make(map[string]*Node, len(v.Nodes))
	for i := range v.Nodes {
		nodes[v.Nodes[i].Name] = &v.Nodes[i]
	}
	for i := range v.Jobs {
		job := &v.Jobs[i]
		if lines := records[job.ID]; len(lines) == 1 && len(job.Nodes) > 0 {
			fillShares(job.Nodes, details(lines[0]), nodes)
		}
	}
}

// detail is one "Nodes=n[1-2] CPU_IDs=0-1 Mem=200 GRES=gpu:1(IDX:0)".
type detail struct{ nodes, cpus, mem, gres string }

// details reads the part of a job's record that stands between JOB_GRES and MinCPUsNode, from the last of them: what a name holds
// comes earlier.
func details(line string) []detail {
	start := strings.LastIndex(line, " JOB_GRES=")
	if start < 0 {
		return nil
	}
	part, _, found := strings.Cut(line[start:], " MinCPUsNode=")
	if !found {
		return nil
	}
	var out []detail
	for word := range strings.FieldsSeq(part) {
		key, value, _ := strings.Cut(word, "=")
		if key == "Nodes" {
			out = append(out, detail{nodes: value})
		}
		if len(out) == 0 {
			continue
		}
		last := &out[len(out)-1]
		switch key {
		case "CPU_IDs":
			last.cpus = value
		case "Mem":
			last.mem = value
		case "GRES":
			last.gres = value
		}
	}
	return out
}

func fillShares(shares []Share, parts []detail, nodes map[string]*Node) {
	found := map[string]Share{}
	for _, part := range parts {
		names, err := hostlist.Expand(part.nodes)
		if err != nil {
			return
		}
		for _, name := range names {
			share, ok := part.share(nodes[name])
			if !ok {
				return
			}
			found[name] = share
		}
	}
	if len(found) != len(shares) {
		return
	}
	for _, share := range shares {
		if _, ok := found[share.Node]; !ok {
			return
		}
	}
	for i := range shares {
		shares[i] = found[shares[i].Node]
	}
}

// cpusPerCore is how many of Slurm's CPUs make a core: its threads where Slurm counts each as a CPU, else 1.
func (n *Node) cpusPerCore() int {
	if n.ThreadsPerCore > 1 && n.CPUs >= n.Cores*n.ThreadsPerCore {
		return n.ThreadsPerCore
	}
	return 1
}

// share turns abstract CPU ids into core numbers: core c is CPUs c×cpusPerCore and up.
func (d detail) share(n *Node) (Share, bool) {
	if n == nil {
		return Share{}, false
	}
	cpus, err := hostlist.Numbers(d.cpus)
	if err != nil {
		return Share{}, false
	}
	for i := range cpus {
		cpus[i] /= n.cpusPerCore()
	}
	s := Share{Node: n.Name, Cores: hostlist.FormatNumbers(cpus), GPUs: gpus(d.gres)}
	cores, _ := hostlist.Numbers(s.Cores)
	s.CoreCount = len(cores)
	if s.MiB, err = strconv.ParseUint(d.mem, 10, 52); err != nil && d.mem != "" {
		return Share{}, false
	}
	return s, true
}
