package trace

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// NodesFormat is what 'sinfo --Node --noheader --format' should be asked for.
const NodesFormat = "%N|%c|%m"

// ReadNodes reads the machine: a line for each node with its name, CPUs and MB, which may repeat for each partition.
func ReadNodes(file string, r io.Reader) ([]Node, error) {
	var nodes []Node
	seen := map[string]bool{}
	err := lines(file, r, func(n int, text string) error {
		if strings.TrimSpace(text) == "" {
			return nil
		}
		cells := strings.Split(strings.TrimSpace(text), "|")
		if len(cells) != 3 {
			return fault(file, n, "want NAME|CPUS|MB, as sinfo --Node --noheader --format='%s' writes it", NodesFormat)
		}
		node := Node{Name: strings.TrimSpace(cells[0])}
		if err := count(strings.TrimSuffix(strings.TrimSpace(cells[1]), "+"), &node.Cores); err != nil {
			return fault(file, n, "CPUs: %w", err)
		}
		megabytes, err := size(strings.TrimSuffix(strings.TrimSpace(cells[2]), "+") + "M")
		if err != nil {
			return fault(file, n, "MB: %w", err)
		}
		node.Memory = megabytes
		if node.Name == "" || node.Cores < 1 || node.Cores > 1<<16 || len(nodes) == Most {
			return fault(file, n, "node %q of %d CPUs", node.Name, node.Cores)
		}
		if !seen[node.Name] {
			seen[node.Name] = true
			nodes = append(nodes, node)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(nodes) == 0 {
		return nil, fault(file, 1, "no node in it")
	}
	return nodes, nil
}

// window settles from when to when the machine is looked at.
func (s *sacct) window(w Window) {
	s.from, s.until = w.From, w.Until
	for i := range s.rows {
		j := &s.rows[i]
		if w.From.IsZero() && (s.from.IsZero() || j.start.Before(s.from)) {
			s.from = j.start
		}
		if last := latest(j.start, j.end); w.Until.IsZero() && last.After(s.until) {
			s.until = last
		}
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// trace counts times from the window's start.
func (s *sacct) trace(shape Shape) (*Trace, error) {
	t := &Trace{Origin: s.from, Span: s.until.Sub(s.from), Nodes: s.nodes}
	if t.Span > longestSpan*time.Second {
		return nil, fault(s.file, s.last, "jobs from %s to %s, want a hundred years at most", s.from.Format(time.DateTime), s.until.Format(time.DateTime))
	}
	if err := s.machine(t, shape); err != nil {
		return nil, err
	}
	outside := 0
	for i := range s.rows {
		j := &s.rows[i]
		end := j.end
		if end.IsZero() {
			s.open++
			end = s.until
		}
		if !end.After(s.from) || !j.start.Before(s.until) {
			outside++
			continue
		}
		job := Job{
			Line: j.line, Submit: j.submit.Sub(s.from), Start: max(0, j.start.Sub(s.from)), End: min(t.Span, end.Sub(s.from)), Limit: j.limit,
			On: j.nodes, Cores: j.cores,
		}
		if j.limit > 0 { // counts from the real start, also where the window cuts it
			job.Limit += min(0, j.start.Sub(s.from))
		}
		if nodes := uint64(max(1, len(j.nodes), j.count)); j.memory > 0 {
			job.Memory, job.Used = j.memory/nodes, j.used/nodes
		}
		if job.On == nil {
			if err := s.fits(&job, j.count, t); err != nil {
				return nil, err
			}
		}
		t.Jobs = append(t.Jobs, job)
	}
	if len(t.Jobs) == 0 {
		return nil, fault(s.file, s.last, "%w from %s to %s", ErrEmpty, s.from.Format(time.DateTime), s.until.Format(time.DateTime))
	}
	sortJobs(t.Jobs)
	noteCount(&t.Notes, s.never, "%d jobs that never ran are left out.")
	noteCount(&t.Notes, s.open, "%d jobs had no end yet; they run until the end of the time that is looked at.")
	noteCount(&t.Notes, outside, "%d jobs lie outside the time that is looked at.")
	return t, nil
}

// fits settles what a job without named nodes takes.
func (s *sacct) fits(job *Job, nodes int, t *Trace) error {
	if job.Cores == 0 {
		job.Whole = nodes
	}
	total := 0
	for _, n := range t.Nodes {
		total += n.Cores
	}
	if job.Whole > len(t.Nodes) || job.Cores > total {
		return fault(s.file, job.Line, "job of %d nodes, %d CPUs on a machine of %d and %d; give --nodes and --cores-per-node", nodes, job.Cores, len(t.Nodes), total)
	}
	return nil
}

// machine fills in what is not known of the nodes.
func (s *sacct) machine(t *Trace, shape Shape) error {
	if !s.given {
		for i := len(t.Nodes); i < shape.Nodes && i < Most; i++ {
			t.Nodes = append(t.Nodes, Node{Name: fmt.Sprintf("unseen%05d", i+1)})
		}
		if len(t.Nodes) == 0 {
			return fault(s.file, s.last, "no job says on which nodes it ran; give --nodes and --cores-per-node")
		}
		t.Notes = append(t.Notes, fmt.Sprintf("The machine is taken to be the %d nodes that jobs ran on, with as many CPUs and as much memory as any job had of them; "+
			"idle nodes that no job used are not seen. Give the machine with --machine.", len(t.Nodes)))
	}
	most := Node{}
	for _, n := range t.Nodes {
		most.Cores, most.Memory = max(most.Cores, n.Cores), max(most.Memory, n.Memory)
	}
	for i := range t.Nodes {
		n := &t.Nodes[i]
		if shape.Cores > 0 {
			n.Cores = shape.Cores
		}
		if n.Cores == 0 {
			n.Cores = max(1, most.Cores)
		}
		if shape.Memory > 0 {
			n.Memory = shape.Memory
		}
	}
	if most.Memory == 0 && shape.Memory == 0 {
		shape.Memory = shape.memoryOf(1, &t.Notes)
		for i := range t.Nodes {
			t.Nodes[i].Memory = shape.Memory * uint64(t.Nodes[i].Cores)
		}
	}
	for i := range t.Nodes {
		if t.Nodes[i].Memory == 0 {
			t.Nodes[i].Memory = most.Memory
		}
	}
	s.order(t)
	return nil
}

// order sorts nodes by name, so that the machine does not depend on which job came first.
func (s *sacct) order(t *Trace) {
	order := make([]int32, len(t.Nodes))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int { return strings.Compare(t.Nodes[a].Name, t.Nodes[b].Name) })
	sorted, place := make([]Node, len(order)), make([]int32, len(order))
	for to, from := range order {
		sorted[to], place[from] = t.Nodes[from], int32(to)
	}
	t.Nodes = sorted
	for i := range s.rows {
		for k, node := range s.rows[i].nodes {
			s.rows[i].nodes[k] = place[node]
		}
	}
}
