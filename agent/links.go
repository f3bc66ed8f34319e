package agent

import (
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/gleaner-hpc/gleaner/agent/execsock"
	"github.com/gleaner-hpc/gleaner/api"
	apiexec "github.com/gleaner-hpc/gleaner/api/executor"
)

// maxRefusals is the most that one frame of an executor counts.
const maxRefusals = 1 << 20

// selfDir is where a sandbox sees its own folder.
const selfDir = "/run/gleaner/self"

// hangUp closes the link, after what is being said through it.
func (e *executor) hangUp(actions *sync.WaitGroup) {
	link, told := e.link, e.told
	switch {
	case link == nil:
	case told == nil:
		link.Close()
	default:
		actions.Go(func() {
			<-told
			link.Close()
		})
	}
}

// linked handles what an executor says.
func (l *loop) linked(ev execsock.Event, now time.Time) {
	if p := l.parked[ev.Link.ID]; p != nil {
		l.parkedSays(p, ev, now)
		return
	}
	e := l.inBox(ev.Link.ID)
	if e == nil || ev.Link.UID != runAs(e.start.GetUid()) {
		if !ev.Closed {
			l.log.Warn("connection of an executor that is not known here", "executor", ev.Link.ID, "uid", ev.Link.UID)
			ev.Link.Close()
		}
		return
	}
	switch f := ev.Frame; {
	case ev.Closed:
		if e.link == ev.Link {
			e.link = nil
		}
	case f.Hello != nil && f.Hello.ID == e.box:
		e.link = ev.Link
		l.assign(e)
	case f.Refused != nil && e.link == ev.Link:
		l.refused(e, f.Refused)
	case f.Usage != nil && e.link == ev.Link:
		l.used(e, f.Usage, now)
	case f.Ready != nil && e.link == ev.Link:
		l.becameReady(e, f.Ready, now)
	case f.Failed != nil && e.link == ev.Link:
		l.stop(e, api.EndReason_EXECUTOR_FAILED, "executor cannot serve: "+clip(f.Failed.Error), now)
	default:
		ev.Link.Close()
	}
}

// refused counts what an executor says of bad tokens, and logs each reason once for each executor. Its word is that of a process of
// the lease's user.
func (l *loop) refused(e *executor, r *apiexec.Refused) {
	for i, reason := range apiexec.TokenReasons {
		n := r.Tokens[reason]
		if n == 0 {
			continue
		}
		l.metrics.refused.WithLabelValues(reason).Add(float64(min(n, maxRefusals)))
		if e.complained&(1<<i) == 0 {
			e.complained |= 1 << i
			l.log.Warn("tokens refused", "executor", e.id, "lease", e.start.GetLeaseId(), "reason", reason, "count", n)
		}
	}
}

func clip(s string) string { return s[:min(len(s), 1024)] }

// assign gives an executor its lease, once the broker's key is known.
func (l *loop) assign(e *executor) {
	if e.link == nil || l.publicKey == nil || e.reason != 0 {
		return
	}
	s := e.start
	err := e.link.Send(apiexec.FromAgent{Assign: &apiexec.Assign{
		Executor: e.id, Lease: s.GetLeaseId(), Epoch: s.GetEpoch(), Job: s.GetJobId(), PublicKey: l.publicKey,
		Symbol: s.GetFunction().GetSymbol(), Name: s.GetFunction().GetName(), Digest: s.GetFunction().GetDigest(), CodeBytes: s.GetFunction().GetSizeBytes(),
		BufferBytes: s.GetBufferBytes(), Cores: int(s.GetCores()),
		ListenHost: l.cfg.ListenHost, Provider: l.provider(s), OrphanTimeout: l.cfg.OrphanTimeout,
		Network: s.GetNetwork(),
	}})
	if err != nil {
		l.log.Warn("executor does not take its lease", "executor", e.id, "error", err)
	}
}

func (l *loop) becameReady(e *executor, r *apiexec.Ready, now time.Time) {
	if e.reason != 0 {
		return
	}
	startup := durationpb.New(now.Sub(e.asked))
	if e.ready != nil {
		if e.ready.GetAddress() == r.Address {
			return
		}
		startup = e.ready.GetStartup()
	} else {
		l.metrics.startup(now.Sub(e.asked), e.parked)
	}
	e.ready = &api.ExecutorReady{Id: e.id, Address: clip(r.Address), Local: l.hostPath(e.box, r.Local), Startup: startup, ImageDigest: l.image(e.id).Digest}
	l.send(&api.AgentMessage{Message: &api.AgentMessage_Ready{Ready: e.ready}})
	l.changed(now)
}

// hostPath turns a socket's path as the sandbox sees it into the host's; "" when it lies anywhere but in the sandbox's own folder.
func (l *loop) hostPath(id, inside string) string {
	rest, ok := strings.CutPrefix(path.Clean("/"+inside), selfDir+"/")
	if !ok {
		return ""
	}
	return filepath.Join(l.cfg.RunDir, "executors", id, rest)
}

// revocable is a link to an executor.
type revocable interface {
	Send(apiexec.FromAgent) error
}

// revoke tells executors that their lease is over. One that does not listen is killed without knowing why.
func revoke(links []revocable, reason string, grace time.Duration) {
	for _, link := range links {
		_ = link.Send(apiexec.FromAgent{Revoke: &apiexec.Revoke{Reason: reason, Grace: grace}})
	}
}
