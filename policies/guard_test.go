package policies_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gleaner-hpc/gleaner/policies"
	"github.com/gleaner-hpc/gleaner/policies/policytest"
)

// told answers as it is told to.
type told struct {
	policies.Idle
	harvest func(context.Context) ([]policies.Offer, error)
}

func (t told) Harvest(ctx context.Context, _ policies.View) ([]policies.Offer, error) {
	return t.harvest(ctx)
}

func (t told) Place(ctx context.Context, r policies.Request, o []policies.Offer) ([]string, error) {
	return policies.Fallible(t.Idle).Place(ctx, r, o)
}

func (t told) Evict(context.Context, policies.Overlap, []policies.Executor) ([]string, error) {
	return []string{"nobody"}, nil
}

func TestGuardReplaces(t *testing.T) {
	view := policies.View{Now: now, Nodes: []policies.Node{{Name: "n", Total: amount(4), Free: amount(4)}}}
	own := []policies.Offer{{Node: "n", Resources: amount(1)}}
	late := make(chan struct{})
	defer close(late)
	for name, test := range map[string]struct {
		answer func(context.Context) ([]policies.Offer, error)
		reason string // "" when the policy's own answer stands
	}{
		"good":  {func(context.Context) ([]policies.Offer, error) { return own, nil }, ""},
		"error": {func(context.Context) ([]policies.Offer, error) { return nil, errors.New("no idea") }, "failed"},
		"panic": {func(context.Context) ([]policies.Offer, error) { panic("no idea") }, "failed"},
		"late":  {func(ctx context.Context) ([]policies.Offer, error) { <-ctx.Done(); return own, nil }, "late"},
		"deaf":  {func(context.Context) ([]policies.Offer, error) { <-late; return own, nil }, "late"},
		"more than is free": {func(context.Context) ([]policies.Offer, error) {
			return []policies.Offer{{Node: "n", Resources: amount(5)}}, nil
		}, "nonsense"},
		"another node": {func(context.Context) ([]policies.Offer, error) {
			return []policies.Offer{{Node: "m", Resources: amount(1)}}, nil
		}, "nonsense"},
		"nothing": {func(context.Context) ([]policies.Offer, error) { return nil, nil }, "nonsense"},
	} {
		t.Run(name, func(t *testing.T) {
			counted := map[string]int{}
			deadline := time.Minute
			if test.reason == "late" {
				deadline = time.Millisecond
			}
			g := policies.NewGuard(policies.GuardConfig{
				Policy: told{harvest: test.answer}, Deadline: deadline, Count: func(call, reason string) { counted[call+" "+reason]++ },
			})
			want, wantCounted := policies.Idle{}.Harvest(view), map[string]int{"harvest " + test.reason: 1}
			if test.reason == "" {
				want, wantCounted = own, map[string]int{}
			}
			if diff := cmp.Diff(want, g.Harvest(view)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(wantCounted, counted); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("order of nobody", func(t *testing.T) {
		g := policies.NewGuard(policies.GuardConfig{Policy: told{}})
		if diff := cmp.Diff([]string{"1-1"}, g.Evict(policies.Overlap{}, []policies.Executor{{ID: "1-1"}})); diff != "" {
			t.Error(diff)
		}
	})
}

// Whatever the policy does, what the guard says conforms.
func TestGuardConforms(t *testing.T) {
	policytest.Run(t, policies.NewGuard(policies.GuardConfig{Policy: told{harvest: func(context.Context) ([]policies.Offer, error) {
		return nil, errors.New("never")
	}}}))
}

func TestGuardRests(t *testing.T) {
	clock, calls, works := now, 0, false
	var reasons []string
	g := policies.NewGuard(policies.GuardConfig{
		Policy: told{harvest: func(context.Context) ([]policies.Offer, error) {
			calls++
			if works {
				return []policies.Offer{}, nil
			}
			return nil, errors.New("no")
		}},
		Count: func(_, reason string) { reasons = append(reasons, reason) }, Now: func() time.Time { return clock },
	})
	ask := func(n int) {
		for range n {
			g.Harvest(policies.View{})
		}
	}
	ask(5)
	if diff := cmp.Diff([]string{"failed", "failed", "failed", "resting", "resting"}, reasons); diff != "" {
		t.Error(diff)
	}
	clock = clock.Add(time.Second)
	if ask(2); calls != 4 {
		t.Errorf("asked %d times after a second's rest, want once", calls-3)
	}
	clock = clock.Add(1500 * time.Millisecond)
	if ask(1); calls != 4 {
		t.Error("the second rest is no longer than the first")
	}
	clock, works = clock.Add(time.Second), true
	if ask(3); calls != 7 {
		t.Errorf("asked %d times once it answers again, want three times", calls-4)
	}
	works = false
	if ask(2); calls != 9 {
		t.Errorf("asked %d times after a failure that is no third in a row, want twice", calls-7)
	}
}

func TestGuardBoundsTheTime(t *testing.T) {
	clock := now
	counted := map[string]int{}
	asked := 0
	slow := slowly{func() { clock = clock.Add(40 * time.Second); asked++ }}
	g := policies.NewGuard(policies.GuardConfig{
		Policy: policies.Fallible(slow), Deadline: 50 * time.Second, Now: func() time.Time { return clock },
		Count: func(_, reason string) { counted[reason]++ },
	})
	for range 2 {
		g.Harvest(policies.View{})
		for range 10 {
			g.Place(policies.Request{}, nil)
		}
	}
	if asked != 10 || counted["spent"] != 10 {
		t.Errorf("%d questions of 40 s were put in two rounds of 200 s, %v", asked, counted)
	}
}

type slowly struct{ took func() }

func (s slowly) Harvest(policies.View) []policies.Offer                      { return nil }
func (s slowly) Place(policies.Request, []policies.Offer) []string           { s.took(); return nil }
func (s slowly) Evict(policies.Overlap, []policies.Executor) (none []string) { return nil }
