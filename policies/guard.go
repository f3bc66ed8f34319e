package policies

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Asked is a policy that may fail: a plugin (package plugin), or a Policy through Fallible.
type Asked interface {
	Harvest(context.Context, View) ([]Offer, error)
	Place(context.Context, Request, []Offer) ([]string, error)
	Evict(context.Context, Overlap, []Executor) ([]string, error)
}

// DefaultDeadline is how long a Guard waits for one answer.
const DefaultDeadline = 50 * time.Millisecond

// GuardConfig is what a Guard is made of.
type GuardConfig struct {
	Policy   Asked
	Fallback Policy                    // nil: Idle
	Deadline time.Duration             // for one answer; 0: DefaultDeadline
	Count    func(call, reason string) // hears of each answer that was replaced; nil: nobody
	Now      func() time.Time          // nil: time.Now
}

// Guard is a Policy that never fails: what its policy does not answer, or answers wrongly, the fallback answers. Reasons are "late",
// "failed" (an error or a panic), "nonsense" (the contract does not allow it), "resting" and "spent".
//
// A policy that has failed three times in a row rests: it is not asked for a second, twice as long each further time, up to half a
// minute. What it may take from one Harvest to the next is four deadlines in all ("spent"), so that a slow policy cannot hold up its
// caller, which asks Place once for each few executors.
type Guard struct {
	cfg GuardConfig

	mu     sync.Mutex
	failed int // in a row
	until  time.Time
	spent  time.Duration // since the last Harvest
}

const (
	failuresAllowed = 3
	shortestRest    = time.Second
	longestRest     = 30 * time.Second
	deadlinesSpent  = 4
)

// NewGuard returns a Guard.
func NewGuard(cfg GuardConfig) *Guard {
	if cfg.Fallback == nil {
		cfg.Fallback = Idle{}
	}
	if cfg.Deadline == 0 {
		cfg.Deadline = DefaultDeadline
	}
	if cfg.Count == nil {
		cfg.Count = func(string, string) {}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Guard{cfg: cfg}
}

// Harvest implements Policy.
func (g *Guard) Harvest(v View) []Offer {
	g.mu.Lock()
	g.spent = 0
	g.mu.Unlock()
	offers, err := ask(g, func(ctx context.Context) ([]Offer, error) { return g.cfg.Policy.Harvest(ctx, v) },
		func(o []Offer) error { return CheckOffers(v, o) })
	if err != nil {
		g.cfg.Count("harvest", reason(err))
		return g.cfg.Fallback.Harvest(v)
	}
	return offers
}

// Place implements Policy.
func (g *Guard) Place(r Request, offers []Offer) []string {
	picks, err := ask(g, func(ctx context.Context) ([]string, error) { return g.cfg.Policy.Place(ctx, r, offers) },
		func(p []string) error { return CheckPicks(r, offers, p) })
	if err != nil {
		g.cfg.Count("place", reason(err))
		return g.cfg.Fallback.Place(r, offers)
	}
	return picks
}

// Evict implements Policy.
func (g *Guard) Evict(o Overlap, executors []Executor) []string {
	order, err := ask(g, func(ctx context.Context) ([]string, error) { return g.cfg.Policy.Evict(ctx, o, executors) },
		func(ids []string) error { return CheckOrder(executors, ids) })
	if err != nil {
		g.cfg.Count("evict", reason(err))
		return g.cfg.Fallback.Evict(o, executors)
	}
	return order
}

var (
	errResting = errors.New("the policy has failed too often and is left alone for a while")
	errSpent   = errors.New("the policy has had its time")
)

func reason(err error) string {
	switch {
	case errors.Is(err, errResting):
		return "resting"
	case errors.Is(err, errSpent):
		return "spent"
	case errors.Is(err, ErrNonsense):
		return "nonsense"
	case errors.Is(err, context.DeadlineExceeded):
		return "late"
	}
	return "failed"
}

// ask puts one question within the deadline and checks the answer.
func ask[T any](g *Guard, question func(context.Context) (T, error), check func(T) error) (T, error) {
	var zero T
	if err := g.ready(); err != nil {
		return zero, err
	}
	type reply struct {
		answer T
		err    error
	}
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.Deadline)
	defer cancel()
	replies := make(chan reply, 1)
	began := g.cfg.Now()
	go func() {
		r := reply{err: errors.New("the policy panicked")}
		defer func() {
			if p := recover(); p != nil {
				r.err = fmt.Errorf("the policy panicked: %v", p)
			}
			replies <- r
		}()
		r.answer, r.err = question(ctx)
	}()
	var r reply
	select {
	case r = <-replies:
	case <-ctx.Done():
		r.err = context.DeadlineExceeded
	}
	if ctx.Err() != nil {
		r.err = context.DeadlineExceeded
	}
	if r.err == nil {
		r.err = check(r.answer)
	}
	g.settle(g.cfg.Now(), g.cfg.Now().Sub(began), r.err)
	if r.err != nil {
		return zero, r.err
	}
	return r.answer, nil
}

// ready says whether the policy may be asked now.
func (g *Guard) ready() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.failed >= failuresAllowed && g.cfg.Now().Before(g.until):
		return errResting
	case g.spent >= deadlinesSpent*g.cfg.Deadline:
		return errSpent
	}
	return nil
}

// settle books what one question took and how it went.
func (g *Guard) settle(now time.Time, took time.Duration, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.spent += took
	if err == nil {
		g.failed = 0
		return
	}
	g.failed++
	if over := g.failed - failuresAllowed; over >= 0 {
		g.until = now.Add(min(longestRest, shortestRest<<min(over, 6)))
	}
}

// Fallible makes a Policy one that is asked.
func Fallible(p Policy) Asked { return fallible{p} }

type fallible struct{ policy Policy }

func (f fallible) Harvest(_ context.Context, v View) ([]Offer, error) {
	return f.policy.Harvest(v), nil
}
func (f fallible) Place(_ context.Context, r Request, o []Offer) ([]string, error) {
	return f.policy.Place(r, o), nil
}
func (f fallible) Evict(_ context.Context, o Overlap, e []Executor) ([]string, error) {
	return f.policy.Evict(o, e), nil
}
