package trace

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Made says what a trace that never happened looks like.
type Made struct {
	Nodes, Cores int
	Jobs         int
	Span         time.Duration
	Load         float64 // share of the machine that jobs ask for; what does not fit waits
	Widest       int     // nodes of the widest job
	Seed         uint64
}

// Make makes a trace: jobs of whole nodes arrive at any time, sizes and lengths spread over all magnitudes, as they do on real machines.
func Make(m Made) (*Trace, error) {
	if m.Nodes < 1 || m.Nodes > Most || m.Cores < 1 || m.Jobs < 1 || m.Span < time.Hour || m.Widest < 1 || m.Widest > m.Nodes || m.Load <= 0 || m.Load > 1 {
		return nil, fmt.Errorf("make a trace of %d jobs up to %d nodes wide on %d nodes of %d cores in %v with load %v: want at least one of each, an hour, and a load up to 1",
			m.Jobs, m.Widest, m.Nodes, m.Cores, m.Span, m.Load)
	}
	r := rand.New(rand.NewPCG(m.Seed, 2))
	t := &Trace{Span: m.Span, Nodes: uniform(m.Nodes, m.Cores, uint64(m.Cores)*DefaultMemoryPerCore), Notes: []string{"The trace is made, not recorded."}}
	spread := func(most float64) float64 { return math.Exp(r.Float64() * math.Log(most)) }
	area := 0.0
	for i := range m.Jobs {
		j := Job{Line: i + 1, Start: time.Duration(r.Int64N(int64(m.Span))), Whole: int(spread(float64(m.Widest)))}
		j.End = time.Duration(spread(144) * float64(time.Hour)) // its length, before all are scaled to the load
		area += float64(j.Whole) * j.End.Hours()
		t.Jobs = append(t.Jobs, j)
	}
	scale := m.Load * float64(m.Nodes) * m.Span.Hours() / area
	for i := range t.Jobs {
		j := &t.Jobs[i]
		length := max(time.Second, time.Duration(float64(j.End)*scale).Round(time.Second))
		j.Start = j.Start.Round(time.Second)
		j.Submit, j.End, j.Limit = j.Start, j.Start+length, 2*length
	}
	sortJobs(t.Jobs)
	return t, nil
}
