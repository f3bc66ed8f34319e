package simulate

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// windows measures for how long nodes had free cores.
func (s *Schedule) windows() Windows {
	var list []float32
	sum := 0.0
	for i, n := range s.Trace.Nodes {
		s.idleOf(int32(i), n.Cores, func(d time.Duration) {
			list = append(list, float32(d.Seconds()))
			sum += d.Seconds()
		})
	}
	if len(list) == 0 {
		return Windows{}
	}
	slices.Sort(list)
	short, _ := slices.BinarySearch(list, 600)
	return Windows{
		Count: len(list), MeanSeconds: round(sum / float64(len(list))), MedianSeconds: round(float64(list[len(list)/2])),
		Under10Min: round(float64(short) / float64(len(list))),
	}
}

// idleOf calls do for each stretch in which a node has free cores.
func (s *Schedule) idleOf(node int32, cores int, do func(time.Duration)) {
	type change struct {
		at    time.Duration
		cores int32
	}
	var changes []change
	for _, at := range s.byNode[s.first[node]:s.first[node+1]] {
		p := s.parts[at]
		if p.cores == 0 {
			p.cores = int32(cores)
		}
		j := &s.jobs[p.job]
		changes = append(changes, change{j.start, p.cores}, change{j.end, -p.cores})
	}
	slices.SortFunc(changes, func(a, b change) int { return cmp.Compare(a.at, b.at) })
	busy, since, idle := int32(0), time.Duration(0), true
	for k, c := range changes {
		busy += c.cores
		if k+1 < len(changes) && changes[k+1].at == c.at {
			continue
		}
		switch full := busy >= int32(cores); {
		case full && idle:
			if c.at > since {
				do(c.at - since)
			}
			idle = false
		case !full && !idle:
			since, idle = c.at, true
		}
	}
	if idle && since < s.Trace.Span {
		do(s.Trace.Span - since)
	}
}

// notes are the trace's, and what became of it here.
func (s *Schedule) notes() []string {
	notes := slices.Clone(s.Trace.Notes)
	if s.Late > 0 {
		notes = append(notes, fmt.Sprintf("%d jobs found no room at the time that the trace says, and start later here.", s.Late))
	}
	if s.Clip > 0 {
		notes = append(notes, fmt.Sprintf("%d times a job found fewer cores free on a node than the trace says, and got those.", s.Clip))
	}
	return notes
}
