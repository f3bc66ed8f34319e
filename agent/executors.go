package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gleaner-hpc/gleaner/agent/execsock"
	"github.com/gleaner-hpc/gleaner/agent/launch"
	"github.com/gleaner-hpc/gleaner/agent/ledger"
	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/api/launcher"
)

// nobody runs the functions of leases that belong to root.
const nobody = 65534

// executor is one sandbox, from Start until its end has been recorded.
//
//	starting ──▶ running ──▶ ready
//	    └───────────┴──────────┴──▶ ending (why is set) ──▶ gone (holds nothing) ──▶ recorded
type executor struct {
	id    string
	box   string // the sandbox it runs in: id, or one that was parked
	start *api.Start
	asked time.Time // when Start came, or the successor adopted it

	starting bool // the launcher has not answered yet
	parked   bool // its sandbox was
	running  time.Time
	link     *execsock.Link
	told     <-chan struct{} // closed when the link has been told why; nil: nothing is being said
	ready    *api.ExecutorReady

	reason  api.EndReason // why it ends; 0 while it lives
	detail  string
	killing bool
	retryAt time.Time        // next attempt at a sandbox that would not end
	exit    *launcher.Exited // the launcher's last word
	goneAt  time.Time        // when its sandbox was known to be gone
	// unexplained says that the sandbox was killed by nobody whom we know.
	unexplained bool
	frozen      bool   // as far as is known
	complained  uint   // of refused tokens: bits by reason
	cpu         uint64 // latest figures
	peak        uint64
	spin        time.Duration // polled without serving, as the executor says
	spun        bool          // more than the broker knows
}

// end notes why an executor ends; the first reason counts.
func (e *executor) end(reason api.EndReason, detail string) {
	if e.reason == 0 {
		e.reason, e.detail = reason, detail
	}
}

// deadline is when something about the executor is overdue; zero for never.
func (e *executor) deadline() time.Time {
	switch {
	case !e.goneAt.IsZero():
		return e.goneAt.Add(exitWithin)
	case e.reason != 0 && !e.killing && !e.starting:
		return e.retryAt
	case e.reason == 0 && e.ready == nil:
		return e.asked.Add(startWithin)
	}
	return time.Time{}
}

func (l *loop) overdue(e *executor, now time.Time) {
	switch {
	case !e.goneAt.IsZero():
		if e.exit != nil {
			e.end(api.EndReason_EXECUTOR_FAILED, exitDetail(*e.exit))
		}
		l.finish(e, now)
	case e.reason != 0:
		l.kill([]string{e.id}, e.detail, 0, now.Add(killWithin))
	default:
		l.stop(e, api.EndReason_EXECUTOR_FAILED, fmt.Sprintf("executor was not ready within %v of its start", startWithin), now)
	}
}

// startExecutor does what the broker asks, or refuses with the ledger's words.
func (l *loop) startExecutor(s *api.Start, now time.Time) {
	if l.executors[s.GetId()] != nil {
		return // asked again after a reconnect
	}
	if l.fetch(s, now) {
		return
	}
	err := checkStart(s)
	if err == nil {
		err = l.cfg.Grants.check(s)
	}
	var held ledger.Executor
	if err == nil {
		l.lookAround(now)
		held, err = l.ledger.Reserve(s.GetId(), s.GetLeaseId(), ledger.Need{Cores: int(s.GetCores()), Memory: s.GetMemoryBytes(), GPUs: int(s.GetGpus())}, now)
	}
	if err != nil {
		l.log.Info("start refused", "executor", s.GetId(), "lease", s.GetLeaseId(), "reason", err)
		l.dropImage(s)
		l.unstartable(s, api.EndReason_REFUSED, err.Error(), now)
		return
	}
	e := &executor{id: s.GetId(), box: s.GetId(), start: s, asked: now, starting: true}
	l.executors[e.id] = e
	l.changed(now)
	if p := l.take(s); p != nil {
		l.reuse(e, p, l.spec(s, held))
	} else {
		l.launch(e, l.spec(s, held), l.makeRoom())
	}
	l.visited(ownerOf(s), now)
}

// launch starts an executor's sandbox, after those parked ones have ended whose memory it needs.
func (l *loop) launch(e *executor, spec launcher.Spec, crowd []string) {
	l.act(func(ctx context.Context) func(time.Time) {
		ctx, cancel := context.WithTimeout(ctx, startWithin)
		defer cancel()
		var err error
		var remaining []string
		if len(crowd) > 0 {
			remaining, err = l.cfg.Launcher.Kill(ctx, crowd...)
		}
		if err == nil && len(remaining) > 0 {
			err = fmt.Errorf("parked sandboxes %v do not end", remaining)
		}
		if err == nil {
			err = l.identify(ctx, &spec)
		}
		if err == nil {
			_, err = l.cfg.Launcher.Start(ctx, spec)
		}
		return func(now time.Time) {
			if len(crowd) > 0 {
				l.killed(crowd, remaining, nil, now)
			}
			l.started(e, err, now)
		}
	})
}

// reuse gives a parked sandbox to an executor. One that cannot be resized is ended, and another started.
func (l *loop) reuse(e *executor, p *parked, spec launcher.Spec) {
	e.box, e.link, e.parked = p.id, p.link, true
	spec.ID = p.id
	l.act(func(ctx context.Context) func(time.Time) {
		ctx, cancel := context.WithTimeout(ctx, killWithin)
		defer cancel()
		err := l.identify(ctx, &spec)
		if err == nil {
			err = l.cfg.Launcher.Resize(ctx, spec)
		}
		return func(now time.Time) {
			if err == nil || e.reason != 0 {
				l.started(e, err, now)
				return
			}
			l.log.Warn("parked sandbox cannot be used", "executor", e.id, "sandbox", p.id, "error", err)
			l.strays[p.id] = true
			e.box, e.link, e.exit, e.parked = e.id, nil, nil, false
			l.kill([]string{p.id}, "", 0, now.Add(killWithin))
			spec.ID = e.id
			l.launch(e, spec, l.makeRoom())
		}
	})
}

// inBox is the executor of a sandbox, nil when there is none.
func (l *loop) inBox(box string) *executor {
	if e := l.executors[box]; e != nil && e.box == box {
		return e
	}
	for _, e := range l.executors {
		if e.box == box {
			return e
		}
	}
	return nil
}

func checkStart(s *api.Start) error {
	switch id := s.GetId(); {
	case id == "" || len(id) > 64 || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		return fmt.Errorf("executor id %.80q is not made of a-z, 0-9 and - only", id)
	case s.GetCores() < 1 || s.GetCores() > 1024:
		return fmt.Errorf("%d cores, want 1 to 1024", s.GetCores())
	case s.GetMemoryBytes() < 1<<20 || s.GetMemoryBytes() > 1<<50:
		return fmt.Errorf("%d bytes of memory, want at least 1 MiB", s.GetMemoryBytes())
	case len(s.GetFunction().GetDigest()) != 32:
		return fmt.Errorf("function digest of %d bytes, want 32", len(s.GetFunction().GetDigest()))
	}
	return nil
}

// spec is what the launcher is asked for.
func (l *loop) spec(s *api.Start, held ledger.Executor) launcher.Spec {
	spec := launcher.Spec{
		ID: s.GetId(), UID: runAs(s.GetUid()), GID: runAs(s.GetGid()), CPUs: l.cpus(held),
		MilliCPUs: held.Cores.Len() * l.cfg.ThreadsPerCore * 1000, MemoryBytes: int64(held.Memory), Binds: bindsOf(s),
	}
	spec.Image = l.image(s.GetId()).Key
	for _, gpu := range held.GPUs.Numbers() {
		spec.Devices = append(spec.Devices, l.cfg.Devices[gpu])
	}
	spec.Devices = deviceFiles(spec.Devices, launch.CheckDevice)
	return spec
}

// runAs gives root's functions to nobody.
func runAs(id uint32) uint32 {
	if id == 0 {
		return nobody
	}
	return id
}

// started hears the launcher's answer to a start.
func (l *loop) started(e *executor, err error, now time.Time) {
	e.starting = false
	switch {
	case err == nil && e.exit == nil:
		e.running = now
		if l.nextSample.IsZero() {
			l.nextSample = now.Add(sampleEvery)
		}
		if e.reason != 0 { // condemned meanwhile
			l.kill([]string{e.id}, e.detail, 0, now.Add(killWithin))
		} else if e.parked {
			l.assign(e)
		}
	case err == nil:
		l.exited(*e.exit, now)
	default:
		l.log.Error("executor not started", "executor", e.id, "lease", e.start.GetLeaseId(), "error", err)
		l.deviceRefused(e, err, now)
		reason := api.EndReason_EXECUTOR_FAILED
		switch {
		case errors.Is(err, launcher.ErrShut):
			reason = api.EndReason_REFUSED
			l.lookAtMarks(0)
		case errors.Is(err, launch.ErrDevices):
			reason = api.EndReason_REFUSED
		}
		e.end(reason, "sandbox could not be started: "+err.Error())
		// Nothing is known about a start whose answer was lost: only a kill tells that nothing is left.
		l.ledger.Condemn(e.id)
		l.kill([]string{e.id}, e.detail, 0, now.Add(killWithin))
	}
	l.changed(now)
}

// stop ends an executor that no job has to wait for.
func (l *loop) stop(e *executor, reason api.EndReason, detail string, now time.Time) {
	if e.reason != 0 || e.unexplained {
		return
	}
	e.end(reason, detail)
	l.ledger.Condemn(e.id)
	l.kill([]string{e.id}, detail, 0, now.Add(killWithin))
	l.changed(now)
}

// exited hears from the launcher that a sandbox ended.
func (l *loop) exited(x launcher.Exited, now time.Time) {
	e := l.inBox(x.ID)
	if e == nil {
		delete(l.strays, x.ID)
		l.unparked(x.ID, now)
		l.settle(now)
		return
	}
	e.exit, e.cpu, e.peak = &x, max(e.cpu, x.CPUNanos), max(e.peak, x.PeakBytes)
	if e.starting {
		return // Start's answer is still on its way
	}
	l.ledger.Remove(e.id)
	l.settle(now) // before all else: a claim may wait for it
	if e.reason == 0 && x.Signal == int(unix.SIGKILL) && !x.OOM {
		// By nobody whom we know: a gate that had to use force does so, and its claim may still be on its way.
		e.goneAt, e.unexplained = now, true
		if now.Sub(l.claimedAt) < exitWithin { // or has been heard first
			l.explainKills(l.claimedBy, now)
		} else {
			l.lookAtMarks(0)
		}
		l.changed(now)
		return
	}
	e.end(api.EndReason_EXECUTOR_FAILED, exitDetail(x))
	l.gone(e, now)
}

// explainKills says of sandboxes that were just killed by nobody whom we know that a job's gate did it.
func (l *loop) explainKills(job uint32, now time.Time) {
	l.claimedBy, l.claimedAt = job, now
	for _, e := range l.executors {
		if e.unexplained && e.reason == 0 {
			e.end(api.EndReason_EVICTED, fmt.Sprintf("evicted: job %d needed its resources, and its gate used force because this agent did not answer in time", job))
			l.finish(e, now)
		}
	}
}

func exitDetail(x launcher.Exited) string {
	switch {
	case x.OOM:
		return fmt.Sprintf("killed for memory: its limit was reached (peak %d MiB); ask for more memory per executor", x.PeakBytes>>20)
	case x.Signal != 0:
		return fmt.Sprintf("executor was killed by signal %d", x.Signal)
	}
	return fmt.Sprintf("executor exited with status %d", x.Code)
}

// gone frees what an executor held. Its end is recorded once the launcher's figures are there.
func (l *loop) gone(e *executor, now time.Time) {
	l.ledger.Remove(e.id)
	if e.goneAt.IsZero() {
		e.goneAt = now
	}
	if e.exit != nil {
		l.finish(e, now)
	}
	l.changed(now)
}

// finish records an executor's end and forgets it.
func (l *loop) finish(e *executor, now time.Time) {
	ended := &api.ExecutorEnded{
		Id: e.id, Reason: e.reason, Detail: e.detail, CpuNanoseconds: e.cpu, PeakMemoryBytes: e.peak, Ended: timestamppb.New(e.goneAt),
		SpinNanoseconds: uint64(e.spin),
	}
	if !e.running.IsZero() {
		ended.Started = timestamppb.New(e.running)
	}
	if e.exit != nil && !e.exit.Started.IsZero() {
		ended.Started = timestamppb.New(e.exit.Started)
	}
	delete(l.executors, e.id)
	l.dropImage(e.start)
	e.hangUp(&l.actions)
	l.log.Info("executor ended", "executor", e.id, "lease", e.start.GetLeaseId(), "reason", e.reason, "detail", e.detail)
	l.metrics.ended(e)
	l.record(&api.AgentMessage{Message: &api.AgentMessage_Ended{Ended: ended}})
	l.changed(now)
}

// sample reads the figures of running executors.
func (l *loop) sample(now time.Time) {
	l.nextSample = time.Time{}
	if len(l.executors) == 0 {
		return
	}
	l.nextSample = now.Add(sampleEvery)
	l.sendUsage()
	if l.up {
		l.compare()
	}
}
