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

// run writes until finish. A record that cannot be written is tried again, ever more rarely; when the broker stops, once more.
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
		wait := time.Second
		for i := 0; i < len(batch); {
			err := r.write(&batch[i])
			if err == nil {
				i++
				continue
			}
			r.acknowledge(batch[:i])
			r.cfg.Log.Error("cannot write report records; agents keep theirs meanwhile", "error", err)
			if finished || r.pause(wait) {
				return err
			}
			batch, i, wait = batch[i:], 0, min(2*wait, 30*time.Second)
		}
		r.acknowledge(batch)
	}
}

// pause waits, and says whether the broker is stopping.
func (r *recording) pause(d time.Duration) bool {
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	for {
		r.mu.Lock()
		finished := r.finished
		r.mu.Unlock()
		if finished {
			return true
		}
		select {
		case <-deadline.C:
			return false
		case <-r.wake:
		}
	}
}

func (r *recording) write(rec *record) error {
	if r.recorder == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	switch v := rec.what.(type) {
	case report.Interval:
		return r.recorder.AddInterval(ctx, v)
	case report.Executor:
		v.User = r.cfg.UserName(v.UID)
		return r.recorder.AddExecutor(ctx, v)
	case report.Claim:
		return r.recorder.AddClaim(ctx, v)
	case report.Tasks:
		return r.recorder.AddTasks(ctx, v)
	case report.Drain:
		return r.recorder.AddDrain(ctx, v)
	}
	return nil
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
