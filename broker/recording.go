package broker

import (
	"context"
	"sync"
	"time"

	"github.com/gleaner-hpc/gleaner/broker/store"
	"github.com/gleaner-hpc/gleaner/report"
)

// maxQueued bounds what waits for the recorder. Beyond it intervals are dropped and counted, and numbered records are not taken
// at all: their agents keep them and send them again.
const maxQueued = 100_000

// record is what is to be kept, and, when an agent numbered it, whom to tell.
type record struct {
	what any // a type of package report, or nil
	node string
	boot string
	n    uint64 // 0: nobody waits
}

// recording writes records outside the loop, in order, and says which are stored.
type recording struct {
	recorder Recorder
	cfg      Config
	post     func(func(s *state, now time.Time) error)

	mu       sync.Mutex
	queue    []record
	finished bool
	wake     chan struct{} // buffered by one
}

func newRecording(cfg Config, post func(func(s *state, now time.Time) error)) *recording {
	return &recording{recorder: cfg.Recorder, cfg: cfg, post: post, wake: make(chan struct{}, 1)}
}

// add queues a record; false means that there is no room.
func (r *recording) add(rec record) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) >= maxQueued {
		return false
	}
	r.queue = append(r.queue, rec)
	r.poke()
	return true
}

// finish lets run end once the queue is written.
func (r *recording) finish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.finished = true
	r.poke()
}

func (r *recording) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *recording) take() (batch []record, finished bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(r.queue), 1000)
	batch = append(batch, r.queue[:n]...)
	r.queue = append(r.queue[:0:0], r.queue[n:]...)
	return batch, r.finished
}

// run writes until finish. A record that cannot be written is tried again each second, and once more at the end.
func (r *recording) run() error {
	for {
		batch, finished := r.take()
		if len(batch) == 0 {
			if finished {
				return nil
			}
			<-r.wake
			continue
		}
		for {
			err := r.write(batch)
			if err == nil {
				break
			}
			r.cfg.Log.Error("cannot write report records; agents keep theirs meanwhile", "error", err)
			if r.pause(time.Second) {
				return err
			}
		}
		r.acknowledge(batch)
	}
}

// pause waits, and says whether the broker is stopping.
func (r *recording) pause(d time.Duration) bool {
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	<-deadline.C
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.finished
}

func (r *recording) write(batch []record) error {
	if r.recorder == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var intervals []report.Interval
	var executors []report.Executor
	var claims []report.Claim
	var tasks []report.Tasks
	var drains []report.Drain
	for _, rec := range batch {
		switch v := rec.what.(type) {
		case report.Interval:
			intervals = append(intervals, v)
		case report.Executor:
			v.User = r.cfg.UserName(v.UID)
			executors = append(executors, v)
		case report.Claim:
			claims = append(claims, v)
		case report.Tasks:
			tasks = append(tasks, v)
		case report.Drain:
			drains = append(drains, v)
		}
	}
	for _, err := range []error{
		addAll(ctx, r.recorder.AddInterval, intervals), addAll(ctx, r.recorder.AddExecutor, executors),
		addAll(ctx, r.recorder.AddClaim, claims), addAll(ctx, r.recorder.AddTasks, tasks), addAll(ctx, r.recorder.AddDrain, drains),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

func addAll[T any](ctx context.Context, add func(context.Context, ...T) error, items []T) error {
	if len(items) == 0 {
		return nil
	}
	return add(ctx, items...)
}

// acknowledge tells the loop the highest stored number of each agent.
func (r *recording) acknowledge(batch []record) {
	stored := map[string]store.Node{}
	for _, rec := range batch {
		if waits, ok := rec.what.(chan struct{}); ok {
			close(waits)
		}
		if rec.n != 0 {
			stored[rec.node] = store.Node{Boot: rec.boot, Record: rec.n}
		}
	}
	if len(stored) > 0 {
		r.post(func(s *state, _ time.Time) error {
			s.recordsStored(stored)
			return nil
		})
	}
}
