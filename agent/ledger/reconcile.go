package ledger

import (
	"slices"
	"time"
)

const (
	// releaseAfter is how much younger than a claim slurmctld's report has to be before the job's absence from it counts.
	releaseAfter = 30 * time.Second
	// claimWithin is how long a job that slurmctld names without its cores has to claim them itself, before it holds everything.
	claimWithin = 10 * time.Second
	// rememberRelease is how long slurmctld may still name a job that has left the node: one that is stuck completing on another
	// node is named until it is over there too. A job that is requeued meanwhile claims by itself.
	rememberRelease = 10 * time.Minute
)

// doubt is a job that slurmctld names, or that is seen to run here, and that nobody has claimed; its cores are not known.
type doubt struct {
	hold  Hold
	until time.Time
	seen  bool // here; slurmctld's silence means nothing
}

// Report is what slurmctld says runs on the node, and what of Slurm's is seen to run here.
type Report struct {
	AsOf  time.Time
	Jobs  []Hold          // Cores empty when only CoreCount is known; Since and Origin are ignored
	Local map[uint32]bool // jobs with a live cgroup or socket on this node
}

// Change is what Reconcile did to one job.
type Change struct {
	Job     uint32
	Claimed bool // Overlap may name executors now; otherwise the job was released
}

// Reconcile brings the ledger in line with a report, and says what changed. Gate and Prolog know first and better, so that a report
// only adds jobs that nobody claimed, makes a hold of everything exact, and releases jobs that are gone from slurmctld and node alike.
// A job that it names without its cores gets claimWithin to claim them by itself before it holds everything; see Settle.
func (l *Ledger) Reconcile(r Report, now time.Time) []Change {
	var changes []Change
	named := map[uint32]bool{}
	for _, h := range r.Jobs {
		named[h.Job] = true
		if l.learn(h, r.AsOf, now) {
			changes = append(changes, Change{h.Job, true})
		}
	}
	for _, h := range l.Jobs() {
		gone := !named[h.Job] && !r.Local[h.Job] && r.AsOf.Sub(h.Since) > releaseAfter
		unknown := h.Job == 0 && r.AsOf.After(h.Since) // a scan's placeholder for jobs without a name
		if gone || unknown {
			delete(l.jobs, h.Job) // without a trace: a report that names it again is believed
			delete(l.warned, h.Job)
			changes = append(changes, Change{h.Job, false})
		}
	}
	for job, d := range l.doubts {
		if !named[job] && !d.seen {
			delete(l.doubts, job)
		}
	}
	l.forget(now)
	return changes
}

// learn enters one job of a report. It reports whether the job holds something new.
func (l *Ledger) learn(h Hold, asOf, now time.Time) bool {
	if at, ok := l.released[h.Job]; ok && asOf.Sub(at) < rememberRelease {
		return false
	}
	h.Since, h.Origin = asOf, Controller
	old, known := l.jobs[h.Job]
	partial := known && !old.All && old.Cores.Empty() // GPUs of a warning
	switch {
	case known && old.All && !h.Cores.Empty() && asOf.After(old.Since):
		l.Claim(h)
		return true
	case known && old.All:
		old.CoreCount = h.CoreCount
		return false
	case known && !partial:
		return false
	case !h.Cores.Empty():
		l.Claim(h)
		return true
	}
	if _, doubted := l.doubts[h.Job]; !doubted {
		l.doubts[h.Job] = doubt{h, now.Add(claimWithin), false}
	}
	return false
}

// Settle gives everything to the jobs that have not claimed in time. It returns them in order.
func (l *Ledger) Settle(now time.Time) []uint32 {
	var jobs []uint32
	for job, d := range l.doubts {
		if now.Before(d.until) {
			continue
		}
		d.hold.Since = now
		l.Claim(d.hold)
		jobs = append(jobs, job)
	}
	slices.Sort(jobs)
	return jobs
}
