package ledger

import (
	"slices"
	"time"
)

// leavesWithin is how long the last processes of a job may still be seen after its release.
const leavesWithin = time.Minute

// Unheard says whether a job that is seen to run here has still claimed nothing.
func (l *Ledger) Unheard() bool {
	for _, d := range l.doubts {
		if d.seen {
			return true
		}
	}
	return false
}

// Seen compares the jobs that are seen to run here with those that have claimed: a gate that could not reach the agent has used force and
// gone on, and its job holds cores that nobody knows. Such a job stops admission until it claims or is gone, and holds everything when it
// has done neither after claimWithin. It returns the jobs that are new to it.
func (l *Ledger) Seen(local map[uint32]bool, now time.Time) []uint32 {
	for job, d := range l.doubts {
		if d.seen && !local[job] {
			delete(l.doubts, job)
		}
	}
	var unheard []uint32
	for job := range local {
		h, held := l.jobs[job]
		_, warned := l.warned[job]
		_, doubted := l.doubts[job]
		left, released := l.released[job]
		known := held && (h.All || !h.Cores.Empty()) || warned && now.Before(l.warned[job]) || doubted
		if known || released && now.Sub(left) < leavesWithin {
			continue
		}
		l.doubts[job] = doubt{Hold{Job: job, All: true, Origin: Scan}, now.Add(claimWithin), true}
		unheard = append(unheard, job)
	}
	slices.Sort(unheard)
	return unheard
}
