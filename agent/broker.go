package agent

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/gleaner-hpc/gleaner/agent/coreset"
	"github.com/gleaner-hpc/gleaner/agent/ledger"
	"github.com/gleaner-hpc/gleaner/agent/session"
	"github.com/gleaner-hpc/gleaner/api"
)

// session handles what happens on the stream to the broker.
func (l *loop) session(ev session.Event, now time.Time) {
	switch {
	case ev.Opened != nil:
		l.stream = ev.Opened
		l.register(now)
	case ev.Closed != nil:
		if l.stream != nil {
			l.log.Warn("broker is away; gating and evicting go on", "error", ev.Closed)
		} else {
			l.log.Debug("broker is not reachable", "error", ev.Closed)
		}
		l.stream = nil
	case ev.Message != nil:
		l.fromBroker(ev.Message, now)
	}
}

// register says what runs here, then what the broker has not stored yet.
func (l *loop) register(now time.Time) {
	r := &api.Register{Node: l.cfg.Node, Version: l.cfg.Version, BootId: l.outbox.BootID, State: l.nodeState(now)}
	for _, e := range l.executors {
		if e.reason == 0 && e.goneAt.IsZero() {
			r.Executors = append(r.Executors, &api.RunningExecutor{Id: e.id, LeaseId: e.start.GetLeaseId(), Ready: e.ready})
		}
	}
	slices.SortFunc(r.Executors, func(a, b *api.RunningExecutor) int { return strings.Compare(a.GetId(), b.GetId()) })
	l.stream.Send(&api.AgentMessage{Message: &api.AgentMessage_Register{Register: r}})
	for _, m := range l.outbox.Pending() {
		l.stream.Send(m)
	}
}

// send passes a message on while the broker is there. Register repeats what matters.
func (l *loop) send(m *api.AgentMessage) {
	if l.stream != nil {
		l.stream.Send(m)
	}
}

// record keeps a message until the broker has stored it.
func (l *loop) record(m *api.AgentMessage) { l.send(l.outbox.Add(m)) }

func (l *loop) fromBroker(m *api.BrokerMessage, now time.Time) {
	switch m := m.GetMessage().(type) {
	case *api.BrokerMessage_Welcome:
		l.welcome(m.Welcome, now)
	case *api.BrokerMessage_Start:
		l.startExecutor(m.Start, now)
	case *api.BrokerMessage_Stop:
		if e := l.executors[m.Stop.GetId()]; e != nil {
			l.stop(e, m.Stop.GetReason(), stopDetail(m.Stop.GetReason()), now)
		} else {
			delete(l.images, m.Stop.GetId()) // it is being fetched
		}
	case *api.BrokerMessage_SlurmJobs:
		l.slurmJobs(m.SlurmJobs, now)
	case *api.BrokerMessage_Order:
		l.ledger.Rank(m.Order.GetIds())
	case *api.BrokerMessage_Ack:
		if l.outbox.Ack(m.Ack.GetRecord()) {
			l.changed(now)
		}
	}
}

func stopDetail(reason api.EndReason) string {
	switch reason {
	case api.EndReason_RELEASED:
		return "lease was released"
	case api.EndReason_EXPIRED:
		return "lease expired: its holder did not renew it"
	case api.EndReason_JOB_ENDED:
		return "the Slurm job that the lease belongs to has ended"
	case api.EndReason_EVICTED:
		return "evicted: the jobs on the node stall"
	}
	return "stopped by the broker"
}

// welcome takes the broker's key and ends what no lease wants any more.
func (l *loop) welcome(w *api.Welcome, now time.Time) {
	l.log.Info("broker knows this node", "keeps", len(w.GetKeep()))
	if !bytes.Equal(l.publicKey, w.GetPublicKey()) {
		l.publicKey = w.GetPublicKey()
		for _, e := range l.executors {
			l.assign(e)
		}
	}
	for _, e := range l.executors {
		if !slices.Contains(w.GetKeep(), e.id) {
			l.stop(e, api.EndReason_STOPPED, "the broker knows no living lease for it", now)
		}
	}
	l.watchEvery(w.GetWatch().AsDuration(), now)
	l.changed(now)
}

// slurmJobs is the rare reconcile. Whether a job that slurmctld no longer names still runs here is looked up beside the loop.
func (l *loop) slurmJobs(m *api.SlurmJobs, now time.Time) {
	why := ""
	if !m.GetHarvestable() {
		why = m.GetWhyNot()
		if why == "" {
			why = "Slurm says that nothing is to be lent here"
		}
	}
	l.ledger.Block("slurm", why)
	l.siteShares(m.GetJobs())
	if m.GetVacate() {
		l.vacate(why, now)
	}
	report := ledger.Report{AsOf: m.GetAsOf().AsTime()}
	named := map[uint32]bool{}
	for _, j := range m.GetJobs() {
		h := ledger.Hold{Job: j.GetJobId(), CoreCount: int(j.GetCoreCount()), Memory: j.GetMemoryBytes()}
		if h.Memory == 0 {
			h.Memory = l.unnamedMemory(h.CoreCount)
		}
		cores, err := coreset.Parse(j.GetCores())
		if err != nil {
			l.log.Warn("broker sent an unreadable core list", "job", h.Job, "error", err)
		}
		h.Cores = cores
		named[h.Job] = true
		report.Jobs = append(report.Jobs, h)
	}
	l.changed(now)
	missing := slices.ContainsFunc(l.ledger.Jobs(), func(h ledger.Hold) bool { return !named[h.Job] })
	if !missing {
		l.reconcile(report, now)
		return
	}
	l.act(func(context.Context) func(time.Time) {
		found := l.cfg.Jobs.Look()
		return func(now time.Time) {
			report.Local = found.Jobs
			l.reconcile(report, now)
		}
	})
}

// vacate ends every executor: the node is going out of service, and whoever repairs or reboots it waits for Slurm's jobs alone.
func (l *loop) vacate(why string, now time.Time) {
	for _, e := range l.executors {
		l.stop(e, api.EndReason_EVICTED, "evicted: "+why, now)
	}
}

func (l *loop) reconcile(r ledger.Report, now time.Time) {
	for _, c := range l.ledger.Reconcile(r, now) {
		l.log.Info("ledger corrected by slurmctld's report", "job", c.Job, "claimed", c.Claimed)
		if c.Claimed {
			l.evictFor(c.Job, now)
		} else {
			l.record(&api.AgentMessage{Message: &api.AgentMessage_JobEnded{JobEnded: &api.JobEnded{JobId: c.Job}}})
		}
	}
	l.settle(now)
	l.changed(now)
}

// checkAdmission notices that admission changed by the passing of time alone.
func (l *loop) checkAdmission(now time.Time) {
	if ok, _ := l.ledger.Admitting(now); ok != l.admitting {
		l.admitting = ok
		l.changed(now)
	}
}

func (l *loop) sendState(now time.Time) {
	l.send(&api.AgentMessage{Message: &api.AgentMessage_State{State: l.nodeState(now)}})
}

func (l *loop) nodeState(now time.Time) *api.NodeState {
	admitting, why := l.ledger.Admitting(now)
	s := &api.NodeState{
		Total: resources(l.ledger.Node()), Slurm: resources(l.ledger.Slurm()), Leased: resources(l.ledger.Leased()),
		Free: resources(l.ledger.Free(now)), Admitting: admitting, WhyNot: why, Note: l.note(),
	}
	for _, h := range l.ledger.Jobs() {
		if h.Job == 0 {
			continue // a placeholder
		}
		count := h.Cores.Len()
		if h.All {
			count = h.CoreCount
		}
		s.Jobs = append(s.Jobs, &api.JobHold{
			JobId: h.Job, Cores: h.Cores.String(), CoreCount: uint32(count), MemoryBytes: h.Memory, Gpus: uint32(h.GPUs.Len()),
		})
	}
	l.describeUse(s)
	return s
}

func resources(t ledger.Totals) *api.Resources {
	return &api.Resources{Cores: uint32(t.Cores), MemoryBytes: t.Memory, Gpus: uint32(t.GPUs)}
}
