package broker

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gleaner-hpc/gleaner/slurmplugin/slurmctld"
)

// maxBatch bounds how many steps share one commit.
const maxBatch = 512

var errStopping = status.Error(codes.Aborted, "the broker is stopping")

// step is one change of state. Its answer leaves after the commit.
type step struct {
	do    func(s *state, now time.Time) error
	undo  func(s *state, now time.Time) // when do went well and its effects could not be stored; may be nil
	reply chan error                    // buffered by one; nil when nobody waits
	err   error
}

// observed is one look at slurmctld.
type observed struct {
	view  *slurmctld.View
	err   error
	began time.Time // before the question was sent
}

// call has a step done and waits until it is committed.
func (b *Broker) call(ctx context.Context, do func(s *state, now time.Time) error) error {
	return b.attempt(ctx, &step{do: do, reply: make(chan error, 1)})
}

func (b *Broker) attempt(ctx context.Context, st *step) error {
	select {
	case b.steps <- st:
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-b.stopped:
		return errStopping
	}
	select {
	case err := <-st.reply:
		return err
	case <-b.stopped:
		return errStopping
	}
}

// post has a step done and waits for room in the queue only.
func (b *Broker) post(do func(s *state, now time.Time) error) {
	select {
	case b.steps <- &step{do: do}:
	case <-b.stopped:
	}
}

// Run serves until ctx ends. It may be called once.
func (b *Broker) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return b.poll(ctx) })
	group.Go(func() error { return b.prune(ctx) })
	group.Go(func() error { return b.loop(ctx) })
	recorded := make(chan error, 1)
	go func() { recorded <- b.rec.run() }()
	err := group.Wait()
	b.rec.finish()
	if e := <-recorded; err == nil {
		err = e
	}
	return err
}

func (b *Broker) loop(ctx context.Context) error {
	s := b.state
	tick := b.cfg.Tick
	if tick == nil {
		ticker := time.NewTicker(250 * time.Millisecond)
		defer ticker.Stop()
		tick = ticker.C
	}
	rest := time.NewTimer(0) // until placement may run again
	defer rest.Stop()
	resting := true
	for {
		var batch []*step
		select {
		case <-ctx.Done():
			return b.shutdown()
		case st := <-b.steps:
			batch = b.take(st)
		case o := <-b.views:
			s.observe(b.cfg.Now(), o)
		case <-tick:
			s.tick(b.cfg.Now())
		case <-rest.C:
			resting = false
		}
		now := b.cfg.Now()
		for _, st := range batch {
			st.err = st.do(s, now)
		}
		s.dirty = s.collect(now) || s.dirty
		if s.dirty && !resting {
			// Placement takes at most a fifth of the loop's time, however large the cluster.
			began := time.Now()
			s.place(now)
			if took := time.Since(began); took > time.Millisecond {
				resting = true
				rest.Reset(4 * took)
			}
		}
		b.finish(s.flush(now), batch)
	}
}

// take joins what waits into one batch.
func (b *Broker) take(st *step) []*step {
	batch := []*step{st}
	for len(batch) < maxBatch {
		select {
		case st := <-b.steps:
			batch = append(batch, st)
		default:
			return batch
		}
	}
	return batch
}

func (b *Broker) finish(err error, batch []*step) {
	if err != nil {
		b.cfg.Log.Error("cannot write the broker's state; nothing is started or answered until that works", "error", err)
		err = status.Errorf(codes.Aborted, "the broker cannot write its state: %v", err)
	}
	for _, st := range batch {
		if err != nil && st.err == nil && st.undo != nil {
			st.undo(b.state, b.cfg.Now())
		}
		if st.reply == nil {
			continue
		}
		if st.err == nil {
			st.err = err
		}
		st.reply <- st.err
	}
}

// shutdown closes what is open and lets the RPCs end.
func (b *Broker) shutdown() error {
	now := b.cfg.Now()
	b.state.closeIntervals(now)
	err := b.state.flush(now)
	close(b.stopped)
	if err != nil {
		return fmt.Errorf("stop broker: %w", err)
	}
	return nil
}

// poll looks at slurmctld, at once and then at each interval.
func (b *Broker) poll(ctx context.Context) error {
	if b.cfg.Slurm == nil {
		return nil
	}
	ticker := time.NewTicker(b.cfg.Poll)
	defer ticker.Stop()
	for {
		o := &observed{began: b.cfg.Now()}
		limited, cancel := context.WithTimeout(ctx, max(b.cfg.Poll, 10*time.Second))
		o.view, _, o.err = b.cfg.Slurm.Read(limited)
		cancel()
		select {
		case b.views <- o:
		case <-ctx.Done():
			return nil
		}
		rested := time.After(lookRest)
		select {
		case <-ticker.C:
		case <-b.look:
			select {
			case <-rested:
			case <-ctx.Done():
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// prune forgets leases that ended long ago.
func (b *Broker) prune(ctx context.Context) error {
	ticker := time.NewTicker(10 * time.Minute)
	defer ticker.Stop()
	for {
		for more := true; more && ctx.Err() == nil; {
			n, err := b.cfg.Store.Prune(b.cfg.Now().Add(-b.cfg.History), 500)
			if err != nil {
				b.cfg.Log.Error("cannot prune history", "error", err)
			}
			more = n == 500
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}
