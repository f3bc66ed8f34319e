package slurmctld

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/gleaner-hpc/gleaner/slurmplugin/hostlist"
)

// ErrAnswer is wrapped by errors about answers of slurmrestd that make no sense.
var ErrAnswer = errors.New("unexpected answer of slurmrestd")

type restNode struct {
	Name        string       `json:"name"`
	State       looseStrings `json:"state"`
	StateFlags  looseStrings `json:"state_flags"`
	Reason      string       `json:"reason"`
	Partitions  looseStrings `json:"partitions"`
	CPUs        looseNumber  `json:"cpus"`
	Sockets     looseNumber  `json:"sockets"`
	Cores       looseNumber  `json:"cores"` // per socket
	Threads     looseNumber  `json:"threads"`
	AllocCPUs   looseNumber  `json:"alloc_cpus"`
	RealMemory  looseNumber  `json:"real_memory"`
	SpecMemory  looseNumber  `json:"specialized_memory"`
	AllocMemory looseNumber  `json:"alloc_memory"`
	FreeMemory  looseNumber  `json:"free_memory"` // to 0.0.38
	FreeMem     looseNumber  `json:"free_mem"`    // from 0.0.39
	CPULoad     looseNumber  `json:"cpu_load"`
	GRES        string       `json:"gres"`
	GRESUsed    string       `json:"gres_used"`
}

// layout is how a node's cores are numbered. Zero means that the node is not known.
type layout struct{ coresPerSocket, cpusPerCore int }

// decodeNodes reads the answer to /nodes. tells is false when this version says nothing of what is allocated (0.0.36).
func decodeNodes(body []byte) (nodes []Node, layouts map[string]layout, tells bool, err error) {
	var answer struct {
		Errors []json.RawMessage `json:"errors"`
		Nodes  []restNode        `json:"nodes"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, nil, false, fmt.Errorf("%w: nodes: %w", ErrAnswer, err)
	}
	if len(answer.Errors) > 0 {
		return nil, nil, false, fmt.Errorf("%w: nodes: %s", ErrAnswer, firstError(body))
	}
	layouts = make(map[string]layout, len(answer.Nodes))
	for _, in := range answer.Nodes {
		if in.Name == "" {
			return nil, nil, false, fmt.Errorf("%w: a node without name", ErrAnswer)
		}
		n := in.node()
		layouts[n.Name] = layout{coresPerSocket: in.Cores.int(), cpusPerCore: n.cpusPerCore()}
		tells = tells || in.AllocCPUs.known
		nodes = append(nodes, n)
	}
	return nodes, layouts, tells, nil
}

func (in *restNode) node() Node {
	free := in.FreeMemory
	if in.FreeMem.known {
		free = in.FreeMem
	}
	n := Node{
		Name: in.Name, Reason: in.Reason, Partitions: in.Partitions,
		CPUs: in.CPUs.int(), Cores: in.Sockets.int() * min(in.Cores.int(), 1<<12), ThreadsPerCore: in.Threads.int(),
		AllocatedCPUs: in.AllocCPUs.int(), MemoryMiB: in.RealMemory.value, SpecMemoryMiB: in.SpecMemory.value,
		AllocatedMiB: in.AllocMemory.value, GPUs: gpus(in.GRES), AllocatedGPUs: gpus(in.GRESUsed),
	}
	if free.value < 1<<52 { // 2^64-2 stands for unknown
		n.FreeMiB = free.value
	}
	if in.CPULoad.value < 1<<31 {
		n.CPULoadHundreds = in.CPULoad.int()
	}
	n.State, n.Flags = nodeState(append(append([]string{}, in.State...), in.StateFlags...))
	return n
}

type restJob struct {
	ID        looseNumber   `json:"job_id"`
	State     looseStrings  `json:"job_state"`
	UID       looseNumber   `json:"user_id"`
	User      string        `json:"user_name"`
	Account   string        `json:"account"`
	Partition string        `json:"partition"`
	Start     looseNumber   `json:"start_time"`
	End       looseNumber   `json:"end_time"`
	TimeLimit looseNumber   `json:"time_limit"`
	Nodes     string        `json:"nodes"`
	Scheduled string        `json:"scheduled_nodes"`
	Shared    looseStrings  `json:"shared"` // "none": others may not
	GRES      []string      `json:"gres_detail"`
	Resources restResources `json:"job_resources"`
}

// decodeJobs reads the answer to /jobs.
func decodeJobs(body []byte, layouts map[string]layout) ([]Job, error) {
	var answer struct {
		Errors []json.RawMessage `json:"errors"`
		Jobs   []restJob         `json:"jobs"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("%w: jobs: %w", ErrAnswer, err)
	}
	if len(answer.Errors) > 0 {
		return nil, fmt.Errorf("%w: jobs: %s", ErrAnswer, firstError(body))
	}
	var jobs []Job
	for _, in := range answer.Jobs {
		state := jobState(in.State)
		if state == "" {
			continue
		}
		if !in.ID.known || in.ID.value > 1<<32-1 || !in.UID.known || in.UID.value > 1<<32-1 {
			return nil, fmt.Errorf("%w: a job without id or uid", ErrAnswer)
		}
		job := Job{
			ID: uint32(in.ID.value), State: state, UID: uint32(in.UID.value), User: in.User,
			Account: in.Account, Partition: in.Partition, Start: in.Start.time(),
			Exclusive: slices.Contains(in.Shared, "none"),
		}
		if state == "pending" {
			job.Expected, _ = hostlist.Expand(in.Scheduled) // a hint, on which nothing depends
		}
		if in.TimeLimit.known {
			job.End = in.End.time()
		}
		if state != "pending" && in.Nodes != "" {
			shares, err := in.shares(layouts)
			if err != nil {
				return nil, fmt.Errorf("%w: job %d: %w", ErrAnswer, job.ID, err)
			}
			job.Nodes = shares
		}
		jobs = append(jobs, job)
	}
	return jobs, nil
}

func (in *restJob) shares(layouts map[string]layout) ([]Share, error) {
	names, err := hostlist.Expand(in.Nodes)
	if err != nil {
		return nil, err
	}
	shares := make([]Share, len(names))
	allocated := in.Resources.list()
	for i, name := range names {
		shares[i].Node = name
		if i < len(in.GRES) {
			shares[i].GPUs = gpus(in.GRES[i])
		}
		if found := allocated.of(name, i, len(names)); found != nil {
			found.fill(&shares[i], layouts[name])
		}
	}
	return shares, nil
}
