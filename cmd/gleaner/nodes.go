package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/client"
	"github.com/gleaner-hpc/gleaner/config"
)

func (a *app) nodesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "nodes", Short: "Show what each node has: in all, Slurm's, leased, free", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			broker, err := a.dial()
			if err != nil {
				return err
			}
			defer broker.Close()
			response, err := broker.Cluster().Nodes(c.Context(), &api.NodesRequest{})
			if err != nil {
				return client.Describe("list nodes", err)
			}
			if text := response.GetSlurmError(); text != "" {
				fmt.Fprintf(a.stderr, "gleaner: the broker cannot read slurmctld (states as of %s): %s\n", orNever(clock(response.GetSlurmAsOf())), text)
			}
			return a.print(nodeListing(response))
		},
	}
}

func orNever(s string) string {
	if s == "" {
		return "never"
	}
	return s
}

type resourcesJSON struct {
	Cores       uint32 `json:"cores"`
	MemoryBytes uint64 `json:"memory_bytes"`
	GPUs        uint32 `json:"gpus"`
}

type nodeJSON struct {
	Node         string        `json:"node"`
	SlurmState   string        `json:"slurm_state"`
	Connected    bool          `json:"connected"`
	Admitting    bool          `json:"admitting"`
	WhyNot       string        `json:"why_not,omitempty"`
	Note         string        `json:"note,omitempty"`
	Total        resourcesJSON `json:"total"`
	Slurm        resourcesJSON `json:"slurm"`
	Leased       resourcesJSON `json:"leased"`
	Free         resourcesJSON `json:"free"`
	Executors    uint32        `json:"executors"`
	AgentVersion string        `json:"agent_version"`
}

type nodesJSON struct {
	Schema     string     `json:"schema"`
	SlurmAsOf  string     `json:"slurm_as_of,omitempty"`
	SlurmError string     `json:"slurm_error,omitempty"`
	Nodes      []nodeJSON `json:"nodes"`
}

func nodeListing(response *api.NodesResponse) listing {
	l := listing{
		header:  []string{"node", "state", "cores", "slurm", "leased", "free", "memory", "slurm", "leased", "free", "exec", "note"},
		numeric: map[int]bool{2: true, 3: true, 4: true, 5: true, 6: true, 7: true, 8: true, 9: true, 10: true},
		csvNames: []string{"node", "slurm_state", "connected", "admitting", "cores", "cores_slurm", "cores_leased", "cores_free",
			"memory_bytes", "memory_bytes_slurm", "memory_bytes_leased", "memory_bytes_free", "gpus", "gpus_slurm", "gpus_leased", "gpus_free", "executors", "why_not", "note"},
	}
	document := nodesJSON{Schema: "gleaner.nodes/1", SlurmAsOf: rfc3339(response.GetSlurmAsOf()), SlurmError: response.GetSlurmError(), Nodes: []nodeJSON{}}
	for _, n := range response.GetNodes() {
		parts := []*api.Resources{n.GetTotal(), n.GetSlurm(), n.GetLeased(), n.GetFree()}
		l.rows = append(l.rows, nodeRow(n, parts))
		l.machine = append(l.machine, nodeCSV(n, parts))
		document.Nodes = append(document.Nodes, nodeJSON{n.GetNode(), n.GetSlurmState(), n.GetConnected(), n.GetAdmitting(), n.GetWhyNot(), n.GetNote(),
			resources(parts[0]), resources(parts[1]), resources(parts[2]), resources(parts[3]), n.GetExecutors(), n.GetAgentVersion()})
	}
	l.document = document
	return l
}

func nodeRow(n *api.NodeStatus, parts []*api.Resources) []string {
	cells := []string{n.GetNode(), n.GetSlurmState()}
	for _, r := range parts {
		cells = append(cells, fmt.Sprint(r.GetCores()))
	}
	for _, r := range parts {
		cells = append(cells, memoryCell(r.GetMemoryBytes()))
	}
	cells = append(cells, fmt.Sprint(n.GetExecutors()))
	var notes []string
	if gpus := n.GetTotal().GetGpus(); gpus > 0 {
		notes = append(notes, fmt.Sprintf("%d of %d GPUs free", n.GetFree().GetGpus(), gpus))
	}
	if note := n.GetNote(); note != "" {
		notes = append(notes, note)
	}
	switch {
	case !n.GetConnected():
		notes = append(notes, "no agent")
	case !n.GetAdmitting():
		notes = append(notes, "admits nothing: "+n.GetWhyNot())
	}
	return append(cells, strings.Join(notes, "; "))
}

func memoryCell(bytes uint64) string {
	if bytes == 0 {
		return "0"
	}
	return config.FormatMemory(bytes)
}

func nodeCSV(n *api.NodeStatus, parts []*api.Resources) []string {
	cells := []string{n.GetNode(), n.GetSlurmState(), strconv.FormatBool(n.GetConnected()), strconv.FormatBool(n.GetAdmitting())}
	for _, get := range []func(*api.Resources) uint64{
		func(r *api.Resources) uint64 { return uint64(r.GetCores()) },
		func(r *api.Resources) uint64 { return r.GetMemoryBytes() },
		func(r *api.Resources) uint64 { return uint64(r.GetGpus()) },
	} {
		for _, r := range parts {
			cells = append(cells, strconv.FormatUint(get(r), 10))
		}
	}
	return append(cells, fmt.Sprint(n.GetExecutors()), n.GetWhyNot(), n.GetNote())
}

func resources(r *api.Resources) resourcesJSON {
	return resourcesJSON{r.GetCores(), r.GetMemoryBytes(), r.GetGpus()}
}
