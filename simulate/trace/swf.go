package trace

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

// The columns of the Standard Workload Format 2.2, from 0. Unknown values are -1.
const (
	swfSubmit    = 1
	swfWait      = 2
	swfRun       = 3
	swfProcs     = 4
	swfUsedKB    = 6 // per processor
	swfWanted    = 7
	swfLimit     = 8
	swfWantedKB  = 9 // per processor
	swfColumns   = 18
	longestSpan  = 100 * 365 * 24 * 3600 // seconds
	mostSWFProcs = 1 << 26
)

// swf is what has been read so far.
type swf struct {
	file             string
	header           map[string]int64
	jobs             []Job
	procs            []int
	idle, last, most int
	first            time.Duration
}

// ReadSWF reads the Standard Workload Format. Which nodes a job had is not in it. Jobs without run time or processors are left out.
func ReadSWF(file string, r io.Reader, shape Shape) (*Trace, error) {
	s := &swf{file: file, header: map[string]int64{}}
	if err := lines(file, r, s.line); err != nil {
		return nil, err
	}
	if len(s.jobs) == 0 {
		return nil, fault(file, max(s.last, 1), "%w", ErrEmpty)
	}
	t := &Trace{}
	if start, ok := s.header["UnixStartTime"]; ok {
		t.Origin = time.Unix(start, 0).UTC()
	}
	nodes, cores := s.machine(shape)
	if nodes < 1 || nodes > Most || cores < 1 || cores > 1<<16 {
		return nil, fault(file, 1, "a machine of %d nodes of %d cores; give --nodes and --cores-per-node", nodes, cores)
	}
	t.Nodes = uniform(nodes, cores, shape.memoryOf(cores, &t.Notes))
	for i := range s.jobs {
		j := &s.jobs[i]
		if procs := s.procs[i]; procs > nodes*cores {
			return nil, fault(file, j.Line, "job of %d processors on a machine of %d; give --nodes and --cores-per-node", procs, nodes*cores)
		}
		j.Memory = min(j.Memory*uint64(min(s.procs[i], cores)), t.Nodes[0].Memory)
		j.Used = min(j.Used*uint64(min(s.procs[i], cores)), t.Nodes[0].Memory)
		j.Submit, j.Start, j.End = j.Submit-s.first, j.Start-s.first, j.End-s.first
		t.Span = max(t.Span, j.End)
	}
	if !t.Origin.IsZero() {
		t.Origin = t.Origin.Add(s.first)
	}
	t.Jobs = s.jobs
	sortJobs(t.Jobs)
	noteCount(&t.Notes, s.idle, "%d jobs without run time or processors are left out.")
	t.Notes = append(t.Notes, "The trace does not say which nodes a job had; it gets the lowest-numbered free ones.")
	return t, nil
}

// machine says how many nodes of how many cores there are.
func (s *swf) machine(shape Shape) (nodes, cores int) {
	procs := int(min(s.header["MaxProcs"], mostSWFProcs))
	if procs <= 0 {
		procs = s.most
	}
	nodes, cores = shape.Nodes, shape.Cores
	if nodes == 0 {
		switch stated := int(min(s.header["MaxNodes"], mostSWFProcs)); {
		case cores > 0:
			nodes = (procs + cores - 1) / cores
		case stated > 0 && stated <= procs:
			nodes = stated
		default:
			nodes = procs
		}
	}
	if cores == 0 {
		cores = max(1, (procs+nodes-1)/max(nodes, 1))
	}
	return nodes, cores
}

func (s *swf) line(n int, text string) error {
	s.last = n
	text = strings.TrimSpace(text)
	if comment, ok := strings.CutPrefix(text, ";"); ok {
		s.comment(comment)
		return nil
	}
	if text == "" {
		return nil
	}
	words := strings.Fields(text)
	if len(words) != swfColumns {
		return fault(s.file, n, "%d columns, the Standard Workload Format has %d", len(words), swfColumns)
	}
	var v [swfColumns]float64
	for i, word := range words {
		number, err := strconv.ParseFloat(word, 64)
		if err != nil || math.IsNaN(number) || math.Abs(number) > 1e15 {
			return fault(s.file, n, "column %d is %q, want a number", i+1, word)
		}
		v[i] = number
	}
	return s.job(n, v)
}

func (s *swf) job(n int, v [swfColumns]float64) error {
	procs := v[swfProcs]
	if procs <= 0 {
		procs = v[swfWanted]
	}
	if v[swfRun] <= 0 || procs < 1 {
		s.idle++
		return nil
	}
	wait := max(v[swfWait], 0)
	if v[swfSubmit] < 0 || v[swfSubmit]+wait+v[swfRun] > longestSpan {
		return fault(s.file, n, "job from %g for %g s, want seconds from the log's start, a hundred years at most", v[swfSubmit]+wait, v[swfRun])
	}
	if procs > mostSWFProcs {
		return fault(s.file, n, "job of %g processors", procs)
	}
	j := Job{
		Line: n, Submit: seconds(v[swfSubmit]), Start: seconds(v[swfSubmit] + wait), Limit: seconds(min(max(v[swfLimit], 0), longestSpan)),
		Cores: int(procs), Memory: kilobytes(v[swfWantedKB]), Used: kilobytes(v[swfUsedKB]),
	}
	j.End = j.Start + seconds(v[swfRun])
	if len(s.jobs) == 0 || j.Start < s.first {
		s.first = j.Start
	}
	s.most = max(s.most, j.Cores)
	s.jobs, s.procs = append(s.jobs, j), append(s.procs, j.Cores)
	return nil
}

// comment keeps the header's numbers: "; MaxNodes: 128".
func (s *swf) comment(text string) {
	key, value, found := strings.Cut(text, ":")
	if !found {
		return
	}
	if words := strings.Fields(value); len(words) > 0 {
		if number, err := strconv.ParseInt(words[0], 10, 48); err == nil && number > 0 {
			s.header[strings.TrimSpace(key)] = number
		}
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// kilobytes per processor; unknown is 0, more than a node can have is as good as all.
func kilobytes(kb float64) uint64 { return uint64(min(max(kb, 0), 1<<40)) << 10 }

// WriteSWF writes a trace whose jobs name no nodes; what WriteSWF writes ReadSWF reads.
func WriteSWF(w io.Writer, t *Trace) error {
	cores := 0
	for _, n := range t.Nodes {
		cores += n.Cores
	}
	_, err := fmt.Fprintf(w, "; Version: 2.2\n; MaxNodes: %d\n; MaxProcs: %d\n", len(t.Nodes), cores)
	first := time.Duration(0) // jobs may have been handed in before the trace begins
	for _, j := range t.Jobs {
		first = min(first, j.Submit)
	}
	for i, j := range t.Jobs {
		if err != nil {
			break
		}
		_, err = fmt.Fprintf(w, "%d %.0f %.0f %.0f %d -1 -1 %d %.0f -1 1 1 1 -1 1 1 -1 -1\n",
			i+1, (j.Submit - first).Seconds(), (j.Start - j.Submit).Seconds(), (j.End - j.Start).Seconds(), j.Cores, j.Cores, j.Limit.Seconds())
	}
	if err != nil {
		return fmt.Errorf("write trace: %w", err)
	}
	return nil
}
