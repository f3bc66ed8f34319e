package agent

import (
	"context"
	"errors"
	"time"

	"github.com/gleaner-hpc/gleaner/agent/launch"
	"github.com/gleaner-hpc/gleaner/api/gate"
)

const (
	heardWithin = 5 * time.Second        // for the claim of a job whose gate has shut the node, before the job counts as gone
	openAgain   = 100 * time.Millisecond // between looks at marks that cannot be taken away yet
)

// marks are those of gates that have shut this node: they did not hear from this agent or its launcher in time, and ended by force
// what was harvested. The launcher starts nothing before the agent has entered those jobs, and no start that it decided upon
// before is under way.
type marks struct {
	first  map[uint32]time.Time // job → when its mark was first seen
	asking bool
}

// settled are the marks in shut that have served: the job has been heard of, or it neither runs nor has a claim on its way.
func (m *marks) settled(shut []uint32, heard func(job uint32) bool, runs map[uint32]bool, now time.Time) []uint32 {
	first := map[uint32]time.Time{}
	var done []uint32
	for _, job := range shut {
		first[job] = now
		if at, seen := m.first[job]; seen {
			first[job] = at
		}
		if heard(job) || !runs[job] && now.Sub(first[job]) >= heardWithin {
			done = append(done, job)
		}
	}
	m.first = first
	return done
}

// late says whether a claim that was made at a time of the wall clock has waited so long that its gate may have used force.
func late(nanos uint64, now time.Time) bool {
	return nanos > 0 && now.Sub(time.Unix(0, int64(nanos))) > gate.AckDeadline/2
}

// lookAtMarks asks the launcher after a pause for which jobs the node is shut, and opens it for jobs.
func (l *loop) lookAtMarks(pause time.Duration, open ...uint32) {
	if l.marks.asking {
		return
	}
	l.marks.asking = true
	l.act(func(ctx context.Context) func(time.Time) {
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		ctx, cancel := context.WithTimeout(ctx, killWithin)
		defer cancel()
		shut, err := l.cfg.Launcher.Open(ctx, open...)
		return func(now time.Time) {
			l.marks.asking = false
			l.marked(shut, err, now)
		}
	})
}

func (l *loop) marked(shut []uint32, err error, now time.Time) {
	switch {
	case errors.Is(err, launch.ErrDown): // launcherUp looks again
		return
	case err != nil:
		l.log.Warn("cannot see whether a job's gate has shut this node", "error", err)
		l.lookAtMarks(lookAgain)
		return
	case len(shut) == 0:
		l.marks.first = nil
		l.ledger.Block("shut", "")
		l.changed(now)
		return
	}
	l.ledger.Block("shut", "a job's gate has ended by force what was harvested here, and its claim has not been heard yet")
	found := l.cfg.Jobs.Look()
	l.seen(found, now)
	done := l.marks.settled(shut, l.heard, found.Jobs, now)
	l.changed(now)
	if len(done) > 0 && !l.anyStarting() {
		l.log.Info("node is opened again after force", "jobs", done)
		l.lookAtMarks(0, done...)
		return
	}
	l.lookAtMarks(openAgain)
}

// heard says whether the ledger has what a job holds. That it has left says nothing: it may have been requeued.
func (l *loop) heard(job uint32) bool {
	h, known := l.ledger.Job(job)
	return known && (h.All || !h.Cores.Empty())
}

// anyStarting says whether the launcher has not answered a start yet.
func (l *loop) anyStarting() bool {
	for _, e := range l.executors {
		if e.starting {
			return true
		}
	}
	for _, p := range l.parked {
		if p.starting {
			return true
		}
	}
	return false
}
