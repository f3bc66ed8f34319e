package policies

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Learner finds out which functions disturb which kinds of jobs, from the nodes' states as they come. It is pure: time is an argument.
//
// For each kind of job it counts how often the jobs of that kind stalled with nothing harvested beside them, and for each function how
// often with it. A pair's share is the difference. It counts after EnoughSeen states and fades by half each hour without the pair, so
// that what was learnt wrongly, from another function on the same node, is tried again.
type Learner struct {
	kinds map[string]*tally
	pairs map[pair]*tally
}

type pair struct{ kind, function string }

// tally counts states in which jobs stalled.
type tally struct {
	stalled, seen float64
	last          time.Time
}

const (
	// EnoughSeen states of a pair are needed before it counts.
	EnoughSeen = 5
	halfLife   = time.Hour
	maxSeen    = 600 // older states weigh less than newer ones
	maxPairs   = 4096
)

// NewLearner knows nothing.
func NewLearner() *Learner {
	return &Learner{kinds: map[string]*tally{}, pairs: map[pair]*tally{}}
}

// Note takes one state of a node. A state in which nobody sees what jobs feel says nothing, either way.
func (l *Learner) Note(now time.Time, n *Node) {
	if len(n.Jobs) == 0 || n.Stalls.Awaited || blind(n) {
		return
	}
	stalled := exceeds(n, Pressure{}.limits(Stalls{}, DefaultAdmit)) != ""
	functions := map[string]bool{}
	for i := range n.Executors {
		functions[n.Executors[i].Function] = true
	}
	kinds := map[string]bool{}
	for i := range n.Jobs {
		kinds[n.Jobs[i].Kind] = true
	}
	for kind := range kinds {
		if len(functions) == 0 {
			note(l.kinds, kind, now, stalled)
		}
		for function := range functions {
			note(l.pairs, pair{kind, function}, now, stalled)
		}
	}
	l.bound()
}

func note[K comparable](tallies map[K]*tally, key K, now time.Time, stalled bool) {
	t := tallies[key]
	if t == nil {
		t = &tally{}
		tallies[key] = t
	}
	if t.seen >= maxSeen {
		t.seen, t.stalled = t.seen/2, t.stalled/2
	}
	t.seen++
	if stalled {
		t.stalled++
	}
	t.last = now
}

// bound forgets the pairs and kinds seen longest ago.
func (l *Learner) bound() {
	forget(l.pairs, maxPairs)
	forget(l.kinds, maxPairs)
}

func forget[K comparable](tallies map[K]*tally, most int) {
	if len(tallies) <= most {
		return
	}
	seen := make([]time.Time, 0, len(tallies))
	for _, t := range tallies {
		seen = append(seen, t.last)
	}
	slices.SortFunc(seen, time.Time.Compare)
	limit := seen[len(seen)/2]
	for key, t := range tallies {
		if t.last.Before(limit) {
			delete(tallies, key)
		}
	}
}

// Clashes returns what it knows, the worst first.
func (l *Learner) Clashes(now time.Time) []Clash {
	var clashes []Clash
	for p, t := range l.pairs {
		if t.seen < EnoughSeen {
			continue
		}
		share := t.stalled / t.seen
		if alone := l.kinds[p.kind]; alone != nil && alone.seen > 0 {
			share -= alone.stalled / alone.seen
		}
		share *= math.Exp2(-now.Sub(t.last).Hours() / halfLife.Hours())
		if share >= clashFrom {
			clashes = append(clashes, Clash{Kind: p.kind, Function: p.function, Share: share})
		}
	}
	slices.SortFunc(clashes, func(a, b Clash) int {
		return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Function, b.Function))
	})
	return clashes
}
