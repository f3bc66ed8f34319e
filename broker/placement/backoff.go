package placement

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Cause is why a node is given a rest.
type Cause int

const (
	// Evicted rests the node for every lease: the next start would likely be evicted too.
	Evicted Cause = iota
	// Refused rests the node for every lease: its ledger knows more than we do.
	Refused
	// Failed rests the node for the one lease whose executor did not live.
	Failed
)

const (
	longest    = 30 * time.Second // a rest, where the site says nothing else
	remembered = time.Minute      // how long a policy is told to avoid a node, and after which a calm node starts anew
)

var first = map[Cause]time.Duration{Evicted: 500 * time.Millisecond, Refused: 100 * time.Millisecond, Failed: time.Second}

// Backoff remembers which nodes took an executor and did not keep it. Each further time in a row doubles the rest. A nil Backoff
// remembers nothing.
type Backoff struct {
	Longest time.Duration // a rest's; 0 means 30 s

	rests map[restKey]*rest
}

type restKey struct {
	lease uint64 // 0 for all
	node  string
}

type rest struct {
	last, until time.Time
	length      time.Duration
}

// NewBackoff remembers nothing yet.
func NewBackoff() *Backoff { return &Backoff{rests: map[restKey]*rest{}} }

// Note records that a node did not keep a lease's executor.
func (b *Backoff) Note(now time.Time, lease uint64, node string, cause Cause) {
	b.rest(now, restKey{lease, node}, cause, cause == Failed)
	if cause != Failed {
		b.rest(now, restKey{0, node}, cause, true)
	}
}

// rest notes the time; only a holding one forbids the node, the other is advice to the policy. Executors that go together (one
// claim evicts many) count once.
func (b *Backoff) rest(now time.Time, key restKey, cause Cause, holds bool) {
	r := b.rests[key]
	if r == nil {
		r = &rest{}
		b.rests[key] = r
	}
	together := now.Before(r.until)
	r.last = now
	if !holds || together {
		return
	}
	most := b.Longest
	if most == 0 {
		most = longest
	}
	r.length = min(max(2*r.length, first[cause]), most)
	r.until = now.Add(r.length)
}

// Forget drops what is older than a minute, and everything about leases that no longer live.
func (b *Backoff) Forget(now time.Time, lives func(lease uint64) bool) {
	for key, r := range b.rests {
		if now.Sub(r.last) > remembered && !now.Before(r.until) || key.lease != 0 && !lives(key.lease) {
			delete(b.rests, key)
		}
	}
}

// Next is when the first rest ends that has not ended yet; zero when there is none.
func (b *Backoff) Next(now time.Time) time.Time {
	var next time.Time
	for _, r := range b.rests {
		if now.Before(r.until) && (next.IsZero() || r.until.Before(next)) {
			next = r.until
		}
	}
	return next
}

// about calls do for each rest of a lease on one of the nodes; nil means on any.
func (b *Backoff) about(lease uint64, among map[string]int, do func(node string, r *rest)) {
	if among != nil && len(among) < len(b.rests) {
		for node := range among {
			if r := b.rests[restKey{lease, node}]; r != nil {
				do(node, r)
			}
		}
		return
	}
	for key, r := range b.rests {
		if _, asked := among[key.node]; key.lease == lease && (asked || among == nil) {
			do(key.node, r)
		}
	}
}

// held returns those of the nodes that must not be picked for a lease now; for lease 0, for any lease.
func (b *Backoff) held(now time.Time, lease uint64, among map[string]int) map[string]bool {
	if b == nil {
		return nil
	}
	var held map[string]bool
	b.about(lease, among, func(node string, r *rest) {
		if now.Before(r.until) {
			if held == nil {
				held = map[string]bool{}
			}
			held[node] = true
		}
	})
	return held
}

// recent returns those of the nodes on which a lease lost an executor in the last minute, the latest first.
func (b *Backoff) recent(now time.Time, lease uint64, among map[string]int) []string {
	if b == nil {
		return nil
	}
	type loss struct {
		node string
		last time.Time
	}
	var losses []loss
	b.about(lease, among, func(node string, r *rest) {
		if now.Sub(r.last) <= remembered {
			losses = append(losses, loss{node, r.last})
		}
	})
	slices.SortFunc(losses, func(x, y loss) int { return cmp.Or(y.last.Compare(x.last), strings.Compare(x.node, y.node)) })
	var recent []string
	for _, l := range losses {
		recent = append(recent, l.node)
	}
	return recent
}
