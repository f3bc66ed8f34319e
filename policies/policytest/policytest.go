// Package policytest is the conformance suite of the policy contract: what every policy must hold to, built in or a site's own. It
// draws clusters, requests and executors at random, and checks what the policy answers. Run is for tests, Conform for everybody else.
package policytest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gleaner-hpc/gleaner/policies"
)

// Run runs the suite as tests of a policy in this process.
func Run(t *testing.T, policy policies.Policy) {
	s := suite{policies.Fallible(policy), 10 * time.Second}
	t.Run("Harvest", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) { check(t, s.harvest(View(t))) })
	})
	t.Run("Place", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) { check(t, s.place(request(t), drawOffers(t))) })
	})
	t.Run("Evict", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) { check(t, s.evict(drawExecutors(t))) })
	})
}

func check(t *rapid.T, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

// Result is what one part of the suite found.
type Result struct {
	Name    string
	Cases   int
	Err     error         // the first case that failed
	Slowest time.Duration // of one answer
}

// Conform runs cases of each part against a policy that answers within the deadline. Cases are the same each time.
func Conform(policy policies.Asked, deadline time.Duration, cases int) []Result {
	results := []Result{{Name: "harvest"}, {Name: "place"}, {Name: "evict"}}
	timed := &timing{Asked: policy}
	s := suite{timed, deadline}
	parts := []func(seed int) error{
		func(seed int) error { return s.harvest(rapid.Custom(View).Example(seed)) },
		func(seed int) error {
			return s.place(rapid.Custom(request).Example(seed), rapid.Custom(drawOffers).Example(seed))
		},
		func(seed int) error { return s.evict(rapid.Custom(drawExecutors).Example(seed)) },
	}
	for i := range results {
		r := &results[i]
		timed.slowest = 0
		for r.Cases < cases && r.Err == nil {
			r.Cases++
			if err := parts[i](r.Cases); err != nil {
				r.Err = fmt.Errorf("case %d: %w", r.Cases, err)
			}
		}
		r.Slowest = timed.slowest
	}
	return results
}

// suite asks each question twice.
type suite struct {
	policy   policies.Asked
	deadline time.Duration
}

// ErrChanging and ErrChanged are wrapped by errors about answers that differ, and about arguments that the policy has changed.
var (
	ErrChanging = errors.New("the same question was answered differently")
	ErrChanged  = errors.New("the policy has changed its argument")
)

// twice asks a question two times and returns the answer when both are the same.
func twice[T any](s suite, question func(context.Context) (T, error)) (T, error) {
	var answers [2]T
	for i := range answers {
		ctx, cancel := context.WithTimeout(context.Background(), s.deadline)
		var err error
		answers[i], err = question(ctx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return answers[0], fmt.Errorf("no answer within %s", s.deadline)
		}
		if err != nil {
			return answers[0], err
		}
	}
	if !reflect.DeepEqual(answers[0], answers[1]) {
		return answers[0], fmt.Errorf("%w: %+v and then %+v", ErrChanging, answers[0], answers[1])
	}
	return answers[0], nil
}

// harvest: what the contract says of offers.
func (s suite) harvest(view policies.View) error {
	before := clone(view)
	offers, err := twice(s, func(ctx context.Context) ([]policies.Offer, error) { return s.policy.Harvest(ctx, view) })
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(view, before) {
		return fmt.Errorf("%w: the view is now %+v", ErrChanged, view)
	}
	if err := policies.CheckOffers(view, offers); err != nil {
		return fmt.Errorf("%w; the view was %+v", err, view)
	}
	return nil
}

// place: what the contract says of picks.
func (s suite) place(request policies.Request, offers []policies.Offer) error {
	before := clone(offers)
	picks, err := twice(s, func(ctx context.Context) ([]string, error) { return s.policy.Place(ctx, request, offers) })
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(offers, before) {
		return fmt.Errorf("%w: the offers are now %+v", ErrChanged, offers)
	}
	if err := policies.CheckPicks(request, offers, picks); err != nil {
		return fmt.Errorf("%w; the request was %+v of %+v", err, request, offers)
	}
	return nil
}

// evict: the same executors, each once.
func (s suite) evict(executors []policies.Executor) error {
	before := slices.Clone(executors)
	order, err := twice(s, func(ctx context.Context) ([]string, error) {
		return s.policy.Evict(ctx, policies.Overlap{Node: "n1"}, executors)
	})
	if err != nil {
		return err
	}
	if !slices.Equal(executors, before) {
		return fmt.Errorf("%w: the executors are now %+v", ErrChanged, executors)
	}
	if err := policies.CheckOrder(executors, order); err != nil {
		return fmt.Errorf("%w; the executors were %+v, the order %v", err, executors, order)
	}
	return nil
}

// timing remembers the slowest answer.
type timing struct {
	policies.Asked
	slowest time.Duration
}

func (t *timing) took(began time.Time) { t.slowest = max(t.slowest, time.Since(began)) }

func (t *timing) Harvest(ctx context.Context, v policies.View) ([]policies.Offer, error) {
	defer t.took(time.Now())
	return t.Asked.Harvest(ctx, v)
}

func (t *timing) Place(ctx context.Context, r policies.Request, o []policies.Offer) ([]string, error) {
	defer t.took(time.Now())
	return t.Asked.Place(ctx, r, o)
}

func (t *timing) Evict(ctx context.Context, o policies.Overlap, e []policies.Executor) ([]string, error) {
	defer t.took(time.Now())
	return t.Asked.Evict(ctx, o, e)
}
