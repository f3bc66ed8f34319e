package slack

import "slices"

// Stalls is how much jobs waited between two samples: shares of the time between 0 and 1, of the job that waited most.
type Stalls struct {
	CPU, Memory, IO, Bandwidth float64
	Missing                    []string // which of "cpu", "memory", "io", "bandwidth" cannot be told
}

// Meter makes stalls of samples. It is pure: samples carry the time.
type Meter struct {
	last    Sample
	fastest float64 // bytes per second, the most seen
}

// Note takes a sample and returns the stalls since the last; the first gives none.
func (m *Meter) Note(s Sample) Stalls {
	before, elapsed := m.last, s.At.Sub(m.last.At)
	m.last = s
	var out Stalls
	if before.At.IsZero() || elapsed <= 0 {
		out.Missing = []string{"cpu", "memory", "io", "bandwidth"}
		return out
	}
	share := func(now, then int64) float64 { return min(1, max(0, float64(now-then)/float64(elapsed))) }
	worst := func(now, then Waits) {
		out.CPU = max(out.CPU, share(int64(now.CPU), int64(then.CPU)))
		out.Memory = max(out.Memory, share(int64(now.Memory), int64(then.Memory)))
		out.IO = max(out.IO, share(int64(now.IO), int64(then.IO)))
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
	if slices.Contains(s.Missing, "bandwidth") || s.Bytes < before.Bytes {
		out.Missing = append(out.Missing, "bandwidth")
		return out
	}
	rate := float64(s.Bytes-before.Bytes) / elapsed.Seconds()
	m.fastest = max(m.fastest, rate)
	if m.fastest > 0 {
		out.Bandwidth = rate / m.fastest
	}
	return out
}
