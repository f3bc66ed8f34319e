package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/client/dispatch"
)

// pool runs tasks on the executors of one lease: it carries out what a dispatch.Machine decides.
type pool struct {
	options  TaskOptions
	buffer   uint64    // bytes of the largest input
	buffers  sync.Pool // for results
	attempts sync.WaitGroup
	slack    time.Duration                                   // beyond a task's timeout, before an executor that says nothing counts as lost
	tell     func(r *Result, outcome api.TaskRecord_Outcome) // each retry and each end, for the report; may not block

	mu        sync.Mutex
	machine   *dispatch.Machine
	calls     map[uint64]*Call
	executors map[string]*member
	next      uint64
	failure   error // once set, no task can run any more
	barren    int   // executors lost in a row, not to evictions, with no task done in between
	counts    Counts
}

// Counts sum up what happened in a lease.
type Counts struct {
	Executors int    // connected now
	Evicted   uint64 // executors lost to Slurm's jobs
	Lost      uint64 // executors lost otherwise
	Retried   uint64 // runs that were lost or failed, and are made again
	OK        uint64 // tasks with a result
	Failed    uint64 // tasks with a final error of their own: not those given up, nor those that the lease's end cut off
	Waiting   int    // tasks that wait for an executor
	Trouble   error  // why the latest connection to an executor failed; nil once one succeeded
}

// member is an executor with an open data path. ctx ends, with a *departure as its cause, when the broker says that it is gone.
type member struct {
	id, node string
	conn     Conn
	ctx      context.Context
	suspect  chan struct{} // buffered by one: an attempt found the path broken
}

// grace is how long an attempt that lost its executor waits for the broker to say why, before a failure is held against the task.
const grace = 300 * time.Millisecond

func newPool(buffer uint64, o TaskOptions, tell func(*Result, api.TaskRecord_Outcome)) *pool {
	room := buffer
	if o.Room > 0 {
		room = min(room, o.Room)
	}
	return &pool{
		options: o, tell: tell, slack: silence, buffer: buffer,
		buffers: sync.Pool{New: func() any { b := make([]byte, room); return &b }},
		machine: dispatch.New(dispatch.Config{Depth: o.Depth, ExecutorFailures: o.ExecutorFailures, Retries: o.Retries}),
		calls:   map[uint64]*Call{}, executors: map[string]*member{},
	}
}

// submit starts a task. then, if given, is called once with its outcome, outside of any lock.
func (p *pool) submit(ctx context.Context, t Task, then func(*Result)) *Call {
	c := &Call{result: Result{Name: t.Name}, load: t.Load, place: t.InPlace, ctx: ctx, done: make(chan struct{}), then: then}
	p.mu.Lock()
	c.result.Index = p.next
	p.next++
	err := p.failure
	if err == nil {
		p.calls[c.result.Index] = c
		p.machine.Submit(c.result.Index)
		if ctx.Done() != nil {
			c.stop = context.AfterFunc(ctx, func() { p.abandon(c) })
		}
		p.dispatch()
	}
	p.mu.Unlock()
	if err != nil {
		p.end(c, nil, err)
	}
	return c
}

// abandon ends a task that waits and whose caller has gone; one that runs notices for itself.
func (p *pool) abandon(c *Call) {
	p.mu.Lock()
	dropped := p.machine.Drop(c.result.Index)
	if dropped {
		delete(p.calls, c.result.Index)
	}
	p.mu.Unlock()
	if dropped {
		p.end(c, nil, context.Cause(c.ctx))
	}
}

// end gives a task its outcome. One that its caller gave up, or whose lease ended, has neither succeeded nor failed.
func (p *pool) end(c *Call, output []byte, err error) {
	c.result.Err = err
	outcome := api.TaskRecord_OK
	p.mu.Lock()
	switch {
	case err == nil:
		p.counts.OK++
	case c.ctx.Err() != nil || errors.Is(err, ErrEnded):
		outcome = api.TaskRecord_OUTCOME_UNSPECIFIED
	default:
		p.counts.Failed++
		outcome = api.TaskRecord_FAILED
	}
	p.mu.Unlock()
	if outcome != api.TaskRecord_OUTCOME_UNSPECIFIED {
		p.tell(&c.result, outcome)
	}
	c.end(output, err)
}

// dispatch starts what the machine assigns. The caller holds mu.
func (p *pool) dispatch() {
	for _, a := range p.machine.Assign() {
		c, m := p.calls[a.Task], p.executors[a.Executor]
		p.attempts.Go(func() { p.attempt(c, m) })
	}
}

// attempt runs a task once on an executor.
func (p *pool) attempt(c *Call, m *member) {
	ctx, cancel := context.WithCancelCause(c.ctx)
	defer cancel(nil)
	stop := context.AfterFunc(m.ctx, func() { cancel(context.Cause(m.ctx)) })
	defer stop()
	defer p.watchSilence(cancel)()

	attempt := Attempt{Executor: m.id, Node: m.node, Start: time.Now()}
	output, err := p.run(ctx, c, m)
	attempt.End, attempt.Err = time.Now(), err

	var input *InputError
	outcome := classify(err, context.Cause(m.ctx))
	if (outcome == dispatch.ExecutorFailed || outcome == dispatch.Killed) && !errors.As(err, &input) && sleep(ctx, grace) {
		outcome = classify(err, context.Cause(m.ctx))
	}
	switch {
	case err != nil && c.ctx.Err() != nil:
		outcome, err = dispatch.Abandoned, context.Cause(c.ctx)
	case err != nil && errors.Is(context.Cause(ctx), ErrSilent):
		attempt.Err, err = ErrSilent, ErrSilent
	case errors.As(err, &input):
		outcome = dispatch.Abandoned // no other executor could read it either
	case outcome == dispatch.Evicted || outcome == dispatch.ExecutorFailed:
		if cause := context.Cause(m.ctx); cause != nil {
			attempt.Err, err = cause, cause // the broker's words say more than a broken connection
		}
	}
	p.conclude(c, m, attempt, outcome, output, err)
}

// run loads the input and invokes the function.
func (p *pool) run(ctx context.Context, c *Call, m *member) ([]byte, error) {
	if c.place != nil {
		return nil, p.runInPlace(ctx, c.place, m)
	}
	input, err := c.load()
	if err != nil {
		return nil, &InputError{err}
	}
	buffer := p.buffers.Get().(*[]byte)
	defer p.buffers.Put(buffer)
	if uint64(len(input)) > p.buffer {
		return nil, &InputError{fmt.Errorf("%d bytes; the lease's buffer holds %d, ask for a larger one", len(input), p.buffer)}
	}
	n, err := m.conn.Invoke(ctx, input, *buffer, p.options.Timeout)
	if err != nil {
		return nil, err
	}
	return append([]byte(nil), (*buffer)[:n]...), nil
}

// conclude books an attempt and does what the machine says.
func (p *pool) conclude(c *Call, m *member, a Attempt, outcome dispatch.Outcome, output []byte, err error) {
	id := c.result.Index
	p.mu.Lock()
	if outcome != dispatch.Returned { // what never began is no run
		c.result.Attempts = append(c.result.Attempts, a)
	}
	verdict := p.machine.Finish(id, outcome)
	exhausted := verdict == dispatch.Failed && outcome == dispatch.ExecutorFailed
	switch outcome {
	case dispatch.Succeeded:
		p.barren = 0
	case dispatch.Evicted, dispatch.ExecutorFailed, dispatch.Returned:
		p.suspect(m)
	}
	if verdict == dispatch.Again {
		if p.failure != nil && p.machine.Drop(id) {
			verdict, err = dispatch.Failed, p.failure
		} else if c.ctx.Err() != nil && p.machine.Drop(id) {
			verdict, err = dispatch.Failed, context.Cause(c.ctx)
		}
	}
	switch {
	case verdict != dispatch.Again:
		delete(p.calls, id)
	case outcome != dispatch.Returned:
		p.counts.Retried++
		p.tell(&c.result, api.TaskRecord_WAITING)
	}
	p.dispatch()
	p.mu.Unlock()
	if verdict == dispatch.Again {
		return
	}
	if exhausted {
		err = &LostError{Attempts: len(c.result.Attempts), Last: a.Err}
	}
	p.end(c, output, err)
}

func (p *pool) lost() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failure
}

// suspect gives no more tasks to an executor whose path broke, and has it closed. The caller holds mu.
func (p *pool) suspect(m *member) {
	if p.executors[m.id] == m {
		p.machine.Leave(m.id)
		delete(p.executors, m.id)
	}
	select {
	case m.suspect <- struct{}{}:
	default:
	}
}

// join adds an executor that is connected.
func (p *pool) join(m *member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failure != nil {
		return
	}
	p.counts.Trouble = nil
	p.executors[m.id] = m
	p.machine.Join(m.id, m.conn.Slots())
	p.dispatch()
}

// leave gives no more tasks to an executor.
func (p *pool) leave(m *member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.suspect(m)
}

// gone books the loss of an executor, as the broker tells it.
func (p *pool) gone(id string, d *departure) {
	p.mu.Lock()
	if d.outcome() == dispatch.Evicted {
		p.machine.Excuse(id)
	}
	switch d.reason {
	case api.EndReason_EVICTED:
		p.counts.Evicted++
	case api.EndReason_EXECUTOR_FAILED:
		p.counts.Lost++
		p.mu.Unlock()
		p.trouble(d)
		return
	default:
		p.counts.Lost++
	}
	p.mu.Unlock()
}

// trouble notes an executor that could not be used. After too many in a row with no task done, all that wait fail.
func (p *pool) trouble(err error) {
	limit := p.options.ExecutorFailures
	if limit <= 0 {
		limit = 20
	}
	p.mu.Lock()
	p.counts.Trouble = err
	p.barren++
	barren := p.barren
	p.mu.Unlock()
	if barren >= limit {
		p.fail(&LostError{Attempts: barren, Last: err})
	}
}

// fail ends every task that waits, and those that come later. Tasks that run keep running until their executors go.
func (p *pool) fail(err error) {
	p.mu.Lock()
	if p.failure != nil {
		p.mu.Unlock()
		return
	}
	p.failure = err
	var waiting []*Call
	for _, id := range p.machine.Waiting() {
		p.machine.Drop(id)
		waiting = append(waiting, p.calls[id])
		delete(p.calls, id)
	}
	p.mu.Unlock()
	for _, c := range waiting {
		p.end(c, nil, err)
	}
}

// snapshot returns the counts as of now.
func (p *pool) snapshot() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	counts := p.counts
	counts.Executors, counts.Waiting = p.machine.Executors(), p.machine.Queued()
	return counts
}
