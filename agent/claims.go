package agent

import (
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gleaner-hpc/gleaner/agent/coreset"
	"github.com/gleaner-hpc/gleaner/agent/evict"
	"github.com/gleaner-hpc/gleaner/agent/gatesock"
	"github.com/gleaner-hpc/gleaner/agent/ledger"
	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/api/gate"
)

// call handles one frame of gate or hook.
func (l *loop) call(c *gatesock.Call) {
	f, now := c.Frame, time.Now()
	if f.Kind != gate.Ping && l.left.after(c) {
		l.log.Debug("frame of a job that has left since", "job", f.Job, "kind", f.Kind)
		c.Answer(gate.Done, 0)
		return
	}
	switch f.Kind {
	case gate.Ping:
		c.Answer(gate.Done, 0)
	case gate.Warn:
		gpus, err := coreset.Parse(f.GPUs)
		if err != nil {
			l.log.Warn("unreadable GPU list; GPUs stay with the gate's claim", "job", f.Job, "error", err)
		}
		l.ledger.Warn(f.Job, gpus, now, now.Add(l.cfg.WarnTimeout))
		l.evictFor(f.Job, now)
		if !l.heard(f.Job) {
			l.announced.Warn(f.Job, now, l.cfg.WarnTimeout)
			l.freeze(now)
		}
		l.changed(now)
	case gate.Release:
		l.release(c, now)
	case gate.Claim:
		l.claim(c, now)
	}
}

// quiet is the flag by which an Ack says that all that is harvested here is in its cgroups: nothing is being started.
func (l *loop) quiet() uint16 {
	if !l.synced || len(l.strays) > 0 {
		return 0
	}
	if l.anyStarting() {
		return 0
	}
	return gate.FlagQuiet
}

func (l *loop) release(c *gatesock.Call, now time.Time) {
	job := c.Frame.Job
	l.left.note(c, now)
	delete(l.early, job)
	l.announced.Drop(job)
	l.freeze(now)
	if l.ledger.Release(job, now) {
		l.log.Debug("job has left", "job", job)
		l.record(&api.AgentMessage{Message: &api.AgentMessage_JobEnded{JobEnded: &api.JobEnded{JobId: job}}})
	}
	c.Answer(gate.Done, 0)
	l.settle(now)
	l.lookAtMarks(0) // whatever the job has left
	l.changed(now)
}

// claim enters what the job holds, sets in motion what has to go, and answers at once when nothing has.
func (l *loop) claim(c *gatesock.Call, now time.Time) {
	f := c.Frame
	path := "gate"
	if f.Flags&gate.FlagBlunt != 0 {
		path = "prolog"
	}
	l.ledger.Claim(l.hold(f, now))
	early := l.early[f.Job]
	delete(l.early, f.Job)
	plan := l.evictFrom(f.Job, c.Received, now)
	l.explainKills(f.Job, now)
	if late(f.Nanos, now) {
		l.lookAtMarks(openAgain)
	}
	l.ticket++
	l.waiting[l.ticket] = c
	l.book.Open(evict.Ticket{
		ID: l.ticket, Job: f.Job, Path: path, Received: c.Received, Deadline: plan.Deadline,
		Evicted: slices.Concat(early.Evicted, plan.Evicted), Bytes: early.Bytes + plan.Bytes,
	})
	l.settle(now)
	l.changed(now)
}

// hold reads a claim. What cannot be read is taken for everything.
func (l *loop) hold(f gate.Frame, now time.Time) ledger.Hold {
	h := ledger.Hold{Job: f.Job, Since: now, Origin: ledger.Gate, Share: ownShare(f.Flags)}
	cores, err := coreset.Parse(f.Cores)
	gpus, err2 := coreset.Parse(f.GPUs)
	if err != nil || err2 != nil {
		l.log.Warn("claim with an unreadable list; the job is given the whole node", "job", f.Job, "cores", f.Cores, "gpus", f.GPUs)
		cores, gpus = nil, coreset.Range(0, l.cfg.Ledger.GPUs)
	}
	h.Cores, h.GPUs = cores, gpus
	if f.Flags&gate.FlagBlunt != 0 {
		h.Cores, h.Origin = nil, ledger.Prolog
	}
	h.All = h.Cores.Empty()
	h.Memory = l.unnamedMemory(h.Cores.Len())
	if f.MiB != gate.MemoryUnknown && f.MiB > 0 && f.MiB < 1<<43 {
		h.Memory = f.MiB << 20
	}
	return h
}

// unnamedMemory is what a job counts with of which Slurm names no memory, since it does not count it: all of the node's, or where the
// site says so the share of its cores. Unknown cores have it all.
func (l *loop) unnamedMemory(cores int) uint64 {
	all := l.cfg.Ledger.Memory
	if !l.cfg.MemoryByCores || cores == 0 {
		return all
	}
	return min(all, all/uint64(l.cfg.Ledger.Cores)*uint64(cores))
}

// evictFor ends what stands in a job's way when nobody waits for it. A claim that follows is answered with these too.
func (l *loop) evictFor(job uint32, now time.Time) {
	plan := l.evictFrom(job, now, now)
	if job == 0 || len(plan.Evicted) == 0 {
		return
	}
	maps.DeleteFunc(l.early, func(job uint32, _ evict.Plan) bool { _, known := l.ledger.Job(job); return !known })
	before := l.early[job]
	l.early[job] = evict.Plan{Evicted: slices.Concat(before.Evicted, plan.Evicted), Bytes: before.Bytes + plan.Bytes}
}

// evictFrom condemns what overlaps the job and ends it, beside the loop.
func (l *loop) evictFrom(job uint32, received, now time.Time) evict.Plan {
	h, _ := l.ledger.Job(job)
	plan := evict.New(h, l.ledger.Overlap(job), received, l.cfg.Evict.MaxGrace, l.cfg.Evict)
	for _, id := range plan.Kill {
		l.ledger.Condemn(id)
		if e := l.executors[id]; e != nil {
			e.end(api.EndReason_EVICTED, plan.Reason)
		} else if p := l.parked[id]; p != nil {
			p.ending = true
		}
	}
	if len(plan.Kill) > 0 {
		grace, told := time.Duration(0), "" // without a grace nobody is told: a job waits, and who listens dies later
		if len(plan.Evicted) > 0 && plan.Grace > 0 {
			grace, told = received.Add(plan.Grace).Sub(now), plan.Reason
		}
		l.kill(plan.Kill, told, grace, plan.Deadline)
		l.log.Info("evicting", "job", job, "executors", plan.Kill, "reason", plan.Reason)
		l.changed(now)
	}
	return plan
}

// settle answers the claims that can be answered.
func (l *loop) settle(now time.Time) {
	switch {
	case l.synced && len(l.strays) == 0:
		l.close(l.book.Settle(l.ledger.Clear), now)
	case !l.synced && !l.up && now.Sub(l.began) >= firstList:
		// What a predecessor left running cannot be known, nor ended: the gate does it by force.
		l.close(l.book.Expire(now.Add(time.Hour)), now)
	}
}

// close answers closed tickets and records them.
func (l *loop) close(verdicts []evict.Verdict, now time.Time) {
	for _, v := range verdicts {
		kind := gate.Done
		if !v.Complete {
			kind = gate.Failed
			l.lookAtMarks(openAgain)
			l.log.Error("claim not cleared in time; the gate uses force", "job", v.Job, "after", now.Sub(v.Received), "blocking", l.ledger.Blocking(v.Job))
		}
		l.waiting[v.ID].Answer(kind, len(v.Evicted))
		delete(l.waiting, v.ID)
		l.announced.Drop(v.Job)
		took := time.Since(v.Received)
		l.log.Debug("claim answered", "job", v.Job, "path", v.Path, "complete", v.Complete, "evicted", len(v.Evicted), "took", took)
		l.metrics.claim(took, len(v.Evicted))
		l.record(&api.AgentMessage{Message: &api.AgentMessage_Claim{Claim: &api.Claim{
			JobId: v.Job, Path: v.Path, Time: timestamppb.New(v.Received), Duration: durationpb.New(took),
			Evicted: v.Evicted, MemoryBytes: v.Bytes, Complete: v.Complete,
		}}})
		l.changed(now)
	}
	if len(verdicts) > 0 {
		l.freeze(now)
	}
}

// kill tells executors why they go, unless reason is empty, ends their sandboxes, and brings the confirmation back. One that is still
// being started is left to started: the launcher could meet the kill before it has made the sandbox, and confirm too early.
func (l *loop) kill(wanted []string, reason string, grace time.Duration, deadline time.Time) {
	var links []revocable
	var ids, boxes, frozen []string
	told := make(chan struct{}) // closed when the links have been told
	for _, id := range wanted {
		e, p := l.executors[id], l.parked[id]
		if e != nil && e.starting || p != nil && p.starting {
			continue
		}
		ids = append(ids, id)
		box := id
		if p != nil {
			p.killing = true
		}
		if e != nil {
			e.killing = true
			box = e.box
			if e.frozen {
				frozen = append(frozen, box)
			}
			if e.link != nil && reason != "" {
				links = append(links, e.link)
				e.told = told
			}
		}
		boxes = append(boxes, box)
	}
	if len(ids) == 0 {
		return
	}
	l.act(func(ctx context.Context) func(time.Time) {
		l.actions.Go(func() { // beside the kill, for which a job may wait
			defer close(told)
			revoke(links, reason, max(0, grace))
		})
		if grace > 0 {
			if len(frozen) > 0 {
				_ = l.cfg.Launcher.Thaw(ctx, frozen...) // what stays frozen has no use for its grace
			}
			select {
			case <-ctx.Done():
			case <-time.After(grace):
			}
		}
		ctx, cancel := context.WithDeadline(ctx, deadline)
		defer cancel()
		remaining, err := l.cfg.Launcher.Kill(ctx, boxes...)
		if err != nil {
			remaining = boxes
		}
		remaining = named(remaining, boxes, ids)
		return func(now time.Time) { l.killed(ids, remaining, err, now) }
	})
}

// named gives the ids of sandboxes.
func named(remaining, boxes, ids []string) []string {
	var names []string
	for i, box := range boxes {
		if slices.Contains(remaining, box) {
			names = append(names, ids[i])
		}
	}
	return names
}

// killed hears what a kill achieved. Claims are answered before anything else.
func (l *loop) killed(ids, remaining []string, err error, now time.Time) {
	left := map[string]bool{}
	for _, id := range remaining {
		left[id] = true
	}
	for _, id := range ids {
		if !left[id] {
			l.ledger.Remove(id)
			delete(l.strays, id)
			l.unparked(id, now)
		}
	}
	l.settle(now)
	for _, id := range ids {
		e := l.executors[id]
		switch {
		case !left[id] && e == nil:
		case l.parked[id] != nil:
			l.parked[id].killing = false
			l.parkIn(killAgain, now)
		case e == nil:
			l.log.Error("sandbox of nobody does not end", "executor", id)
		case !left[id]:
			l.gone(e, now)
		default:
			e.killing, e.retryAt = false, now.Add(killAgain)
		}
	}
	if len(remaining) > 0 {
		l.log.Error("sandboxes do not end", "executors", remaining, "error", err)
		l.close(l.book.Fail(remaining, l.ledger.Blocking), now)
	}
	l.changed(now)
}
