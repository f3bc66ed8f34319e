package slack

import (
	"maps"
	"slices"
	"time"
)

// Rule bounds what is lent of a job's memory.
type Rule struct {
	Window time.Duration // over which the most that a job used counts; 0: DefaultWindow
	Settle time.Duration // a job younger than this has not shown yet what it needs; 0: DefaultSettle
	Margin uint64        // bytes beyond the most used that are never lent, at least a sixteenth of the allocation; 0: DefaultMargin
	Ahead  time.Duration // the margin also holds what the job took in so much time when it grew fastest; 0: DefaultAhead
}

const (
	DefaultWindow = 10 * time.Minute
	DefaultSettle = time.Minute
	DefaultMargin = 256 << 20
	DefaultAhead  = 400 * time.Millisecond
)

// Stall thresholds above which a job gets back all that is lent of its memory, for holdOff.
const (
	memoryStall = 0.05
	holdOff     = time.Minute
	buckets     = 20 // of the window
)

// Lender decides from sample to sample how much of each job's memory may be lent: what it has been allocated, less the most that it used
// within the window, less a margin; never anything that it uses, and nothing while it waits for memory. It is pure: samples carry the time.
type Lender struct {
	rule Rule
	jobs map[uint32]*history
}

// history is what is remembered of one job.
type history struct {
	first, last, stalledUntil time.Time
	current, peak             uint64
	waits                     Waits
	used, growth              [buckets]uint64 // most bytes, and most bytes per second, by part of the window
	bucket                    int64
}

// NewLender returns a lender to whom every job is new.
func NewLender(rule Rule) *Lender {
	if rule.Window == 0 {
		rule.Window = DefaultWindow
	}
	if rule.Settle == 0 {
		rule.Settle = DefaultSettle
	}
	if rule.Margin == 0 {
		rule.Margin = DefaultMargin
	}
	if rule.Ahead == 0 {
		rule.Ahead = DefaultAhead
	}
	return &Lender{rule: rule, jobs: map[uint32]*history{}}
}

// Note takes a sample. Jobs that it does not name are forgotten.
func (l *Lender) Note(s Sample) {
	seen := map[uint32]bool{}
	for i := range s.Jobs {
		j := &s.Jobs[i]
		seen[j.ID] = true
		h := l.jobs[j.ID]
		if h == nil {
			h = &history{first: s.At, last: s.At, current: j.Memory.Current, waits: j.Waits}
			l.jobs[j.ID] = h
		}
		h.note(s.At, j, l.rule)
	}
	maps.DeleteFunc(l.jobs, func(id uint32, _ *history) bool { return !seen[id] })
}

func (h *history) note(at time.Time, j *Job, rule Rule) {
	bucket := at.UnixNano() / int64(rule.Window/buckets)
	for b := max(h.bucket+1, bucket-buckets+1); b <= bucket; b++ {
		h.used[b%buckets], h.growth[b%buckets] = 0, 0
	}
	h.bucket = bucket
	now := j.Memory.Current
	if j.Memory.Peak > h.peak { // between two samples it may have used more than at either
		now = max(now, j.Memory.Peak)
		h.peak = j.Memory.Peak
	}
	i := bucket % buckets
	h.used[i] = max(h.used[i], now)
	elapsed := at.Sub(h.last)
	if elapsed > 0 {
		if j.Memory.Current > h.current {
			h.growth[i] = max(h.growth[i], uint64(float64(j.Memory.Current-h.current)/elapsed.Seconds()))
		}
		if float64(j.Waits.Memory-h.waits.Memory) > memoryStall*float64(elapsed) {
			h.stalledUntil = at.Add(holdOff)
		}
	}
	h.last, h.current, h.waits = at, j.Memory.Current, j.Waits
}

// Lendable is how many bytes of a job's allocation may be lent; 0 for a job that it does not know.
func (l *Lender) Lendable(job uint32, allocated uint64) uint64 {
	h := l.jobs[job]
	if h == nil || h.last.Sub(h.first) < l.rule.Settle || h.last.Before(h.stalledUntil) {
		return 0
	}
	margin := max(l.rule.Margin, allocated/16, uint64(float64(slices.Max(h.growth[:]))*l.rule.Ahead.Seconds()))
	kept := slices.Max(h.used[:]) + margin
	return allocated - min(allocated, kept)
}
