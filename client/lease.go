package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/client/dispatch"
	"github.com/gleaner-hpc/gleaner/fabric"
)

// Lease is a lease that its holder keeps alive. It is safe for concurrent use.
type Lease struct {
	id       uint64
	ttl      time.Duration
	buffer   uint64
	spin     time.Duration
	wanted   int
	leases   api.LeasesClient
	connect  Connector
	function *Function
	pool     *pool
	reporter *reporter
	observer Observer // nil unless others use the executors
	cancel   context.CancelFunc
	running  sync.WaitGroup
	ended    chan struct{} // closed when the broker says that the lease has ended

	mu        sync.Mutex
	status    *api.Lease // the latest that the broker said
	known     map[string]*acquaintance
	over      bool               // ended is closed
	listening bool               // the broker's events arrive
	rewatch   context.CancelFunc // breaks the stream of events, so that a new one brings fresh tokens
}

// acquaintance is an executor that the broker says lives.
type acquaintance struct {
	executor *api.Executor // as last announced, with the latest token
	cancel   context.CancelCauseFunc
}

func newLease(leases api.LeasesClient, connect Connector, f *Function, o TaskOptions, granted *api.Lease, observer Observer) *Lease {
	request := granted.GetRequest()
	l := &Lease{
		id: granted.GetId(), ttl: request.GetTtl().AsDuration(), buffer: request.GetBufferBytes(), spin: o.Spin, wanted: int(request.GetExecutors()),
		leases: leases, connect: connect, function: f, reporter: newReporter(leases, granted.GetId()), observer: observer,
		ended: make(chan struct{}), status: granted, known: map[string]*acquaintance{},
	}
	if l.ttl <= 0 {
		l.ttl = 30 * time.Second
	}
	if l.buffer == 0 {
		l.buffer = 1 << 20
	}
	l.pool = newPool(l.buffer, o, l.reporter.task)
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	l.running.Go(func() { l.renew(ctx) })
	l.running.Go(func() { l.watch(ctx) })
	l.running.Go(func() { l.reporter.Run(ctx) })
	return l
}

// ID is the lease's number.
func (l *Lease) ID() uint64 { return l.id }

// Buffer is the size in bytes of the largest input or result.
func (l *Lease) Buffer() uint64 { return l.buffer }

// Status returns the lease as the broker last described it.
func (l *Lease) Status() *api.Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// Counts sum up what happened so far.
func (l *Lease) Counts() Counts { return l.pool.snapshot() }

// Ended is closed when the lease has ended without being released here.
func (l *Lease) Ended() <-chan struct{} { return l.ended }

// Invoke runs the function on input and returns its result. It waits for an executor if there is none.
func (l *Lease) Invoke(ctx context.Context, input []byte) ([]byte, error) {
	return l.Start(ctx, Bytes("", input)).Result()
}

// Start begins a task and returns at once. The end of ctx ends the task.
func (l *Lease) Start(ctx context.Context, t Task) *Call { return l.pool.submit(ctx, t, nil) }

// Map runs tasks, taking them from the sequence as executors become free, and calls each with the outcome of every task that was
// taken, in the order in which they end and from one goroutine at a time. It takes no more tasks once ctx or the lease has ended, and returns why.
func (l *Lease) Map(ctx context.Context, tasks iter.Seq[Task], each func(Result)) error {
	window := max(64, 4*l.wanted)
	outcomes := make(chan *Result, window)
	flying := 0
	collect := func() { each(*<-outcomes); flying-- }
	for t := range tasks {
		for flying == window || (flying > 0 && len(outcomes) > 0) {
			collect()
		}
		if ctx.Err() != nil || l.pool.lost() != nil {
			break
		}
		l.pool.submit(ctx, t, func(r *Result) { outcomes <- r })
		flying++
	}
	for flying > 0 {
		collect()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return l.pool.lost()
}

// Refresh has the broker announce every executor again, with a fresh token.
func (l *Lease) Refresh() {
	l.mu.Lock()
	rewatch := l.rewatch
	l.mu.Unlock()
	if rewatch != nil {
		rewatch()
	}
}

// Add counts tasks that others ran on the lease's executors, for the report.
func (l *Lease) Add(ok, failed, retried uint64) { l.reporter.add(ok, failed, retried) }

// releaseAgain is the time between two attempts to release a lease, and releasePatience how long a broker that is away is asked again.
const (
	releaseAgain    = 200 * time.Millisecond
	releasePatience = 2 * time.Second
)

// Release ends the lease and waits until nothing of it runs here any more. Tasks that have not ended fail with an *EndedError. A broker
// that is away is asked again for two seconds; then the error says when the lease ends by itself.
func (l *Lease) Release(ctx context.Context) error {
	l.pool.fail(&EndedError{Lease: l.id, Reason: api.EndReason_RELEASED})
	l.cancel()
	l.running.Wait()
	l.pool.attempts.Wait()
	report, err := l.giveBack(ctx)
	switch {
	case errors.Is(err, ErrUnreachable) && !l.isOver(): // a broker that was down lets its leases live for a whole ttl
		return fmt.Errorf("%w; it ends by itself, at the latest %s after the broker is there again", err, l.ttl)
	case err != nil:
		return err
	case errors.Is(report, ErrEnded):
		return nil
	}
	return report
}

// giveBack reports the tasks and releases the lease, with patience for a broker that is just being restarted.
func (l *Lease) giveBack(ctx context.Context) (report, err error) {
	for until := time.Now().Add(releasePatience); ; {
		report = l.reporter.flush(ctx)
		_, err = l.leases.Release(ctx, &api.ReleaseRequest{LeaseId: l.id})
		err = Describe(fmt.Sprintf("release lease %d", l.id), err)
		if !errors.Is(err, ErrUnreachable) || l.isOver() || time.Now().After(until) || sleep(ctx, releaseAgain) {
			return report, err
		}
	}
}

// isOver says whether the broker is known to have ended the lease.
func (l *Lease) isOver() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over
}

// renew keeps the lease alive. A broker that is away is asked again: executors keep working meanwhile.
func (l *Lease) renew(ctx context.Context) {
	timer := time.NewTimer(l.ttl / 3)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		call, cancel := context.WithTimeout(ctx, max(l.ttl/6, time.Second))
		lease, err := l.leases.Renew(call, &api.RenewRequest{LeaseId: l.id})
		cancel()
		next := l.ttl / 3
		switch err = Describe("renew lease", err); {
		case err == nil:
			l.update(lease)
		case errors.Is(err, ErrEnded) || errors.Is(err, ErrNotFound):
			l.finish(&EndedError{Lease: l.id, Detail: err.Error()})
		default:
			next = min(l.ttl/10, time.Second)
		}
		timer.Reset(next)
	}
}

// watch follows the broker's events, and again after the stream broke.
func (l *Lease) watch(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; failures++ {
		began := time.Now()
		err := Describe("watch lease", l.follow(ctx))
		l.mu.Lock()
		l.listening = false
		l.mu.Unlock()
		if errors.Is(err, ErrNotFound) || errors.Is(err, ErrEnded) {
			l.finish(&EndedError{Lease: l.id, Detail: err.Error()})
			return
		}
		select {
		case <-l.ended:
			return
		default:
		}
		if time.Since(began) > steady {
			failures = 0
		}
		sleep(ctx, dispatch.Backoff(failures))
	}
}

func (l *Lease) follow(ctx context.Context) error {
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	l.mu.Lock()
	l.rewatch = cancel
	l.mu.Unlock()
	stream, err := l.leases.Watch(watching, &api.WatchRequest{LeaseId: l.id})
	if err != nil {
		return err
	}
	for {
		event, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		l.handle(ctx, event)
	}
}

func (l *Lease) handle(ctx context.Context, e *api.LeaseEvent) {
	switch e.GetKind() {
	case api.LeaseEvent_LEASE:
		l.update(e.GetLease())
		if e.GetSnapshot() {
			l.compare(e.GetLease().GetExecutors())
		}
	case api.LeaseEvent_EXECUTOR_READY:
		if l.observer == nil {
			l.arrive(ctx, e.GetExecutor())
			return
		}
		l.mu.Lock()
		l.known[e.GetExecutor().GetId()] = &acquaintance{e.GetExecutor(), func(error) {}}
		l.mu.Unlock()
		l.observer.Ready(e.GetExecutor())
	case api.LeaseEvent_EXECUTOR_GONE:
		l.depart(e.GetExecutor().GetId(), &departure{e.GetReason(), e.GetDetail()})
	}
}

// compare takes leave of executors that went while nobody listened: a snapshot of the lease does not name them.
func (l *Lease) compare(living []*api.Executor) {
	l.mu.Lock()
	l.listening = true
	var missed []string
	for id := range l.known {
		if !slices.ContainsFunc(living, func(x *api.Executor) bool { return x.GetId() == id }) {
			missed = append(missed, id)
		}
	}
	l.mu.Unlock()
	for _, id := range missed {
		l.depart(id, &departure{detail: "it ended while the broker could not be heard"})
	}
}

// depart takes leave of an executor.
func (l *Lease) depart(id string, d *departure) {
	l.mu.Lock()
	known := l.known[id]
	delete(l.known, id)
	l.mu.Unlock()
	l.pool.gone(id, d)
	if l.observer != nil {
		l.observer.Gone(id, d.reason, d.detail)
	}
	if known != nil {
		known.cancel(d)
	}
}

func (l *Lease) update(lease *api.Lease) {
	l.mu.Lock()
	l.status = lease
	l.mu.Unlock()
	if lease.GetState() == api.LeaseState_ENDED {
		l.finish(&EndedError{Lease: l.id, Reason: lease.GetEndReason(), Detail: lease.GetDetail()})
	}
}

// finish notes that the lease has ended: tasks that wait fail, executors are left.
func (l *Lease) finish(why *EndedError) {
	l.mu.Lock()
	if l.over {
		l.mu.Unlock()
		return
	}
	l.over = true
	close(l.ended)
	known := l.known
	l.known = map[string]*acquaintance{}
	l.mu.Unlock()
	l.pool.fail(why)
	for _, k := range known {
		k.cancel(&departure{why.Reason, why.Detail})
	}
}

// arrive connects to a new executor; one that is known stays as it is, with the token brought up to date.
func (l *Lease) arrive(ctx context.Context, e *api.Executor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	if known := l.known[e.GetId()]; known != nil {
		known.executor = e
		return
	}
	ctx, cancel := context.WithCancelCause(ctx)
	known := &acquaintance{e, cancel}
	l.known[e.GetId()] = known
	l.running.Go(func() {
		defer cancel(nil)
		l.serve(ctx, known)
	})
}

// maxLoadKills bounds how often an executor that nobody evicts may be killed while it loads the library.
const maxLoadKills = 3

// steady is how long a connection lasts that counts as one that worked.
const steady = 5 * time.Second

// serve holds an executor from its arrival to its end, connecting again as long as the broker says that it lives.
func (l *Lease) serve(ctx context.Context, known *acquaintance) {
	kills := 0
	for failures := 0; ctx.Err() == nil; failures++ {
		l.mu.Lock()
		e, rewatch, listening := known.executor, l.rewatch, l.listening
		l.mu.Unlock()
		conn, err := l.connect(ctx, e, l.function, Path{l.buffer, l.spin})
		if err == nil {
			began := time.Now()
			err = l.hold(ctx, e, conn)
			if time.Since(began) > steady {
				failures = 0
			}
		}
		if ctx.Err() != nil {
			return
		}
		if function, ok := errors.AsType[*FunctionError](err); ok {
			if kills++; function.Signal != int(syscall.SIGKILL) || kills == maxLoadKills {
				l.pool.fail(err) // the library cannot be used: no executor will do better
				return
			}
		}
		if stale(err) && rewatch != nil {
			rewatch()
		}
		const patience = 5 // attempts before an executor counts as useless, once, if the broker says that it lives
		if failures == patience-1 && listening {
			l.pool.trouble(fmt.Errorf("connect to executor %s on %s: %w", e.GetId(), e.GetNode(), err))
		}
		sleep(ctx, dispatch.Backoff(failures))
	}
}

// stale says that an executor refused a token that a fresh one may replace.
func stale(err error) bool {
	var refused *RefusedError
	return errors.As(err, &refused) && (refused.Code == fabric.RefusedExpired || refused.Code == fabric.RefusedEpoch)
}

// hold lends a connected executor to the pool until it is gone.
func (l *Lease) hold(ctx context.Context, e *api.Executor, conn Conn) error {
	defer conn.Close()
	m := &member{id: e.GetId(), node: e.GetNode(), conn: conn, ctx: ctx, suspect: make(chan struct{}, 1)}
	l.pool.join(m)
	defer l.pool.leave(m)
	select {
	case <-m.suspect:
		return errors.New("data path broke")
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-conn.Gone():
		return conn.Err()
	}
}

// sleep waits, and reports whether ctx ended meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return true
	case <-timer.C:
		return false
	}
}
