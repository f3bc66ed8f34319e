package slurmctld

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/gleaner-hpc/gleaner/slurmplugin/hostlist"
)

// restResources is job_resources: allocated_nodes to 0.0.40, nodes.allocation after it.
type restResources struct {
	Allocated looseList[restShare] `json:"allocated_nodes"`
	Nodes     restAllocation       `json:"nodes"`
}

// restAllocation is an object in newer versions and a node list, of no use here, in older ones.
type restAllocation struct {
	Allocation looseList[restShare]
}

func (a *restAllocation) UnmarshalJSON(b []byte) error {
	if len(b) == 0 || b[0] != '{' {
		return nil
	}
	var o struct {
		Allocation looseList[restShare] `json:"allocation"`
	}
	err := json.Unmarshal(b, &o)
	a.Allocation = o.Allocation
	return err
}

type shareList []restShare

func (r *restResources) list() shareList {
	if len(r.Allocated) > 0 {
		return shareList(r.Allocated)
	}
	return shareList(r.Nodes.Allocation)
}

// of finds a node's share by name, or by position where the version names none (to 0.0.37).
func (l shareList) of(name string, position, nodes int) *restShare {
	for i := range l {
		if l[i].name() == name {
			return &l[i]
		}
	}
	if len(l) == nodes && l[position].name() == "" {
		return &l[position]
	}
	return nil
}

// restShare is what a job holds on one node.
type restShare struct {
	NodeName string      `json:"nodename"`
	Name     string      `json:"name"`
	Sockets  restSockets `json:"sockets"`
	Memory   restMemory  `json:"memory"`
	MemoryMB looseNumber `json:"memory_allocated"` // 0.0.38 to 0.0.40
	CPUs     restCount   `json:"cpus"`
}

func (s *restShare) name() string {
	if s.NodeName != "" {
		return s.NodeName
	}
	return s.Name
}

// fill writes the share. Of a node that is not known there is a count but no list.
func (s *restShare) fill(to *Share, node layout) {
	to.MiB = s.MemoryMB.value
	if !s.MemoryMB.known {
		to.MiB = s.Memory.allocated.value
	}
	cores := make([]int, 0, len(s.Sockets))
	for _, c := range s.Sockets {
		if c.core >= node.coresPerSocket || c.socket > 1<<12 {
			cores = nil
			break
		}
		cores = append(cores, c.socket*node.coresPerSocket+c.core)
	}
	to.Cores = hostlist.FormatNumbers(cores)
	if to.CoreCount = len(s.Sockets); to.CoreCount == 0 {
		per := max(node.cpusPerCore, 1)
		to.CoreCount = (s.CPUs.value.int() + per - 1) / per
	}
}

// restCount is a number or {count, used}.
type restCount struct{ value looseNumber }

func (c *restCount) UnmarshalJSON(b []byte) error {
	var o struct {
		Count looseNumber `json:"count"`
	}
	if len(b) > 0 && b[0] == '{' && bytes.Contains(b, []byte(`"count"`)) {
		err := json.Unmarshal(b, &o)
		c.value = o.Count
		return err
	}
	return c.value.UnmarshalJSON(b)
}

// restMemory is a number or {used, allocated}.
type restMemory struct{ allocated looseNumber }

func (m *restMemory) UnmarshalJSON(b []byte) error {
	var o struct {
		Allocated looseNumber `json:"allocated"`
	}
	if len(b) > 0 && b[0] == '{' && bytes.Contains(b, []byte(`"allocated"`)) {
		err := json.Unmarshal(b, &o)
		m.allocated = o.Allocated
		return err
	}
	return m.allocated.UnmarshalJSON(b)
}

// restSockets is the list of allocated cores. Its forms: {"5": {"cores": {"0": "allocated"}}} to 0.0.40,
// [{"index": 5, "cores": [{"index": 0, "status": ["ALLOCATED"]}]}] after it, and {"5": "unassigned"} to 0.0.37, which names
// sockets but not their cores and is left out.
type restSockets []restCore

type restCore struct{ socket, core int }

func (s *restSockets) UnmarshalJSON(b []byte) error {
	*s = nil
	if len(b) == 0 || (b[0] != '{' && b[0] != '[') {
		return nil
	}
	if b[0] == '[' {
		return s.list(b)
	}
	var sockets map[string]json.RawMessage
	if err := json.Unmarshal(b, &sockets); err != nil {
		return err
	}
	for socket, body := range sockets {
		var one struct {
			Cores map[string]looseStrings `json:"cores"`
		}
		if len(body) == 0 || body[0] != '{' {
			continue
		}
		if err := json.Unmarshal(body, &one); err != nil {
			return err
		}
		for core, status := range one.Cores {
			i, err1 := strconv.Atoi(socket)
			j, err2 := strconv.Atoi(core)
			if err1 == nil && err2 == nil && i >= 0 && j >= 0 && allocated(status) {
				*s = append(*s, restCore{i, j})
			}
		}
	}
	return nil
}

func (s *restSockets) list(b []byte) error {
	var sockets []struct {
		Index looseNumber `json:"index"`
		Cores []struct {
			Index  looseNumber  `json:"index"`
			Status looseStrings `json:"status"`
		} `json:"cores"`
	}
	if err := json.Unmarshal(b, &sockets); err != nil {
		return err
	}
	for _, socket := range sockets {
		for _, core := range socket.Cores {
			if allocated(core.Status) {
				*s = append(*s, restCore{socket.Index.int(), core.Index.int()})
			}
		}
	}
	return nil
}

func allocated(status looseStrings) bool {
	for _, word := range status {
		word = strings.ToLower(word)
		if strings.Contains(word, "allocated") && !strings.Contains(word, "unallocated") {
			return true
		}
	}
	return false
}
