package broker

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/broker/lease"
	"github.com/gleaner-hpc/gleaner/broker/store"
	"github.com/gleaner-hpc/gleaner/identity"
	"github.com/gleaner-hpc/gleaner/report"
)

const (
	// maxListed bounds the ended leases of one answer, maxReported the task records of one call.
	maxListed   = 1000
	maxReported = 10_000
	// maxPending bounds the task records of one lease that wait to be written, far above what is kept of them.
	maxPending = 2 * maxReported
	// maxAttempts and maxText bound one task's record.
	maxAttempts = 64
	maxText     = 1024
)

// Acquire admits a lease.
func (b *Broker) Acquire(ctx context.Context, q *api.AcquireRequest) (*api.Lease, error) {
	caller, err := b.caller(ctx)
	if err != nil {
		return nil, err
	}
	r, denied := b.cfg.request(caller, q)
	r.User = b.cfg.UserName(caller.UID)
	if b.rules.Load().WantsGroups() {
		r.Groups = b.cfg.Groups(caller.UID)
	}
	var answer *api.Lease
	if denied == nil {
		denied = b.awaitJob(ctx, r.Job)
	}
	if denied == nil {
		err = b.attempt(ctx, &step{
			reply: make(chan error, 1),
			do: func(s *state, now time.Time) error {
				var l *lease.Lease
				if l, denied = s.admit(now, r); denied != nil {
					return denied.err
				}
				answer = wireLease(l)
				return nil
			},
			// A lease of which its holder has not heard would hold executors for a whole ttl.
			undo: func(s *state, now time.Time) {
				s.table.End(now, answer.Id, api.EndReason_RELEASED, "could not be stored")
			},
		})
	}
	if denied != nil {
		b.refused(ctx, &r, denied)
		return nil, denied.err
	}
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		b.post(func(s *state, now time.Time) error {
			s.table.End(now, answer.Id, api.EndReason_RELEASED, "its holder went away before it was told of it")
			return nil
		})
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	b.cfg.Log.Info("lease admitted", "lease", answer.Id, "uid", caller.UID, "executors", r.Executors, "job", r.Job)
	return answer, nil
}

// refused counts a denial, and writes it down before its caller hears of it.
func (b *Broker) refused(ctx context.Context, r *lease.Request, d *denial) {
	b.metrics.denied.WithLabelValues(d.rule).Inc()
	if d.rule == "invalid" {
		return
	}
	_ = b.call(ctx, func(s *state, now time.Time) error {
		s.remember(now, r.UID, d)
		s.auditedDenial(now, r, d, status.Convert(d.err).Message())
		return nil
	})
}

// Renew moves the expiry.
func (b *Broker) Renew(ctx context.Context, q *api.RenewRequest) (*api.Lease, error) {
	var answer *api.Lease
	err := b.withLease(ctx, q.LeaseId, func(s *state, now time.Time, l *lease.Lease) error {
		if err := s.living(l); err != nil {
			return err
		}
		if err := s.table.Renew(now, l.ID); err != nil {
			return err
		}
		answer = wireLease(l)
		return nil
	})
	return answer, err
}

// Release ends a lease.
func (b *Broker) Release(ctx context.Context, q *api.ReleaseRequest) (*api.Lease, error) {
	var answer *api.Lease
	err := b.withLease(ctx, q.LeaseId, func(s *state, now time.Time, l *lease.Lease) error {
		caller, _ := identity.From(ctx)
		reason, detail := api.EndReason_RELEASED, "released by its holder"
		if caller.UID != l.Request.UID {
			reason, detail = api.EndReason_STOPPED, "stopped by an operator"
		}
		s.table.End(now, l.ID, reason, detail)
		answer = wireLease(l)
		return nil
	})
	return answer, err
}

// Watch sends a lease and its changes until it ends.
func (b *Broker) Watch(q *api.WatchRequest, stream api.Leases_WatchServer) error {
	ctx := stream.Context()
	var w *watcher
	var snapshot []*api.LeaseEvent
	var request lease.Request
	err := b.withLease(ctx, q.LeaseId, func(s *state, now time.Time, l *lease.Lease) error {
		if err := s.living(l); err != nil {
			return err
		}
		if len(s.watchers[l.ID]) >= maxWatchers {
			return status.Errorf(codes.ResourceExhausted, "lease %d has %d watchers already", l.ID, maxWatchers)
		}
		request = l.Request
		w, snapshot = s.watch(now, l)
		return nil
	})
	if w != nil {
		defer b.post(func(s *state, _ time.Time) error {
			s.unwatch(q.LeaseId, w)
			return nil
		})
	}
	if err != nil {
		return err
	}
	caller, _ := identity.From(ctx)
	send := func(e *api.LeaseEvent) error {
		if e.Kind == api.LeaseEvent_EXECUTOR_READY && caller.UID == request.UID {
			signed, err := b.sign(e.Executor, q.LeaseId, caller.UID, request.Function.Digest)
			if err != nil {
				return status.Error(codes.Internal, err.Error())
			}
			e = &api.LeaseEvent{Kind: e.Kind, Time: e.Time, Executor: signed}
		}
		return stream.Send(e)
	}
	for _, e := range snapshot {
		if err := send(e); err != nil {
			return err
		}
	}
	return b.follow(ctx, w, send)
}

func (b *Broker) follow(ctx context.Context, w *watcher, send func(*api.LeaseEvent) error) error {
	for {
		select {
		case e, open := <-w.events:
			if !open && w.slow {
				return status.Error(codes.ResourceExhausted, "events came faster than they were read; call Watch again")
			}
			if !open {
				return nil
			}
			if err := send(e); err != nil {
				return err
			}
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-b.stopped:
			return errStopping
		}
	}
}

// List returns leases, the living ones first, each by id.
func (b *Broker) List(ctx context.Context, q *api.ListRequest) (*api.ListResponse, error) {
	caller, err := b.caller(ctx)
	if err != nil {
		return nil, err
	}
	answer := &api.ListResponse{}
	err = b.call(ctx, func(s *state, _ time.Time) error {
		for _, l := range s.table.Leases() {
			if !b.mayMeddle(caller, l) {
				continue
			}
			m := wireLease(l)
			m.Spin = durationpb.New(s.spinOf(l))
			for _, x := range readyExecutors(l) {
				m.Executors = append(m.Executors, wireExecutor(l, x))
			}
			answer.Leases = append(answer.Leases, m)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, l := range answer.Leases {
		if l.Uid != caller.UID {
			continue
		}
		for i, x := range l.Executors {
			if l.Executors[i], err = b.sign(x, l.Id, l.Uid, l.Request.Function.Digest); err != nil {
				return nil, status.Error(codes.Internal, err.Error())
			}
		}
	}
	if !q.IncludeEnded {
		return answer, nil
	}
	ended, err := b.cfg.Store.ListEnded(func(l *lease.Lease) bool { return b.mayMeddle(caller, l) }, maxListed)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	for _, l := range slices.Backward(ended) {
		answer.Leases = append(answer.Leases, wireLease(l))
	}
	return answer, nil
}

// ReportTasks keeps what a holder says of its tasks.
func (b *Broker) ReportTasks(ctx context.Context, q *api.ReportTasksRequest) (*api.ReportTasksResponse, error) {
	if len(q.Tasks) > maxReported {
		return nil, status.Errorf(codes.InvalidArgument, "tasks: %d records, at most %d in one call", len(q.Tasks), maxReported)
	}
	tasks := make([]store.Task, 0, len(q.Tasks))
	for _, t := range q.Tasks {
		trim(t)
		record, err := proto.Marshal(t)
		if err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "tasks: %v", err)
		}
		tasks = append(tasks, store.Task{Index: t.Index, Record: record})
	}
	err := b.withLease(ctx, q.LeaseId, func(s *state, now time.Time, l *lease.Lease) error {
		s.tasks(l.ID, store.Totals{OK: q.Ok, Failed: q.Failed, Retried: q.Retried}, tasks)
		s.rec.add(record{what: report.Tasks{Lease: l.ID, Time: now, OK: q.Ok, Failed: q.Failed, Retried: q.Retried}})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.ReportTasksResponse{}, nil
}

func (s *state) tasks(id uint64, add store.Totals, tasks []store.Task) {
	c := &s.change
	if c.Totals == nil {
		c.Totals, c.Tasks = map[uint64]store.Totals{}, map[uint64][]store.Task{}
	}
	was := c.Totals[id]
	c.Totals[id] = store.Totals{OK: was.OK + add.OK, Failed: was.Failed + add.Failed, Retried: was.Retried + add.Retried}
	// While nothing can be written holders report the same again and again.
	room := max(0, maxPending-len(c.Tasks[id]))
	c.Tasks[id] = append(c.Tasks[id], tasks[:min(room, len(tasks))]...)
}

// trim bounds a task's record: the latest attempts, the beginning of each text.
func trim(t *api.TaskRecord) {
	t.Name = cut(t.Name)
	t.Attempts = t.Attempts[max(0, len(t.Attempts)-maxAttempts):]
	for _, a := range t.Attempts {
		a.Error = cut(a.Error)
	}
}

// cut bounds a text that a client says, and makes it one line that is safe on anybody's terminal.
func cut(text string) string {
	text = strings.ToValidUTF8(text[:min(len(text), maxText)], "")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}

// caller is who makes the call.
func (b *Broker) caller(ctx context.Context) (identity.Caller, error) {
	caller, ok := identity.From(ctx)
	if !ok {
		return caller, status.Error(codes.Unauthenticated, "the call carries no credential")
	}
	return caller, nil
}

// mayMeddle says whether a caller may see and end a lease: its holder, root, and the operators.
func (b *Broker) mayMeddle(c identity.Caller, l *lease.Lease) bool {
	return c.UID == l.Request.UID || c.UID == 0 || slices.Contains(b.cfg.Operators, c.UID)
}

// withLease does a step with a lease, living or ended, that the caller may see. Another user's does not exist for him.
func (b *Broker) withLease(ctx context.Context, id uint64, do func(s *state, now time.Time, l *lease.Lease) error) error {
	caller, err := b.caller(ctx)
	if err != nil {
		return err
	}
	return b.call(ctx, func(s *state, now time.Time) error {
		l := s.lookup(id)
		if l == nil || !b.mayMeddle(caller, l) {
			return status.Errorf(codes.NotFound, "no lease %d", id)
		}
		return do(s, now, l)
	})
}

// living is the error for a lease that has ended.
func (s *state) living(l *lease.Lease) error {
	if l.Ended.IsZero() {
		return nil
	}
	return status.Errorf(codes.FailedPrecondition, "lease %d has ended: %s (%s)", l.ID, reasonName(l.Reason), l.Detail)
}

// readyExecutors returns those that can be connected to, by age.
func readyExecutors(l *lease.Lease) []*lease.Executor {
	ready := slices.Collect(maps.Values(l.Executors))
	ready = slices.DeleteFunc(ready, func(x *lease.Executor) bool { return !x.Ready })
	slices.SortFunc(ready, func(a, b *lease.Executor) int { return cmp.Compare(a.Epoch, b.Epoch) })
	return ready
}
