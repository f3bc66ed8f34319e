// Package meter cuts the life of each node into the intervals of which the utilization report is made: a new one whenever what
// the node does changes, and at least each minute. It is pure: time is an argument. The broker's loop is its only caller.
//
// In every interval Allocated + Harvested ≤ CPUs, and so for memory and GPUs; the rest is the interval's State. Time in which
// nothing is known of a node is in no interval.
package meter

import (
	"slices"
	"strings"
	"time"

	"github.com/gleaner-hpc/gleaner/report"
)

// longest is the longest interval: what a broker that dies can lose.
const longest = time.Minute

// Meter holds the open interval of each node.
type Meter struct {
	open map[string]*report.Interval
}

// New has no open interval.
func New() *Meter { return &Meter{open: map[string]*report.Interval{}} }

// Set says what a node does from now on; Start and End of sample are ignored. It returns the interval that this ends, if any.
func (m *Meter) Set(now time.Time, sample report.Interval) []report.Interval {
	Clamp(&sample)
	sample.Start, sample.End = now, time.Time{}
	open := m.open[sample.Node]
	if open != nil {
		same := *open
		same.Start = now
		if same == sample {
			return nil
		}
		if now.Before(open.Start) { // the clock was set back: intervals never overlap
			sample.Start = open.Start
		}
	}
	ended := m.end(now, sample.Node)
	m.open[sample.Node] = &sample
	return ended
}

// Clear says that nothing is known of a node from now on.
func (m *Meter) Clear(now time.Time, node string) []report.Interval {
	ended := m.end(now, node)
	delete(m.open, node)
	return ended
}

// Tick ends the intervals that have become a minute old; each node's next one starts where it ended.
func (m *Meter) Tick(now time.Time) []report.Interval {
	return m.endAll(now, func(i *report.Interval) bool { return now.Sub(i.Start) >= longest })
}

// Close ends all intervals.
func (m *Meter) Close(now time.Time) []report.Interval {
	return m.endAll(now, func(*report.Interval) bool { return true })
}

func (m *Meter) endAll(now time.Time, which func(*report.Interval) bool) []report.Interval {
	var ended []report.Interval
	for node, open := range m.open {
		if which(open) {
			ended = append(ended, m.end(now, node)...)
		}
	}
	slices.SortFunc(ended, func(a, b report.Interval) int { return strings.Compare(a.Node, b.Node) })
	return ended
}

// end cuts a node's open interval at now. An interval that became longer than it may be, because the loop or the machine stood
// still, is cut into several.
func (m *Meter) end(now time.Time, node string) []report.Interval {
	open := m.open[node]
	if open == nil || !now.After(open.Start) {
		return nil
	}
	var ended []report.Interval
	for start := open.Start; start.Before(now); start = start.Add(longest) {
		part := *open
		part.Start, part.End = start, start.Add(longest)
		if part.End.After(now) {
			part.End = now
		}
		ended = append(ended, part)
	}
	open.Start = now
	return ended
}

// Clamp makes the parts of an interval fit its whole: what is allocated goes before what is harvested.
func Clamp(i *report.Interval) {
	i.AllocatedCPUs, i.HarvestedCPUs = clamp(i.CPUs, i.AllocatedCPUs, i.HarvestedCPUs)
	i.AllocatedMemory, i.HarvestedMemory = clamp(i.MemoryBytes, i.AllocatedMemory, i.HarvestedMemory)
	i.AllocatedGPUs, i.HarvestedGPUs = clamp(i.GPUs, i.AllocatedGPUs, i.HarvestedGPUs)
}

func clamp[N int | uint64](whole, allocated, harvested N) (N, N) {
	allocated = min(allocated, whole)
	return allocated, min(harvested, whole-allocated)
}

// StateOf names the slice of a node's unused part, from slurmctld's state and flags.
func StateOf(state string, flags []string) report.State {
	has := func(names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return slices.Contains(flags, name) })
	}
	switch {
	case has("maint", "powered_down", "powering_down", "powering_up", "reboot_requested", "reboot_issued"):
		return report.PlannedDown
	case has("drain", "fail", "not_responding", "down"), state != "idle" && state != "mixed" && state != "allocated":
		return report.Down
	case has("planned", "reserved"):
		return report.Planned
	}
	return report.Idle
}
