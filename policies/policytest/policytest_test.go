package policytest

import (
	"errors"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/policies"
)

// Policies that break one rule each.
type (
	greedy    struct{ policies.Idle }
	short     struct{ policies.Idle }
	changing  struct{ policies.Idle }
	forgetful struct{ policies.Idle }
	tireless  struct{ policies.Idle }
	unsteady  struct {
		policies.Idle
		calls *int
	}
)

func (greedy) Harvest(v policies.View) []policies.Offer {
	offers := policies.Idle{}.Harvest(v)
	for i := range offers {
		if offers[i].Resources.Cores > 0 {
			offers[i].Resources = v.Nodes[i].Free
		}
	}
	return offers
}

func (short) Harvest(v policies.View) []policies.Offer {
	return policies.Idle{}.Harvest(v)[:len(v.Nodes)/2]
}

func (changing) Place(r policies.Request, offers []policies.Offer) []string {
	for i := range offers {
		offers[i].Executors = 0
	}
	return nil
}

func (tireless) Place(r policies.Request, offers []policies.Offer) []string {
	r.Executors += 3
	return policies.Idle{}.Place(r, offers)
}

func (forgetful) Evict(_ policies.Overlap, executors []policies.Executor) []string {
	return policies.Idle{}.Evict(policies.Overlap{}, executors[:len(executors)/2])
}

func (u unsteady) Evict(_ policies.Overlap, executors []policies.Executor) []string {
	*u.calls++
	order := policies.Idle{}.Evict(policies.Overlap{}, executors)
	if n := len(order); n > 1 && *u.calls%2 == 0 {
		order[0], order[n-1] = order[n-1], order[0]
	}
	return order
}

func TestConformFindsOut(t *testing.T) {
	for name, test := range map[string]struct {
		policy policies.Policy
		part   string // "" for none
		want   error
	}{
		"good":                      {policies.Careful{}, "", nil},
		"offers what jobs hold":     {greedy{}, "harvest", policies.ErrNonsense},
		"forgets nodes":             {short{}, "harvest", policies.ErrNonsense},
		"changes its argument":      {changing{}, "place", ErrChanged},
		"picks more than asked for": {tireless{}, "place", policies.ErrNonsense},
		"forgets executors":         {forgetful{}, "evict", policies.ErrNonsense},
		"is of two minds":           {unsteady{calls: new(int)}, "evict", ErrChanging},
	} {
		t.Run(name, func(t *testing.T) {
			for _, r := range Conform(policies.Fallible(test.policy), time.Minute, 200) {
				switch {
				case r.Name == test.part && !errors.Is(r.Err, test.want):
					t.Errorf("%s: %v, want %v", r.Name, r.Err, test.want)
				case r.Name != test.part && (r.Err != nil || r.Cases != 200):
					t.Errorf("%s: %d cases, %v", r.Name, r.Cases, r.Err)
				}
			}
		})
	}
}
