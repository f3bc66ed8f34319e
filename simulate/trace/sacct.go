package trace

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gleaner-hpc/gleaner/slurmplugin/hostlist"
)

// SacctFormat is what 'sacct --parsable2 --format' should be asked for; what is missing is made up for, but Start and End.
const SacctFormat = "JobIDRaw,Submit,Start,End,State,Timelimit,NNodes,NCPUS,AllocTRES,NTasks,MaxRSS,NodeList"

// sacct is what has been read so far.
type sacct struct {
	file    string
	zone    *time.Location
	columns map[string]int
	width   int
	rows    []sacctJob
	byID    map[string]int
	last    int
	never   int // jobs that never ran
	open    int // jobs that run on
	from    time.Time
	until   time.Time
	names   map[string]int32
	nodes   []Node
	given   bool // the nodes were
}

// sacctJob is a job before times are counted from the trace's start.
type sacctJob struct {
	line               int
	submit, start, end time.Time // end is zero while it runs
	limit              time.Duration
	count, cores       int
	memory, used       uint64 // on all nodes together
	nodes              []int32
}

// Window is the time that a trace is cut to; zero times take the trace's own.
type Window struct{ From, Until time.Time }

// ReadSacct reads what sacct --parsable2 prints, heading included, one line for each job; lines of steps add what memory was used. zone
// is the one in which sacct ran. nodes is the machine, as ReadNodes reads it; nil: the nodes that jobs ran on.
func ReadSacct(file string, r io.Reader, zone *time.Location, window Window, nodes []Node, shape Shape) (*Trace, error) {
	s := &sacct{file: file, zone: zone, byID: map[string]int{}, names: map[string]int32{}, nodes: slices.Clone(nodes), given: len(nodes) > 0}
	for i, n := range nodes {
		s.names[n.Name] = int32(i)
	}
	if err := lines(file, r, s.line); err != nil {
		return nil, err
	}
	s.window(window)
	if s.columns == nil || len(s.rows) == 0 || !s.from.Before(s.until) {
		return nil, fault(file, max(s.last, 1), "%w", ErrEmpty)
	}
	return s.trace(shape)
}

func (s *sacct) line(n int, text string) error {
	s.last = n
	text = strings.TrimRight(text, "\r")
	if strings.TrimSpace(text) == "" {
		return nil
	}
	cells := strings.Split(text, "|")
	if s.columns == nil {
		return s.heading(n, cells)
	}
	if len(cells) != s.width {
		return fault(s.file, n, "%d columns, the heading has %d; was it written with --parsable2?", len(cells), s.width)
	}
	id := s.cell(cells, "JobIDRaw", "JobID")
	if job, _, step := strings.Cut(id, "."); step {
		return s.step(n, job, cells)
	}
	return s.job(n, id, cells)
}

func (s *sacct) heading(n int, cells []string) error {
	s.columns, s.width = map[string]int{}, len(cells)
	for i, name := range cells {
		s.columns[strings.ToLower(strings.TrimSpace(name))] = i
	}
	for _, name := range []string{"start", "end"} {
		if _, ok := s.columns[name]; !ok {
			return fault(s.file, n, "no column %s; ask for sacct --parsable2 --format=%s", name, SacctFormat)
		}
	}
	return nil
}

// cell is the first of the columns that is there.
func (s *sacct) cell(cells []string, names ...string) string {
	for _, name := range names {
		if i, ok := s.columns[strings.ToLower(name)]; ok {
			return strings.TrimSpace(cells[i])
		}
	}
	return ""
}

func (s *sacct) job(n int, id string, cells []string) error {
	j := sacctJob{line: n}
	var err error
	for _, c := range []struct {
		name string
		into *time.Time
	}{{"Submit", &j.submit}, {"Start", &j.start}, {"End", &j.end}} {
		if *c.into, err = s.moment(s.cell(cells, c.name)); err != nil {
			return fault(s.file, n, "%s: %w", c.name, err)
		}
	}
	if j.start.IsZero() || !j.end.IsZero() && !j.end.After(j.start) {
		s.never++
		return nil
	}
	if j.limit, err = limit(s.cell(cells, "Timelimit")); err != nil {
		return fault(s.file, n, "Timelimit: %w", err)
	}
	for _, c := range []struct {
		name string
		into *int
	}{{"NNodes", &j.count}, {"NCPUS", &j.cores}, {"AllocCPUS", &j.cores}} {
		if err := count(s.cell(cells, c.name), c.into); err != nil {
			return fault(s.file, n, "%s: %w", c.name, err)
		}
	}
	if err := j.tres(s.cell(cells, "AllocTRES")); err != nil {
		return fault(s.file, n, "AllocTRES: %w", err)
	}
	if err := s.place(&j, s.cell(cells, "NodeList")); err != nil {
		return fault(s.file, n, "NodeList: %w", err)
	}
	if len(j.nodes) == 0 && j.count == 0 && j.cores == 0 {
		s.never++
		return nil
	}
	if s.byID[id] = len(s.rows); id == "" {
		delete(s.byID, id)
	}
	s.rows = append(s.rows, j)
	return nil
}

// step adds what its tasks touched: MaxRSS is that of the largest one.
func (s *sacct) step(n int, job string, cells []string) error {
	i, known := s.byID[job]
	text := s.cell(cells, "MaxRSS")
	if !known || text == "" {
		return nil
	}
	rss, err := size(text)
	if err != nil {
		return fault(s.file, n, "MaxRSS: %w", err)
	}
	tasks := 1
	if err := count(s.cell(cells, "NTasks"), &tasks); err != nil {
		return fault(s.file, n, "NTasks: %w", err)
	}
	s.rows[i].used = max(s.rows[i].used, uint64(min(float64(rss)*float64(max(1, tasks)), 1<<60)))
	return nil
}

// place finds the job's nodes; nodes seen for the first time join the machine unless that was given.
func (s *sacct) place(j *sacctJob, list string) error {
	if list == "" || strings.HasPrefix(list, "None") {
		return nil
	}
	names, err := hostlist.Expand(list)
	if err != nil {
		return err
	}
	seen := map[int32]bool{}
	for _, name := range names {
		i, known := s.names[name]
		if !known && s.given {
			continue
		}
		if !known {
			if len(s.nodes) == Most {
				return fmt.Errorf("more than %d nodes", Most)
			}
			i = int32(len(s.nodes))
			s.names[name] = i
			s.nodes = append(s.nodes, Node{Name: name})
		}
		if !seen[i] {
			seen[i] = true
			j.nodes = append(j.nodes, i)
		}
	}
	if n := len(names); !s.given && j.cores > 0 {
		for _, i := range j.nodes {
			s.nodes[i].Cores = max(s.nodes[i].Cores, min(1<<16, (j.cores+n-1)/n))
			s.nodes[i].Memory = max(s.nodes[i].Memory, j.memory/uint64(n))
		}
	}
	return nil
}

// moment reads a time of sacct; an unknown one is zero.
func (s *sacct) moment(text string) (time.Time, error) {
	switch text {
	case "", "Unknown", "None", "N/A":
		return time.Time{}, nil
	}
	if seconds, err := strconv.ParseInt(text, 10, 40); err == nil && seconds > 0 { // SLURM_TIME_FORMAT=%s
		return time.Unix(seconds, 0), nil
	}
	t, err := time.ParseInLocation("2006-01-02T15:04:05", text, s.zone)
	if err != nil || t.Year() < 1990 || t.Year() > 2200 {
		return time.Time{}, fmt.Errorf("time %q, want 2026-01-31T23:59:59", text)
	}
	return t, nil
}

// tres takes cpu, mem and node out of "billing=8,cpu=8,mem=16G,node=2".
func (j *sacctJob) tres(text string) error {
	for pair := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(pair, "=")
		var err error
		switch name {
		case "cpu":
			err = count(value, &j.cores)
		case "node":
			err = count(value, &j.count)
		case "mem":
			j.memory, err = size(value)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
