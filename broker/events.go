package broker

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/api/token"
	"github.com/gleaner-hpc/gleaner/broker/lease"
	"github.com/gleaner-hpc/gleaner/broker/placement"
	"github.com/gleaner-hpc/gleaner/broker/store"
)

// maxWatchers bounds the watchers of one lease.
const maxWatchers = 64

// watcher is one Watch. It is dropped when it does not keep up; the loop never waits for it.
type watcher struct {
	events chan *api.LeaseEvent
	after  uint64 // events that its snapshot holds: the first so many of the broker are not told again
	slow   bool   // set before events is closed
}

// watch starts with the lease as it is now.
func (s *state) watch(now time.Time, l *lease.Lease) (*watcher, []*api.LeaseEvent) {
	s.dirty = s.collect(now) || s.dirty
	w := &watcher{events: make(chan *api.LeaseEvent, 256+4*l.Request.Executors), after: s.events + uint64(len(s.pending.Events))}
	if s.watchers[l.ID] == nil {
		s.watchers[l.ID] = map[*watcher]bool{}
	}
	s.watchers[l.ID][w] = true
	first := &api.LeaseEvent{Kind: api.LeaseEvent_LEASE, Time: timestamppb.New(now), Lease: wireLease(l), Snapshot: true}
	snapshot := []*api.LeaseEvent{first}
	for _, x := range readyExecutors(l) {
		first.Lease.Executors = append(first.Lease.Executors, &api.Executor{Id: x.ID, Node: x.Node})
		snapshot = append(snapshot, &api.LeaseEvent{Kind: api.LeaseEvent_EXECUTOR_READY, Time: timestamppb.New(now), Executor: wireExecutor(l, x)})
	}
	return w, snapshot
}

func (s *state) unwatch(id uint64, w *watcher) {
	delete(s.watchers[id], w)
	if len(s.watchers[id]) == 0 {
		delete(s.watchers, id)
	}
}

// tell passes an event to the lease's watchers.
func (s *state) tell(e *lease.Event) {
	s.events++
	m := &api.LeaseEvent{Time: timestamppb.New(e.Time), Reason: e.Reason, Detail: e.Detail}
	switch e.Kind {
	case lease.Changed:
		if !e.Ending() && !e.Lease.Ended.IsZero() {
			return // it ended within the same batch, and the last event says so
		}
		m.Kind, m.Lease = api.LeaseEvent_LEASE, wireLease(e.Lease)
	case lease.Joined:
		m.Kind, m.Executor = api.LeaseEvent_EXECUTOR_READY, wireExecutor(e.Lease, &e.Executor)
	case lease.Left:
		if !e.WasReady {
			return // nobody was told of it
		}
		m.Kind, m.Executor = api.LeaseEvent_EXECUTOR_GONE, wireExecutor(e.Lease, &e.Executor)
	}
	for w := range s.watchers[e.Lease.ID] {
		if s.events <= w.after {
			continue
		}
		select {
		case w.events <- m:
		default:
			w.slow = true
			close(w.events)
			s.unwatch(e.Lease.ID, w)
		}
	}
	if e.Ending() {
		for w := range s.watchers[e.Lease.ID] {
			close(w.events)
		}
		delete(s.watchers, e.Lease.ID)
		delete(s.told, e.Lease.ID)
	}
}

// observeEvent counts, logs, and remembers a start that went wrong, which explains a wait better than anything.
func (s *state) observeEvent(e *lease.Event) {
	switch w := s.told[e.Lease.ID]; {
	case e.Kind == lease.Left && e.Reason == api.EndReason_EXECUTOR_FAILED && e.Lease.Ended.IsZero():
		w.failure = fmt.Sprintf("; the last executor failed on %s: %s", e.Executor.Node, e.Detail)
		s.told[e.Lease.ID] = w
	case e.Kind == lease.Joined && w.failure != "":
		w.failure = ""
		s.told[e.Lease.ID] = w
	case e.Kind == lease.Left && e.Reason == api.EndReason_EVICTED:
		s.metrics.evictions.WithLabelValues("job").Inc()
	case e.Kind == lease.Left && e.Reason == api.EndReason_NODE_LOST:
		s.metrics.evictions.WithLabelValues("node_lost").Inc()
	case e.Ending():
		s.cfg.Log.Info("lease ended", "lease", e.Lease.ID, "uid", e.Lease.Request.UID, "reason", reasonName(e.Reason), "detail", e.Detail)
	}
}

// entry is an event as a line of its lease's history. Reasons for waiting are written down once a minute only.
func (s *state) entry(now time.Time, e *lease.Event) (store.Entry, bool) {
	entry := store.Entry{Time: e.Time, Why: e.Detail}
	switch e.Kind {
	case lease.Joined:
		entry.What = fmt.Sprintf("executor %s is ready on %s", e.Executor.ID, e.Executor.Node)
	case lease.Left:
		entry.What = fmt.Sprintf("executor %s on %s ended: %s", e.Executor.ID, e.Executor.Node, reasonWords(e.Reason))
		if !e.WasReady {
			entry.What = fmt.Sprintf("executor %s did not start on %s: %s", e.Executor.ID, e.Executor.Node, reasonWords(e.Reason))
		}
	case lease.Changed:
		l := e.Lease
		w := s.told[l.ID]
		switch {
		case e.Ending():
			entry.What = "lease ended: " + reasonWords(e.Reason)
		case e.Time.Equal(l.Created) && !w.admitted:
			w.admitted = true
			s.told[l.ID] = w // and why it waits may follow at once
			entry.What = fmt.Sprintf("lease admitted: %s of %s for %s", plural(l.Request.Executors, "executor"), placement.Describe(l.Request.Each), l.Request.Function.Symbol)
			entry.Why = ""
			return entry, true
		case e.Detail == "" || e.Detail == lease.NotYetKnown || now.Sub(w.written) < historyEvery:
			return entry, false
		default:
			entry.What = fmt.Sprintf("waits for %d of %d executors", l.Missing(), l.Request.Executors)
		}
		w.written = now
		s.told[l.ID] = w
	}
	return entry, true
}

// wireLease is a lease without its executors.
func wireLease(l *lease.Lease) *api.Lease {
	r := &l.Request
	m := &api.Lease{
		Id: l.ID, State: l.State(), EndReason: l.Reason, Detail: l.Detail, Uid: r.UID, JobId: r.Job, Account: r.Account,
		Created: timestamppb.New(l.Created), Expires: timestamppb.New(l.Expires), Epoch: l.Epoch, Evictions: l.Evictions, Spin: durationpb.New(l.Spin), ImageDigest: l.ImageDigest,
		Request: &api.AcquireRequest{
			Executors: uint32(r.Executors), Cores: uint32(r.Each.Cores), MemoryBytes: r.Each.MemoryBytes, Gpus: uint32(r.Each.GPUs),
			Function: functionOf(r), Ttl: durationpb.New(r.TTL), JobId: r.Job, Account: r.Account, BufferBytes: r.BufferBytes,
			Binds: wireBinds(r), Network: r.Network, Image: r.Image,
		},
	}
	if !l.Ended.IsZero() {
		m.Ended = timestamppb.New(l.Ended)
	}
	return m
}

func functionOf(r *lease.Request) *api.Function {
	f := &r.Function
	return &api.Function{Symbol: f.Symbol, Digest: f.Digest, SizeBytes: f.SizeBytes, Name: f.Name}
}

// wireExecutor is an executor without a token.
func wireExecutor(l *lease.Lease, x *lease.Executor) *api.Executor {
	return &api.Executor{
		Id: x.ID, Node: x.Node, Address: x.Address, Local: x.Local, Epoch: x.Epoch,
		Cores: uint32(l.Request.Each.Cores), MemoryBytes: l.Request.Each.MemoryBytes,
	}
}

// sign returns the executor with a token for its lease's holder. It runs outside the loop.
func (b *Broker) sign(x *api.Executor, id uint64, uid uint32, digest []byte) (*api.Executor, error) {
	claims := token.Claims{Lease: id, Epoch: x.Epoch, UID: uid, Expiry: b.cfg.Now().Add(TokenLife), Executor: x.Id}
	copy(claims.Digest[:], digest)
	signed, err := token.Sign(b.cfg.Store.Key(), claims)
	if err != nil {
		return nil, err
	}
	return &api.Executor{
		Id: x.Id, Node: x.Node, Address: x.Address, Local: x.Local, Epoch: x.Epoch, Cores: x.Cores, MemoryBytes: x.MemoryBytes, Token: signed,
	}, nil
}
