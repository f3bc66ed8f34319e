package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/gleaner-hpc/gleaner/agent/evict"
	"github.com/gleaner-hpc/gleaner/agent/execsock"
	"github.com/gleaner-hpc/gleaner/agent/gatesock"
	"github.com/gleaner-hpc/gleaner/agent/jobs"
	"github.com/gleaner-hpc/gleaner/agent/ledger"
	"github.com/gleaner-hpc/gleaner/agent/session"
	"github.com/gleaner-hpc/gleaner/agent/state"
)

const (
	joinChanges = 10 * time.Millisecond  // changes within this time make one NodeState
	startWithin = 30 * time.Second       // from Start to Ready
	killWithin  = 5 * time.Second        // confirmation of a kill that no job waits for
	firstList   = 100 * time.Millisecond // from the loop's start to the launcher's first list, before claims are failed
	killAgain   = time.Second            // between attempts at a sandbox that would not end
	exitWithin  = 500 * time.Millisecond // from a confirmed kill to the launcher's last figures
	sampleEvery = 10 * time.Second       // figures of running executors
)

// loop owns what changes. Only its goroutine touches the fields below the channels.
type loop struct {
	cfg     Config
	log     *slog.Logger
	metrics *Metrics
	writer  *state.Writer

	claimedBy uint32    // the job that has claimed last
	claimedAt time.Time // may explain sandboxes that end soon after

	calls    <-chan *gatesock.Call
	links    <-chan execsock.Event
	sessions <-chan session.Event
	done     chan func(now time.Time) // results of actions
	actions  sync.WaitGroup
	ctx      context.Context // of run, for actions; they end before run returns

	watch     watch
	ledger    *ledger.Ledger
	book      evict.Book
	waiting   map[uint64]*gatesock.Call // by ticket
	announced evict.Announced
	freezing  bool                  // a freeze or thaw is under way
	frozenAt  time.Time             // the last one's end
	early     map[uint32]evict.Plan // what went for a job before it claimed
	left      departures
	marks     marks
	looking   bool // again, for jobs that have claimed nothing
	ticket    uint64
	executors map[string]*executor
	images    map[string]*rooted // by executor
	parked    map[string]*parked
	recent    []visit   // owners by their last start, latest first
	parkAt    time.Time // zero: nothing to park
	devices   devices
	strays    map[string]bool // sandboxes that nobody knows, being ended
	synced    bool            // the launcher's list has been compared since the start
	up        bool            // the launcher can be asked
	began     time.Time
	listing   bool

	stream    *session.Stream // nil while the broker is away
	publicKey []byte
	outbox    *session.Outbox
	boot      string

	admitting  bool      // as last said
	dirty      bool      // state changed since flushAt was set
	flushAt    time.Time // zero: nothing to flush
	nextSample time.Time
}

func newLoop(cfg Config, l *ledger.Ledger, w *state.Writer, calls <-chan *gatesock.Call, links <-chan execsock.Event, sessions <-chan session.Event) *loop {
	return &loop{
		cfg: cfg, log: cfg.Log, metrics: cfg.Metrics, writer: w, calls: calls, links: links, sessions: sessions,
		done: make(chan func(time.Time), 64), ledger: l, waiting: map[uint64]*gatesock.Call{}, early: map[uint32]evict.Plan{},
		executors: map[string]*executor{}, images: map[string]*rooted{}, strays: map[string]bool{}, parked: map[string]*parked{}, outbox: &session.Outbox{BootID: rand.Text()},
		devices: devices{refused: map[int]string{}, withheld: map[int]string{}, logged: map[int]string{}},
	}
}

// run turns until ctx ends.
func (l *loop) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	l.ctx = ctx
	defer l.actions.Wait()
	defer cancel()
	l.begin(time.Now())
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(l.untilNext(time.Now()))
		select {
		case <-ctx.Done():
			l.save()
			return nil
		case c := <-l.calls:
			l.call(c)
			c.Accept(l.quiet())
		case e := <-l.links:
			l.linked(e, time.Now())
		case e := <-l.sessions:
			l.session(e, time.Now())
		case e := <-l.cfg.Exited:
			l.exited(e, time.Now())
		case up := <-l.cfg.LauncherUp:
			l.launcherUp(up, time.Now())
		case f := <-l.done:
			f(time.Now())
		case <-timer.C:
		}
		l.tick(time.Now())
	}
}

// act runs f beside the loop and brings its result back as an event.
func (l *loop) act(f func(ctx context.Context) func(now time.Time)) {
	l.actions.Go(func() {
		result := f(l.ctx)
		select {
		case l.done <- result:
		case <-l.ctx.Done():
		}
	})
}

// untilNext is the time to the next deadline. An idle agent has none.
func (l *loop) untilNext(now time.Time) time.Duration {
	next := l.flushAt
	consider := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	consider(l.book.Next())
	consider(l.announced.Next())
	consider(l.ledger.NextChange(now))
	consider(l.nextSample)
	consider(l.watch.next)
	consider(l.parkAt)
	consider(l.devices.next)
	if !l.synced && len(l.waiting) > 0 && l.began.Add(firstList).After(now) {
		consider(l.began.Add(firstList))
	}
	for _, e := range l.executors {
		consider(e.deadline())
	}
	if next.IsZero() {
		return time.Hour
	}
	return max(0, next.Sub(now))
}

// tick does what has become due.
func (l *loop) tick(now time.Time) {
	if !l.synced && len(l.waiting) > 0 {
		l.settle(now)
	}
	l.close(l.book.Expire(now), now)
	if !l.announced.Next().IsZero() {
		l.announced.Expire(now)
		l.freeze(now)
	}
	for _, job := range l.ledger.Settle(now) {
		l.log.Warn("job has not claimed its cores; it is given the whole node", "job", job)
		l.evictFor(job, now)
	}
	for _, e := range l.executors {
		if due := e.deadline(); !due.IsZero() && !now.Before(due) {
			l.overdue(e, now)
		}
	}
	if !l.nextSample.IsZero() && !now.Before(l.nextSample) {
		l.sample(now)
	}
	if !l.watch.next.IsZero() && !now.Before(l.watch.next) {
		l.look(now)
	}
	if !l.parkAt.IsZero() && !now.Before(l.parkAt) {
		l.park(now)
	}
	if !l.devices.next.IsZero() && !now.Before(l.devices.next) {
		l.lookAtDevices(now)
	}
	l.checkAdmission(now)
	if !l.flushAt.IsZero() && !now.Before(l.flushAt) {
		l.flush(now)
	}
}

// changed makes the next flush send and save the state.
func (l *loop) changed(now time.Time) {
	l.dirty = true
	if l.flushAt.IsZero() {
		l.flushAt = now.Add(joinChanges)
	}
}

func (l *loop) flush(now time.Time) {
	l.flushAt = time.Time{}
	if !l.dirty {
		return
	}
	l.dirty = false
	l.sendState(now)
	l.metrics.node(l.ledger, now)
	l.metrics.parked(l.parked)
	l.save()
}

// begin compares what the predecessor knew with what runs on the node.
func (l *loop) begin(now time.Time) {
	l.began = now
	l.keepImages()
	l.ledger.Block("launcher", "launcher is not reachable")
	l.ledger.Block("sandbox", l.cfg.Objection)
	l.lookAtDevices(now)
	l.learnLocal(l.cfg.Jobs.Look(), now)
	l.metrics.node(l.ledger, now)
}

// learnLocal gives everything to jobs that run here and have never claimed anything.
func (l *loop) learnLocal(found jobs.Found, now time.Time) {
	claimed := l.ledger.Jobs()
	for job := range found.Jobs {
		if h, known := l.ledger.Job(job); known && (h.All || !h.Cores.Empty()) {
			continue
		}
		l.log.Warn("job runs here and has claimed nothing; it is given the whole node until its cores are known", "job", job)
		l.ledger.Claim(ledger.Hold{Job: job, All: true, Since: now, Origin: ledger.Scan})
		l.evictFor(job, now)
	}
	if found.Nameless > len(claimed) {
		l.ledger.Claim(ledger.Hold{Job: 0, All: true, Since: now, Origin: ledger.Scan})
		l.evictFor(0, now)
	}
	l.changed(now)
}

// launcherUp hears that the launcher can be asked, or not.
func (l *loop) launcherUp(up bool, now time.Time) {
	l.up = up
	if !up {
		l.ledger.Block("launcher", "launcher is not reachable")
		l.log.Warn("launcher is not reachable; nothing is admitted")
		l.changed(now)
		return
	}
	l.devices.refused = map[int]string{} // it may have been told of more
	l.lookAtDevices(now)
	l.compare()
	l.lookAtMarks(0)
}

// compare asks the launcher what runs and brings the ledger in line.
func (l *loop) compare() {
	if l.listing {
		return
	}
	l.listing = true
	asked := time.Now()
	l.act(func(ctx context.Context) func(time.Time) {
		ctx, cancel := context.WithTimeout(ctx, killWithin)
		defer cancel()
		sandboxes, err := l.cfg.Launcher.List(ctx)
		return func(now time.Time) {
			l.listing = false
			if err != nil {
				if !errors.Is(err, context.Canceled) {
					l.log.Warn("cannot list sandboxes", "error", err)
				}
				return
			}
			l.listed(sandboxes, asked, now)
		}
	})
}
