package slurmctld

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/gleaner-hpc/gleaner/slurmplugin/hostlist"
)

// ErrText is wrapped by errors about output of Slurm's commands that makes no sense.
var ErrText = errors.New("unexpected output of Slurm's commands")

// fields splits a line of scontrol -o into its Key=value words; the first of a key wins. A value ends at the next blank, which is
// wrong only for OS, Reason and Comment.
func fields(line string) map[string]string {
	out := map[string]string{}
	for word := range strings.FieldsSeq(line) {
		if key, value, ok := strings.Cut(word, "="); ok && out[key] == "" {
			out[key] = value
		}
	}
	return out
}

// known returns a value, or "" for the ways in which Slurm says that there is none.
func known(value string) string {
	switch value {
	case "(null)", "N/A", "Unknown", "None", "n/s", "NONE":
		return ""
	}
	return value
}

func parseNodes(text string) ([]Node, error) {
	var nodes []Node
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "NodeName=") {
			continue // "No nodes in the system" and blank lines
		}
		n, err := parseNode(strings.TrimSpace(line))
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

func parseNode(line string) (Node, error) {
	line, reason := cutReason(line)
	f := fields(line)
	n := Node{Name: f["NodeName"], Reason: reason, GPUs: gpus(f["Gres"]), AllocatedGPUs: gpus(f["GresUsed"])}
	n.State, n.Flags = nodeState([]string{f["State"]})
	if p := known(f["Partitions"]); p != "" {
		n.Partitions = strings.Split(p, ",")
	}
	var sockets, cores, boards int
	for key, into := range map[string]*int{"CPUTot": &n.CPUs, "CPUAlloc": &n.AllocatedCPUs, "Sockets": &sockets,
		"CoresPerSocket": &cores, "ThreadsPerCore": &n.ThreadsPerCore, "Boards": &boards} {
		value, err := strconv.ParseUint(f[key], 10, 24)
		if err != nil {
			return n, fmt.Errorf("%w: node %q: %s is %q", ErrText, n.Name, key, f[key])
		}
		*into = int(value)
	}
	n.Cores = sockets * cores
	for key, into := range map[string]*uint64{"RealMemory": &n.MemoryMiB, "AllocMem": &n.AllocatedMiB, "FreeMem": &n.FreeMiB,
		"MemSpecLimit": &n.SpecMemoryMiB} {
		if f[key] == "" || known(f[key]) == "" {
			continue
		}
		value, err := strconv.ParseUint(f[key], 10, 52)
		if err != nil {
			return n, fmt.Errorf("%w: node %q: %s is %q", ErrText, n.Name, key, f[key])
		}
		*into = value
	}
	if load, err := strconv.ParseFloat(f["CPULoad"], 64); err == nil && load >= 0 && load < 1e6 {
		n.CPULoadHundreds = int(load*100 + 0.5)
	}
	return n, nil
}

// cutReason takes "Reason=some text [root@2026-11-23T05:06:27]" off the line: it holds blanks and stands last.
func cutReason(line string) (rest, reason string) {
	rest, reason, _ = strings.Cut(line, " Reason=")
	if i := strings.LastIndex(reason, " ["); i >= 0 {
		reason = reason[:i]
	}
	return rest, strings.TrimSpace(reason)
}

// squeueFormat holds only fields that Slurm itself writes: id, state, uid, user, account, partition, start, end, nodes, nodes where it
// is expected to start, whether others may share its nodes.
const squeueFormat = "%A|%T|%U|%u|%a|%P|%S|%e|%N|%Y|%h"

func parseQueue(text string) ([]Job, error) {
	var jobs []Job
	seen := map[uint32]bool{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		f := strings.Split(line, "|")
		if len(f) != 11 {
			return nil, fmt.Errorf("%w: squeue line %q has %d fields", ErrText, line, len(f))
		}
		id, err := strconv.ParseUint(f[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%w: job id %q", ErrText, f[0])
		}
		uid, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%w: job %d: uid %q", ErrText, id, f[2])
		}
		state := jobState([]string{f[1]})
		if state == "" || seen[uint32(id)] {
			continue
		}
		seen[uint32(id)] = true
		job := Job{ID: uint32(id), State: state, UID: uint32(uid), User: f[3], Account: known(f[4]), Partition: known(f[5]), Exclusive: f[10] == "NO"}
		if job.Start, job.End, err = times(f[6], f[7]); err != nil {
			return nil, fmt.Errorf("job %d: %w", id, err)
		}
		if state == "pending" {
			job.Expected, _ = hostlist.Expand(known(f[9])) // a hint, on which nothing depends
		} else if job.Nodes, err = emptyShares(known(f[8])); err != nil {
			return nil, fmt.Errorf("%w: job %d: %w", ErrText, id, err)
		}
		jobs = append(jobs, job)
	}
	return jobs, nil
}

func times(start, end string) (s, e time.Time, err error) {
	for text, into := range map[string]*time.Time{start: &s, end: &e} {
		if text = known(text); text == "" || text == "INVALID" {
			continue
		}
		if *into, err = time.Parse("2006-01-02T15:04:05", text); err != nil {
			return s, e, fmt.Errorf("%w: time %q", ErrText, text)
		}
	}
	return s, e, nil
}

func emptyShares(nodes string) ([]Share, error) {
	names, err := hostlist.Expand(nodes)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	shares := make([]Share, len(names))
	for i, name := range names {
		shares[i].Node = name
	}
	return shares, nil
}
