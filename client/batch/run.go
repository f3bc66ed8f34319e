package batch

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/client"
)

// Lease runs tasks; *client.Lease is one.
type Lease interface {
	ID() uint64
	Map(ctx context.Context, tasks iter.Seq[client.Task], each func(client.Result)) error
	Counts() client.Counts
	Release(ctx context.Context) error
}

// Config says what to run and on what.
type Config struct {
	Plan    *Plan
	Acquire func(ctx context.Context) (Lease, error) // called again when a lease was lost through no fault of the tasks
	Each    func(Item, error)                        // after each task that ended, one at a time, for the progress bar; may be nil
	Warn    func(error)                              // of what does not change the outcome; may be nil
	// Patience is how long a map that is under way waits for a broker that has gone away; 0 means not at all.
	Patience time.Duration
	// Write puts a result into its file, for several at a time; nil means Write of this package.
	Write func(path string, data []byte) error
	// FailEmpty makes an empty result a failure: the way in which a function, whose ABI has no error code, refuses its input.
	FailEmpty bool
}

// Summary is how a map ended.
type Summary struct {
	Schema    string    `json:"schema"`
	Lease     uint64    `json:"lease"` // the last one; 0 when there was nothing to do
	Tasks     int       `json:"tasks"` // inputs in all: ok + failed + skipped + left
	OK        int       `json:"ok"`
	Failed    int       `json:"failed"`
	Skipped   int       `json:"skipped"` // had their result before
	Left      int       `json:"left"`    // neither run nor failed: interrupted, or the lease ended
	Retried   uint64    `json:"retried"` // runs beyond the first
	Evictions uint64    `json:"evictions"`
	Lost      uint64    `json:"lost"` // executors lost to other causes
	Seconds   float64   `json:"seconds"`
	Ended     string    `json:"ended,omitempty"` // why tasks are left
	Failures  []Failure `json:"failures"`        // in the order of the inputs
}

// Failure is a task with its final error.
type Failure struct {
	Task  string `json:"task"` // for gleaner explain
	Input string `json:"input"`
	Error string `json:"error"`
}

var errEmpty = errors.New("empty result: the function refused its input")

// ReleaseTimeout bounds giving a lease back, in particular after an interrupt.
const ReleaseTimeout = 5 * time.Second

// writers bounds the results that are being written at a time: a file system far away takes milliseconds for each, and executors
// are not to wait for it.
const writers = 16

// maxLeases bounds how often a lost lease is replaced while no task ends in between.
const maxLeases = 3

type run struct {
	Config
	pending []Item

	mu      sync.Mutex // while results are written
	summary Summary
	failed  map[int]Failure // by the input's index
}

// Run runs the plan. The error says why tasks are left, and is nil when none are, whether or not some failed.
func Run(ctx context.Context, c Config) (Summary, error) {
	began := time.Now()
	if c.Write == nil {
		c.Write = Write
	}
	r := &run{Config: c, pending: c.Plan.Items, failed: map[int]Failure{}}
	r.summary = Summary{Schema: "gleaner.map/1", Tasks: len(c.Plan.Items) + c.Plan.Skipped, Skipped: c.Plan.Skipped, Failures: []Failure{}}
	var err error
	for barren := 0; len(r.pending) > 0; {
		before := len(r.pending)
		err = r.once(ctx)
		if len(r.pending) < before {
			barren = 0
		} else {
			barren++
		}
		if barren == maxLeases || !replaceable(err) || ctx.Err() != nil {
			break
		}
	}
	r.summary.Left = len(r.pending)
	for _, index := range slices.Sorted(maps.Keys(r.failed)) {
		r.summary.Failures = append(r.summary.Failures, r.failed[index])
	}
	r.summary.Seconds = time.Since(began).Seconds()
	if r.summary.Left == 0 {
		err = nil
	} else if err != nil {
		r.summary.Ended = err.Error()
	}
	return r.summary, err
}

// replaceable tells a lease that was lost from one whose end concerns the tasks.
func replaceable(err error) bool {
	var ended *client.EndedError
	if !errors.As(err, &ended) {
		return false
	}
	switch ended.Reason {
	case api.EndReason_EXPIRED, api.EndReason_NODE_LOST, api.EndReason_END_REASON_UNSPECIFIED:
		return true
	}
	return false
}

// acquire obtains a lease. The first attempt of a map fails at once when there is no broker; later ones are patient.
func (r *run) acquire(ctx context.Context) (Lease, error) {
	began := time.Now()
	for {
		lease, err := r.Acquire(ctx)
		if r.summary.Lease == 0 || !errors.Is(err, client.ErrUnreachable) || time.Since(began) >= r.Patience {
			return lease, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(reachAgain):
		}
	}
}

// reachAgain is the time between two attempts.
const reachAgain = 200 * time.Millisecond

// once runs what is pending on one lease.
func (r *run) once(ctx context.Context) error {
	lease, err := r.acquire(ctx)
	if err != nil {
		return err
	}
	r.summary.Lease = lease.ID()
	items := r.pending
	taken := 0
	ended := make([]bool, len(items)) // each by whoever concludes it
	var writing sync.WaitGroup
	turns := make(chan struct{}, writers)
	err = lease.Map(ctx, func(yield func(client.Task) bool) {
		for taken < len(items) {
			item := items[taken]
			taken++
			if !yield(client.Task{Name: item.Name, Load: item.Load}) {
				return
			}
		}
	}, func(result client.Result) {
		turns <- struct{}{}
		writing.Go(func() {
			ended[result.Index] = r.conclude(lease.ID(), items[result.Index], result)
			<-turns
		})
	})
	writing.Wait()
	var left []Item
	for n, item := range items {
		if !ended[n] {
			left = append(left, item)
		}
	}
	r.pending = left
	counts := lease.Counts()
	r.summary.Retried += counts.Retried
	r.summary.Evictions += counts.Evicted
	r.summary.Lost += counts.Lost
	release, cancel := context.WithTimeout(context.WithoutCancel(ctx), ReleaseTimeout)
	defer cancel()
	e := lease.Release(release)
	switch {
	case e == nil:
	case err == nil && len(left) > 0:
		err = e
	case r.Warn != nil && !errors.Is(e, client.ErrEnded) && !errors.Is(err, client.ErrEnded):
		r.Warn(e)
	}
	return err
}

// conclude books a task's outcome and reports whether it is final for the map.
func (r *run) conclude(lease uint64, item Item, result client.Result) bool {
	err := result.Err
	switch {
	case err == nil && r.FailEmpty && len(result.Output) == 0:
		err = errEmpty
	case err == nil:
		err = r.Write(item.Output, result.Output)
	case errors.Is(err, client.ErrEnded), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.summary.OK++
	} else {
		r.summary.Failed++
		r.failed[item.Index] = Failure{fmt.Sprintf("%d.%d", lease, result.Index), item.Name, err.Error()}
	}
	if r.Each != nil {
		r.Each(item, err)
	}
	return true
}
