package evict

import "time"

// FreezeWindow is the longest time for which an announced job keeps executors frozen. Slurm's Prolog announces some 35 ms before the
// gate claims; a job that never claims (it is cancelled, or has no step yet) must not stop functions for longer than they would notice.
const FreezeWindow = 2 * time.Second

// Announced keeps the jobs that a Prolog has announced and whose claim has not been answered. While there is one, what is harvested on
// the node is frozen: which cores the job has is not known before it claims. Its zero value is ready.
type Announced struct {
	until map[uint32]time.Time
}

// Warn enters a job; limit is the site's, FreezeWindow at most. A job that is announced again has no more time for it.
func (a *Announced) Warn(job uint32, now time.Time, limit time.Duration) {
	if a.until == nil {
		a.until = map[uint32]time.Time{}
	}
	if _, known := a.until[job]; !known {
		a.until[job] = now.Add(min(limit, FreezeWindow))
	}
}

// Drop forgets a job that has its resources, or has left.
func (a *Announced) Drop(job uint32) { delete(a.until, job) }

// Freezes says whether executors are to be frozen now.
func (a *Announced) Freezes(now time.Time) bool {
	for _, until := range a.until {
		if now.Before(until) {
			return true
		}
	}
	return false
}

// Next is when the last job's time is over; zero when none is announced.
func (a *Announced) Next() time.Time {
	var last time.Time
	for _, until := range a.until {
		if until.After(last) {
			last = until
		}
	}
	return last
}

// Expire forgets the jobs whose time is over.
func (a *Announced) Expire(now time.Time) {
	for job, until := range a.until {
		if !now.Before(until) {
			delete(a.until, job)
		}
	}
}
