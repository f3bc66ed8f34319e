package agent

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"time"

	"github.com/gleaner-hpc/gleaner/agent/execsock"
	"github.com/gleaner-hpc/gleaner/agent/ledger"
	"github.com/gleaner-hpc/gleaner/api"
	apiexec "github.com/gleaner-hpc/gleaner/api/executor"
	"github.com/gleaner-hpc/gleaner/api/launcher"
)

const (
	parkAfter  = 100 * time.Millisecond // quiet time before a sandbox is parked: starts of leases come first
	parkAgain  = 10 * time.Second       // after a job took one, or one failed
	parkedFor  = 10 * time.Minute       // after an owner's last start nothing is parked for it any more
	parkedQuot = 500                    // thousandths of a CPU: a parked sandbox loads its libraries and then sleeps
)

// Parking says how many sandboxes wait ahead of demand. The zero value parks none.
type Parking struct {
	Count  int    // per node
	Memory uint64 // bytes, of each
}

// owner is for whom a sandbox is parked: its user namespace holds these ids for life, so that no other lease may have it.
type owner struct{ uid, gid uint32 }

// visit is an owner's last start on this node.
type visit struct {
	owner
	at time.Time
}

// parked is a sandbox that waits for a lease: its executor is connected, its worker runs and has its endpoint open, and all sleep.
//
//	starting ──▶ waiting ──prepared──▶ usable ──Start of its owner──▶ an executor's
//	    └───────────┴────────────────────┴──▶ ending ──▶ gone
type parked struct {
	id string
	owner
	since    time.Time
	starting bool
	link     *execsock.Link
	prepared bool
	ending   bool
	killing  bool
}

// wanted distributes n parked sandboxes over owners, most recent first.
func wanted(recent []visit, n int) map[owner]int {
	want := map[owner]int{}
	for i := 0; i < n && len(recent) > 0; i++ {
		want[recent[i%len(recent)].owner]++
	}
	return want
}

// visited notes a start of an owner.
func (l *loop) visited(o owner, now time.Time) {
	l.recent = slices.DeleteFunc(l.recent, func(v visit) bool { return v.owner == o })
	l.recent = slices.Insert(l.recent, 0, visit{o, now})
	l.parkIn(parkAfter, now)
}

// parkIn makes park look after d, or earlier if it was to.
func (l *loop) parkIn(d time.Duration, now time.Time) {
	if at := now.Add(d); l.cfg.Parking.Count > 0 && (l.parkAt.IsZero() || at.Before(l.parkAt)) {
		l.parkAt = at
	}
}

// park brings what is parked in line with what is wanted. Nothing is parked while a lease starts or a job waits.
func (l *loop) park(now time.Time) {
	l.parkAt = time.Time{}
	l.recent = slices.DeleteFunc(l.recent, func(v visit) bool { return now.Sub(v.at) >= parkedFor })
	if len(l.recent) > 0 {
		l.parkIn(l.recent[len(l.recent)-1].at.Add(parkedFor).Sub(now), now)
	}
	want := wanted(l.recent, l.cfg.Parking.Count)
	for _, p := range l.parked {
		switch {
		case p.ending:
			l.unpark(p, now) // again, unless it is under way
		case want[p.owner] == 0:
			l.unpark(p, now)
		default:
			want[p.owner]--
		}
	}
	if busy := slices.ContainsFunc(l.living(), func(e *executor) bool { return e.ready == nil }); busy || len(l.waiting) > 0 {
		l.parkIn(parkAfter, now)
		return
	}
	for o, n := range want {
		for range n {
			l.parkOne(o, now)
		}
	}
}

// living are the executors that have not ended.
func (l *loop) living() []*executor {
	var all []*executor
	for _, e := range l.executors {
		if e.reason == 0 && e.goneAt.IsZero() {
			all = append(all, e)
		}
	}
	return all
}

// parkOne starts a sandbox for an owner, if the node has a free core and the memory for it.
func (l *loop) parkOne(o owner, now time.Time) {
	p := &parked{id: "parked-" + strings.ToLower(rand.Text()[:10]), owner: o, since: now, starting: true}
	held, err := l.ledger.Park(p.id, l.cfg.Parking.Memory, now)
	if err != nil {
		l.log.Debug("nothing parked", "uid", o.uid, "reason", err)
		l.parkIn(parkAgain, now)
		return
	}
	l.parked[p.id] = p
	spec := launcher.Spec{ID: p.id, UID: o.uid, GID: o.gid, MilliCPUs: parkedQuot, MemoryBytes: int64(held.Memory), CPUs: l.cpus(held)}
	l.act(func(ctx context.Context) func(time.Time) {
		ctx, cancel := context.WithTimeout(ctx, startWithin)
		defer cancel()
		err := l.identify(ctx, &spec)
		if err == nil {
			_, err = l.cfg.Launcher.Start(ctx, spec)
		}
		return func(now time.Time) {
			p.starting = false
			if err != nil {
				l.log.Warn("sandbox not parked", "executor", p.id, "error", err)
				p.ending = true
			}
			if p.ending {
				l.unpark(p, now)
			}
		}
	})
}

// unpark ends a parked sandbox.
func (l *loop) unpark(p *parked, now time.Time) {
	p.ending = true
	l.ledger.Condemn(p.id)
	if !p.killing && !p.starting {
		l.kill([]string{p.id}, "", 0, now.Add(killWithin))
	}
}

// unparked hears that a parked sandbox is gone.
func (l *loop) unparked(id string, now time.Time) {
	if p := l.parked[id]; p != nil {
		delete(l.parked, id)
		l.ledger.Remove(id)
		l.parkIn(parkAgain, now)
		if p.link != nil {
			p.link.Close()
		}
	}
}

// take gives a start a parked sandbox of its owner's, nil when there is none that fits.
func (l *loop) take(s *api.Start) *parked {
	if s.GetGpus() > 0 || len(s.GetBinds()) > 0 || s.GetImage() != "" { // devices, mounts and root come with a sandbox's birth
		return nil
	}
	for _, p := range l.parked {
		if p.prepared && !p.ending && p.link != nil && p.owner == ownerOf(s) {
			delete(l.parked, p.id)
			l.ledger.Remove(p.id)
			return p
		}
	}
	return nil
}

func ownerOf(s *api.Start) owner { return owner{runAs(s.GetUid()), runAs(s.GetGid())} }

// makeRoom ends parked sandboxes whose memory has just been given to a lease, and returns them.
func (l *loop) makeRoom() []string {
	crowd := l.ledger.Crowd()
	for _, id := range crowd {
		l.ledger.Condemn(id)
		if p := l.parked[id]; p != nil {
			p.ending, p.killing = true, true
		}
	}
	return crowd
}

// parkedSays handles what a parked executor says.
func (l *loop) parkedSays(p *parked, ev execsock.Event, now time.Time) {
	switch f := ev.Frame; {
	case ev.Closed:
		if p.link == ev.Link {
			p.link = nil
			l.unpark(p, now)
		}
	case ev.Link.UID != p.uid:
		ev.Link.Close()
	case f.Hello != nil && f.Hello.ID == p.id:
		p.link = ev.Link
		if err := p.link.Send(apiexec.FromAgent{Prepare: &apiexec.Prepare{ListenHost: l.cfg.ListenHost, Provider: l.cfg.Provider}}); err != nil {
			l.log.Warn("parked executor does not listen", "executor", p.id, "error", err)
		}
	case f.Prepared != nil && p.link == ev.Link:
		p.prepared = true
		l.metrics.parked(l.parked)
	default:
		ev.Link.Close()
	}
}

// cpus are the machine's CPU numbers of what an executor holds; nil where nothing is bound.
func (l *loop) cpus(held ledger.Executor) []int {
	if l.cfg.CPUs == nil {
		return nil
	}
	var all []int
	for _, core := range held.Cores.Numbers() {
		all = append(all, l.cfg.CPUs[core]...)
	}
	return all
}
