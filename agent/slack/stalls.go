package slack

import (
	"slices"
	"time"
)

// Stalls is how much jobs waited between two samples: shares of the time between 0 and 1, of the job that waited most.
type Stalls struct {
	CPU, Memory, IO, Bandwidth float64
	Missing                    []string // which of "cpu", "memory", "io", "bandwidth" cannot be told
}

// Meter makes stalls of samples. It is pure: samples carry the time.
//
// What it cannot tell it names; what it cannot tell yet it does not tell at all. A source of bandwidth that falls silent is taken at its
// last word for a while, since a gap says nothing of the node:
//
//	first sample ──▶ not told ──two that speak──▶ told ──silent──▶ last word ──silence──▶ missing
//	                    └───────never spoke──────────────────────────────────────────────▶ missing
type Meter struct {
	last    Sample
	fastest float64 // bytes per second, the most seen
	share   float64 // of the fastest, the last that could be told
	rated   time.Time
	spoke   time.Time // when bandwidth's source told bytes last
}

const (
	// silence is how long a source may be silent before it counts as missing, or two samples, whichever is longer.
	silence = 2 * time.Second
	// stale is from when on a sample is no beginning for the next: nobody has looked in between. It is longer than agents wait.
	stale = 30 * time.Second
	// slowest is the least that a memory bus can move, in bytes per second: half of what one channel of DDR4 does. Without it the first
	// job seen would seem to fill the bus, however little it moves.
	slowest = 10e9
)

// Note takes a sample and returns the stalls since the last. It is false while there is nothing to tell yet: with the first sample, the
// first after a long time, and until a source that speaks has spoken twice.
func (m *Meter) Note(s Sample) (Stalls, bool) {
	before, elapsed := m.last, s.At.Sub(m.last.At)
	m.last = s
	if !slices.Contains(s.Missing, "bandwidth") {
		m.spoke = s.At
	}
	if before.At.IsZero() || elapsed <= 0 || elapsed > stale {
		return Stalls{}, false
	}
	out := waits(&s, &before, elapsed)
	switch {
	case m.rate(&s, &before, elapsed), s.At.Sub(m.rated) <= max(silence, 2*elapsed):
		out.Bandwidth = m.share
	case s.At.Sub(m.spoke) <= max(silence, 2*elapsed):
		return Stalls{}, false
	default:
		out.Missing = append(out.Missing, "bandwidth")
	}
	return out, true
}

// rate takes the bytes between two samples; false when one of them does not have any.
func (m *Meter) rate(s, before *Sample, elapsed time.Duration) bool {
	if slices.Contains(s.Missing, "bandwidth") || slices.Contains(before.Missing, "bandwidth") || s.Bytes < before.Bytes {
		return false
	}
	rate := float64(s.Bytes-before.Bytes) / elapsed.Seconds()
	m.fastest = max(m.fastest, rate, slowest)
	m.share, m.rated = rate/m.fastest, s.At
	return true
}

// waits is how long the worst job waited, as shares.
func waits(s, before *Sample, elapsed time.Duration) Stalls {
	var out Stalls
	share := func(now, then time.Duration) float64 { return min(1, max(0, float64(now-then)/float64(elapsed))) }
	worst := func(now, then Waits) {
		out.CPU = max(out.CPU, share(now.CPU, then.CPU))
		out.Memory = max(out.Memory, share(now.Memory, then.Memory))
		out.IO = max(out.IO, share(now.IO, then.IO))
	}
	missing := slices.Contains(s.Missing, "psi")
	for _, j := range s.Jobs {
		i, known := slices.BinarySearchFunc(before.Jobs, j.ID, func(j Job, id uint32) int { return int(int64(j.ID) - int64(id)) })
		switch {
		case !known:
		case !j.NoWaits:
			worst(j.Waits, before.Jobs[i].Waits)
		case !missing: // cgroup v1: the node's own has to do
			worst(s.Node, before.Node)
		}
	}
	if missing && !slices.ContainsFunc(s.Jobs, func(j Job) bool { return !j.NoWaits }) {
		out.Missing = append(out.Missing, "cpu", "memory", "io")
	}
	return out
}
