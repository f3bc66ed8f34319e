package agent

import (
	"context"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/gleaner-hpc/gleaner/agent/coreset"
	"github.com/gleaner-hpc/gleaner/agent/ledger"
	"github.com/gleaner-hpc/gleaner/agent/slack"
	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/api/gate"
)

// Sampler sees what jobs really use. *slack.Sampler is one.
type Sampler interface {
	Sample(now time.Time) slack.Sample
}

const (
	// lendingEvery is how often jobs are looked at while executors hold memory of theirs: a job that grows at 1 GiB/s takes 100 MiB
	// in this time, less than the margin that it keeps.
	lendingEvery = 100 * time.Millisecond
	// lendStep and useStep are the steps in which the broker hears of memory, so that it hears of what matters only.
	lendStep = 64 << 20
	useStep  = 16 << 20
	// idleGPU is the utilization up to which a GPU counts as unused, for idleFor.
	idleGPU = 0.01
	idleFor = time.Minute
)

// watch is what the loop knows of how jobs fare. It looks only when the broker has said how often.
type watch struct {
	every  time.Duration // 0: never
	next   time.Time
	busy   bool // a sample is being taken
	lender *slack.Lender
	meter  slack.Meter
	sites  map[uint32]api.Share // the site's word on jobs, from the broker
	busyAt map[int]time.Time    // when each GPU was last seen to do something

	sample slack.Sample
	stalls *api.Stalls // nil: not looked, or nothing to tell yet
	alone  *api.Stalls
	told   *api.NodeState
}

// watchEvery hears from the broker how often to look at jobs.
func (l *loop) watchEvery(every time.Duration, now time.Time) {
	w := &l.watch
	if l.cfg.Sampler == nil || every < 0 {
		every = 0
	}
	if w.every = every; every > 0 {
		if w.lender == nil {
			w.lender = slack.NewLender(l.cfg.Lending)
		}
		w.next = now
		return
	}
	w.next, w.stalls, w.alone = time.Time{}, nil, nil
	for _, h := range l.ledger.Jobs() {
		l.ledger.Lend(h.Job, ledger.Loan{})
	}
	l.reclaim(now)
}

// siteShares takes the site's word on jobs.
func (l *loop) siteShares(holds []*api.JobHold) {
	l.watch.sites = map[uint32]api.Share{}
	for _, h := range holds {
		l.watch.sites[h.GetJobId()] = h.GetShare()
	}
}

// ownShare is the word of a claim's job.
func ownShare(flags uint16) ledger.Share {
	switch {
	case flags&gate.FlagShareNo != 0:
		return ledger.ShareNo
	case flags&gate.FlagShareYes != 0:
		return ledger.ShareYes
	}
	return ""
}

// share is what holds for a job: its own word, else the site's; nobody's word is no.
func (l *loop) share(h *ledger.Hold) api.Share {
	switch {
	case h.Share == ledger.ShareNo:
		return api.Share_SHARE_NO
	case h.Share == ledger.ShareYes:
		return api.Share_SHARE_GPUS
	case l.watch.sites[h.Job] == api.Share_SHARE_YES:
		return api.Share_SHARE_YES
	}
	return api.Share_SHARE_NO
}

// look takes a sample beside the loop.
func (l *loop) look(now time.Time) {
	w := &l.watch
	every := w.every
	if l.ledger.Borrowed().Memory > 0 {
		every = min(every, lendingEvery)
	}
	w.next = now.Add(every)
	if w.busy {
		return
	}
	if len(l.ledger.Jobs()) == 0 { // nobody to look at
		w.stalls = nil
		return
	}
	w.busy = true
	l.act(func(context.Context) func(time.Time) {
		sample := l.cfg.Sampler.Sample(time.Now())
		return func(now time.Time) { l.sampled(sample, now) }
	})
}

// sampled sets what may be lent, takes back what may not any more, and tells the broker when something has changed that matters.
func (l *loop) sampled(s slack.Sample, now time.Time) {
	w := &l.watch
	w.busy = false
	if w.every == 0 {
		return
	}
	l.sourceChanges(&s)
	w.sample = s
	w.lender.Note(s)
	w.stalls = nil
	if stalls, told := w.meter.Note(s); told {
		w.stalls = wireStalls(stalls)
		if l.ledger.Leased().Cores == 0 {
			w.alone = w.stalls
		}
	}
	idle := l.idleGPUs(s, now)
	for _, h := range l.ledger.Jobs() {
		var loan ledger.Loan
		switch l.share(&h) {
		case api.Share_SHARE_GPUS:
			loan.GPUs = idle.And(h.GPUs)
			fallthrough
		case api.Share_SHARE_YES:
			loan.Memory = w.lender.Lendable(h.Job, h.Memory) / lendStep * lendStep
		}
		l.ledger.Lend(h.Job, loan)
	}
	l.reclaim(now)
	if state := l.nodeState(now); !proto.Equal(state, w.told) {
		w.told = state
		l.sendState(now)
		l.metrics.node(l.ledger, now)
	}
}

// sourceChanges tells operators by what memory bandwidth is seen, and why it is not.
func (l *loop) sourceChanges(s *slack.Sample) {
	switch last := &l.watch.sample; {
	case !last.At.IsZero() && s.Source == last.Source && s.Blind == last.Blind:
	case s.Blind != "":
		l.log.Warn("memory bandwidth is not seen", "reason", s.Blind)
	default:
		l.log.Info("memory bandwidth is seen", "source", s.Source)
	}
}

// reclaim ends the executors that hold what is no longer lent.
func (l *loop) reclaim(now time.Time) {
	for _, v := range l.ledger.Reclaim(now) {
		if p := l.parked[v.ID]; p != nil {
			l.unpark(p, now)
			continue
		}
		if e := l.executors[v.ID]; e != nil {
			l.metrics.reclaimed.Inc()
			l.stop(e, api.EndReason_EVICTED, "evicted: a job uses the memory or GPU that it had lent", now)
		}
	}
}

// idleGPUs are those that nobody has used for a while.
func (l *loop) idleGPUs(s slack.Sample, now time.Time) coreset.Set {
	w := &l.watch
	if w.busyAt == nil {
		w.busyAt = map[int]time.Time{}
	}
	var idle coreset.Set
	for _, g := range s.GPUs {
		if at, seen := w.busyAt[g.Index]; !seen || g.Utilization > idleGPU {
			w.busyAt[g.Index] = now
		} else if now.Sub(at) >= idleFor {
			idle = idle.Or(coreset.Of(g.Index))
		}
	}
	return idle
}

// wireStalls rounds to hundredths.
func wireStalls(s slack.Stalls) *api.Stalls {
	round := func(share float64) float64 { return math.Round(share*100) / 100 }
	return &api.Stalls{Cpu: round(s.CPU), Memory: round(s.Memory), Io: round(s.IO), Bandwidth: round(s.Bandwidth), Missing: s.Missing}
}

// describeUse adds to a node's state what is known of its jobs' use.
func (l *loop) describeUse(s *api.NodeState) {
	w := &l.watch
	if w.every == 0 {
		return
	}
	s.Unused, s.Borrowed = resources(l.ledger.Unused()), resources(l.ledger.Borrowed())
	s.Stalls, s.Alone = w.stalls, w.alone
	for _, hold := range s.Jobs {
		h, _ := l.ledger.Job(hold.JobId)
		hold.Share = l.share(&h)
		hold.LendableBytes = l.ledger.Loan(hold.JobId).Memory
		i := slices.IndexFunc(w.sample.Jobs, func(j slack.Job) bool { return j.ID == hold.JobId })
		if i >= 0 {
			memory := w.sample.Jobs[i].Memory
			hold.UsedBytes, hold.PeakBytes = memory.Current/useStep*useStep, memory.Peak/useStep*useStep
		}
	}
}
