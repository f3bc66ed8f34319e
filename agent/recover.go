package agent

import (
	"cmp"
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/gleaner-hpc/gleaner/agent/coreset"
	"github.com/gleaner-hpc/gleaner/agent/ledger"
	"github.com/gleaner-hpc/gleaner/agent/state"
	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/api/launcher"
)

// skipRecords is added to the record number of a state that is read back: records that a predecessor numbered after its last save
// are never mistaken for new ones.
const skipRecords = 1 << 20

// restore takes over what a predecessor left. After a boot of the machine its executors and jobs are gone; its records are not.
func (l *loop) restore(s *state.State, boot string, now time.Time) {
	l.boot = boot
	if s.Outbox != nil && s.Outbox.BootID != "" {
		l.outbox = s.Outbox
		l.outbox.Last += skipRecords
	}
	l.publicKey = s.PublicKey
	if s.Boot != boot {
		for _, e := range s.Executors {
			l.restoreExecutor(e, false, now)
		}
		return
	}
	for _, h := range s.Holds {
		cores, err := coreset.Parse(h.Cores)
		gpus, err2 := coreset.Parse(h.GPUs)
		partial := !h.All && cores.Empty() // GPUs of a warning
		if err != nil || err2 != nil {
			l.log.Error("predecessor's hold is unreadable; the job is given the whole node", "job", h.Job)
			cores, partial = nil, false
		}
		if partial {
			l.ledger.Warn(h.Job, gpus, h.Since, now.Add(l.cfg.WarnTimeout))
			continue
		}
		l.ledger.Claim(ledger.Hold{
			Job: h.Job, Cores: cores, All: h.All, CoreCount: h.CoreCount, Memory: h.Memory, GPUs: gpus,
			Since: h.Since, Origin: ledger.Origin(h.Origin), Share: ledger.Share(h.Share),
		})
	}
	for _, e := range s.Executors {
		l.restoreExecutor(e, true, now)
	}
}

// restoreExecutor takes over one executor; whether it still runs is told by the launcher's list.
func (l *loop) restoreExecutor(s state.Executor, sameBoot bool, now time.Time) {
	start := &api.Start{}
	if err := proto.Unmarshal(s.Start, start); err != nil {
		l.log.Error("predecessor's executor is unreadable", "error", err)
		return
	}
	e := &executor{id: start.GetId(), box: cmp.Or(s.Box, start.GetId()), start: start, asked: now, running: s.Since}
	cores, err := coreset.Parse(s.Cores)
	gpus, err2 := coreset.Parse(s.GPUs)
	if err == nil && err2 == nil && sameBoot {
		err = l.ledger.Adopt(ledger.Executor{
			ID: e.id, Lease: start.GetLeaseId(), Cores: cores, GPUs: gpus, Memory: start.GetMemoryBytes(), Since: s.Since,
		})
	}
	if !sameBoot {
		e.end(api.EndReason_EXECUTOR_FAILED, "the node was rebooted")
		e.goneAt = now
		l.finish(e, now)
		return
	}
	if err != nil || err2 != nil { // the list will show its sandbox as a stray
		l.log.Error("executor cannot be taken over", "executor", e.id, "error", err)
		return
	}
	if s.Address != "" {
		e.ready = &api.ExecutorReady{Id: e.id, Address: s.Address, Local: s.Local, Startup: durationpb.New(time.Duration(s.Startup))}
	}
	l.executors[e.id] = e
	l.nextSample = now.Add(sampleEvery)
}

// save hands the state to the writer.
func (l *loop) save() {
	s := state.State{Schema: state.Schema, Boot: l.boot, PublicKey: l.publicKey, Outbox: l.outbox}
	for _, h := range l.ledger.Jobs() {
		s.Holds = append(s.Holds, state.Hold{
			Job: h.Job, Cores: h.Cores.String(), All: h.All, CoreCount: h.CoreCount, Memory: h.Memory, GPUs: h.GPUs.String(),
			Since: h.Since, Origin: string(h.Origin), Share: string(h.Share),
		})
	}
	for _, held := range l.ledger.Executors() {
		e := l.executors[held.ID]
		if e == nil {
			continue
		}
		start, err := proto.Marshal(e.start)
		if err != nil {
			l.log.Error("cannot save executor", "executor", e.id, "error", err)
			continue
		}
		saved := state.Executor{Start: start, Cores: held.Cores.String(), GPUs: held.GPUs.String(), Since: held.Since}
		if e.box != e.id {
			saved.Box = e.box
		}
		if e.ready != nil {
			saved.Address, saved.Local, saved.Startup = e.ready.GetAddress(), e.ready.GetLocal(), int64(e.ready.GetStartup().AsDuration())
		}
		s.Executors = append(s.Executors, saved)
	}
	text, err := json.Marshal(s)
	if err != nil {
		l.log.Error("cannot encode state", "error", err)
		return
	}
	l.writer.Set(text)
}

// listed compares the launcher's list, asked for at a time, with what the ledger knows: sandboxes of nobody are ended, executors
// without a sandbox are gone, and the rest give their figures.
func (l *loop) listed(sandboxes []launcher.Sandbox, asked, now time.Time) {
	running := map[string]bool{}
	var strays, frozen []string
	var figures []*api.Usage_Executor
	for _, s := range sandboxes {
		e := l.inBox(s.ID)
		switch {
		case l.parked[s.ID] != nil:
			running[s.ID] = true
		case e == nil:
			strays = append(strays, s.ID)
			l.strays[s.ID] = true
		case s.Running || e.starting:
			running[e.id] = true
			if s.Frozen {
				frozen = append(frozen, e.id)
			}
			e.cpu, e.peak = max(e.cpu, s.CPUNanos), max(e.peak, s.PeakBytes)
			figures = append(figures, &api.Usage_Executor{Id: e.id, CpuNanoseconds: s.CPUNanos, MemoryBytes: s.MemoryBytes})
		}
	}
	if len(strays) > 0 {
		l.log.Warn("ending sandboxes of leases that this agent does not know", "executors", strays)
		l.kill(strays, "", 0, now.Add(killWithin))
	}
	for _, e := range l.executors {
		// One that was started or ended after the question is not judged by the answer.
		if !running[e.id] && !e.starting && e.running.Before(asked) && e.goneAt.IsZero() && !e.killing {
			e.end(l.unwatched())
			l.ledger.Condemn(e.id)
			l.kill([]string{e.id}, e.detail, 0, now.Add(killWithin)) // clears what may be left, and confirms
		}
	}
	for id, p := range l.parked {
		if !running[id] && !p.starting && p.since.Before(asked) {
			l.unparked(id, now)
		}
	}
	if len(figures) > 0 {
		l.send(&api.AgentMessage{Message: &api.AgentMessage_Usage{Usage: &api.Usage{Executors: figures}}})
	}
	if !l.synced || !l.up {
		l.synced = true
		l.log.Info("launcher's sandboxes compared", "executors", len(l.executors), "strays", len(strays))
	}
	l.up = true
	l.listedFrozen(frozen, asked, now)
	l.ledger.Block("launcher", "")
	l.settle(now)
	l.changed(now)
}

// unwatched explains the end of a sandbox that ended while nobody watched. When a job runs here that has claimed nothing, its gate
// found no agent and used force.
func (l *loop) unwatched() (api.EndReason, string) {
	for _, h := range l.ledger.Jobs() {
		if h.Origin == ledger.Scan {
			return api.EndReason_EVICTED, fmt.Sprintf("evicted: job %d started while this node's agent was away, and its gate used force", h.Job)
		}
	}
	return api.EndReason_EXECUTOR_FAILED, "sandbox ended while nobody watched (agent or launcher was restarted)"
}
