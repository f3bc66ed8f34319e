package owner

import "time"

// course is what was seen of one growth: a job's memory, and how many executors still held memory lent to them. Times are of the
// monotonic clock.
type course struct {
	began      time.Duration // of the growth
	allocation uint64        // of the job
	each       uint64        // promised to each executor
	own        uint64        // of the node's memory that no job has been allocated: what executors have beyond it is borrowed
	looks      []look
}

type look struct {
	at   time.Duration
	used uint64 // by the job
	left int    // executors that hold memory
}

// back is how long borrowed memory took to come back. past is how long the job's use and what was still borrowed were more than its
// allocation, for the executor with which this took longest; below zero, when every one was gone so long before it. late is past where
// the job had to wait, else the time from the growth's beginning until the first executor was gone. An executor that never went counts as
// gone at the last look; told is false when nothing was borrowed or the job never grew into it.
func (c *course) back() (late, past time.Duration, told bool) {
	if len(c.looks) == 0 {
		return 0, 0, false
	}
	for left := c.looks[0].left; left > 0 && c.borrowed(left) > 0; left-- {
		needed := c.reaches(c.allocation - c.borrowed(left))
		if waits := c.gone(left) - needed; needed >= 0 && (!told || waits > past) {
			past, told = waits, true
		}
	}
	if told && past <= 0 {
		return c.gone(c.looks[0].left) - c.began, past, true
	}
	return past, past, told
}

// borrowed is what so many executors hold of the job's allocation.
func (c *course) borrowed(executors int) uint64 {
	held := uint64(executors) * c.each //nolint:gosec // few
	return min(held-min(held, c.own), c.allocation)
}

// gone is when fewer than so many executors were left.
func (c *course) gone(left int) time.Duration {
	for _, l := range c.looks {
		if l.left < left {
			return l.at
		}
	}
	return c.looks[len(c.looks)-1].at
}

// reaches is when the job used so much; below zero for never.
func (c *course) reaches(bytes uint64) time.Duration {
	for _, l := range c.looks {
		if l.used >= bytes {
			return max(l.at, c.began)
		}
	}
	return -1
}
