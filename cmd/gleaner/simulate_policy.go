package main

import (
	"context"
	"fmt"
	"time"

	"github.com/gleaner-hpc/gleaner/policies"
	"github.com/gleaner-hpc/gleaner/simulate"
)

// answerTime is what a site's policy gets for one answer. Here nobody waits for it, so it is long: what is simulated is what it says.
const answerTime = 30 * time.Second

// sitePolicies starts the programs among the policies. What one of them answers wrongly ends the simulation by fail: a guard's built-in
// answers would be counted as its own. stop ends them.
func sitePolicies(ctx context.Context, fail context.CancelCauseFunc, named []simulate.Named) (stop func(), err error) {
	var stops []func()
	stop = func() {
		for _, s := range stops {
			s()
		}
	}
	for i := range named {
		n := &named[i]
		if n.Policy != nil {
			continue
		}
		p, end, err := startPolicy(ctx, n.Name)
		if err != nil {
			return stop, err
		}
		stops = append(stops, end)
		fallback := policies.Idle{} // until the simulation has noticed
		n.Policy = sitePolicy{ctx, p, fallback, func(call string, err error) { fail(fmt.Errorf("policy %s, %s: %w", n.Name, call, err)) }}
	}
	return stop, nil
}

// sitePolicy asks a program.
type sitePolicy struct {
	ctx      context.Context //nolint:containedctx // the contract of policies has none; it ends with the one run that it is made for
	policy   policies.Asked
	fallback policies.Policy
	failed   func(call string, err error)
}

func (s sitePolicy) Harvest(v policies.View) []policies.Offer {
	ctx, cancel := context.WithTimeout(s.ctx, answerTime)
	defer cancel()
	offers, err := s.policy.Harvest(ctx, v)
	if err == nil {
		err = policies.CheckOffers(v, offers)
	}
	if err != nil {
		s.failed("harvest", err)
		return s.fallback.Harvest(v)
	}
	return offers
}

func (s sitePolicy) Place(r policies.Request, offers []policies.Offer) []string {
	ctx, cancel := context.WithTimeout(s.ctx, answerTime)
	defer cancel()
	picks, err := s.policy.Place(ctx, r, offers)
	if err == nil {
		err = policies.CheckPicks(r, offers, picks)
	}
	if err != nil {
		s.failed("place", err)
		return s.fallback.Place(r, offers)
	}
	return picks
}

func (s sitePolicy) Evict(o policies.Overlap, executors []policies.Executor) []string {
	ctx, cancel := context.WithTimeout(s.ctx, answerTime)
	defer cancel()
	order, err := s.policy.Evict(ctx, o, executors)
	if err == nil {
		err = policies.CheckOrder(executors, order)
	}
	if err != nil {
		s.failed("evict", err)
		return s.fallback.Evict(o, executors)
	}
	return order
}
