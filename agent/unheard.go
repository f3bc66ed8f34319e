package agent

import (
	"context"
	"time"

	"github.com/gleaner-hpc/gleaner/agent/gatesock"
	"github.com/gleaner-hpc/gleaner/agent/jobs"
)

// departures remembers the latest release of each job. Frames that waited while the agent hung arrive together and in any order: a claim
// that was made before its job's release must not bring the job back, since nothing would ever release it again.
type departures struct {
	of map[uint32]departure
}

type departure struct {
	order uint64
	at    time.Time
}

// keepDepartures is far longer than a frame can wait.
const keepDepartures = time.Minute

func (d *departures) note(c *gatesock.Call, now time.Time) {
	if d.of == nil {
		d.of = map[uint32]departure{}
	}
	for job, left := range d.of {
		if now.Sub(left.at) > keepDepartures {
			delete(d.of, job)
		}
	}
	d.of[c.Frame.Job] = departure{max(c.Order, d.of[c.Frame.Job].order), now}
}

// after says whether the call's job has left since the call was made.
func (d *departures) after(c *gatesock.Call) bool {
	left, known := d.of[c.Frame.Job]
	return known && c.Order < left.order
}

// lookAgain is the time between looks while a job that runs here has claimed nothing.
const lookAgain = time.Second

// lookAround notices, before anything is started, jobs whose gates could not tell this agent about them.
func (l *loop) lookAround(now time.Time) {
	if ok, _ := l.ledger.Admitting(now); ok { // else nothing is started anyway
		l.seen(l.cfg.Jobs.Look(), now)
	}
}

func (l *loop) seen(found jobs.Found, now time.Time) {
	before := l.ledger.Unheard()
	if unheard := l.ledger.Seen(found.Jobs, now); len(unheard) > 0 {
		l.log.Warn("jobs run here that have claimed nothing; nothing is started until their cores are known", "jobs", unheard)
	}
	if before || l.ledger.Unheard() {
		l.changed(now)
	}
	if l.ledger.Unheard() && !l.looking {
		l.looking = true
		l.act(func(ctx context.Context) func(time.Time) {
			select {
			case <-ctx.Done():
			case <-time.After(lookAgain):
			}
			found := l.cfg.Jobs.Look()
			return func(now time.Time) {
				l.looking = false
				l.seen(found, now)
			}
		})
	}
}
