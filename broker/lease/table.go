package lease

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gleaner-hpc/gleaner/api"
)

// Table holds the living leases. Each method is one step; its effects are collected until Take. It is not safe for concurrent use.
type Table struct {
	next      uint64
	leases    map[uint64]*Lease
	executors map[string]*Executor
	fx        Effects
}

// NewTable starts from what was saved: next is the lowest lease id never used. A living lease gets a whole ttl from now, because
// its holder could not renew while there was no broker.
func NewTable(now time.Time, next uint64, leases []*Lease, executors []*Executor) (*Table, error) {
	t := &Table{next: max(next, 1), leases: map[uint64]*Lease{}, executors: map[string]*Executor{}}
	for _, l := range leases {
		if !l.Ended.IsZero() || l.ID >= t.next {
			return nil, fmt.Errorf("lease %d: saved as living, but ended or numbered above the counter %d", l.ID, t.next)
		}
		l.Executors, l.ready = map[string]*Executor{}, 0
		if expires := now.Add(l.Request.TTL); expires.After(l.Expires) {
			l.Expires = expires
		}
		t.leases[l.ID] = l
	}
	for _, x := range executors {
		l := t.leases[x.Lease]
		if l == nil {
			return nil, fmt.Errorf("executor %s: saved without its lease", x.ID)
		}
		l.Executors[x.ID], t.executors[x.ID] = x, x
		if x.Ready {
			l.ready++
		}
	}
	return t, nil
}

// Take returns the effects of the steps since the last call.
func (t *Table) Take() Effects {
	fx := t.fx
	t.fx = Effects{}
	return fx
}

// Next is the lowest lease id never used.
func (t *Table) Next() uint64 { return t.next }

// Get returns a living lease, or nil.
func (t *Table) Get(id uint64) *Lease { return t.leases[id] }

// Executor returns an executor of a living lease, or nil.
func (t *Table) Executor(id string) *Executor { return t.executors[id] }

// Leases returns the living leases by id.
func (t *Table) Leases() []*Lease {
	return slices.SortedFunc(maps.Values(t.leases), func(a, b *Lease) int { return cmp.Compare(a.ID, b.ID) })
}

// Counts returns how many leases live and how many executors they have.
func (t *Table) Counts() (leases, executors int) { return len(t.leases), len(t.executors) }

// NotYetKnown is why a lease waits until placement has said why.
const NotYetKnown = "waits for room"

// Acquire admits a lease. Whether it may be admitted has been decided before.
func (t *Table) Acquire(now time.Time, r Request) *Lease {
	l := &Lease{
		ID: t.next, Request: r, Created: now, Expires: now.Add(r.TTL),
		Detail: NotYetKnown, Executors: map[string]*Executor{},
	}
	t.next++
	t.leases[l.ID] = l
	t.changed(now, l)
	return l
}

// Renew moves the expiry to now + ttl, never back. It is not saved: see NewTable.
func (t *Table) Renew(now time.Time, id uint64) error {
	l := t.leases[id]
	if l == nil {
		return ErrUnknown
	}
	if expires := now.Add(l.Request.TTL); expires.After(l.Expires) {
		l.Expires = expires
	}
	return nil
}

// End ends a lease and stops its executors. An unknown or ended one is left alone.
func (t *Table) End(now time.Time, id uint64, reason api.EndReason, detail string) {
	l := t.leases[id]
	if l == nil {
		return
	}
	l.Ended, l.Reason, l.Detail = now, reason, detail
	for _, x := range l.sorted() {
		t.fx.Stops = append(t.fx.Stops, Stop{x.Node, x.ID, reason})
		t.leave(now, l, x, reason, detail)
	}
	delete(t.leases, id)
	t.changed(now, l)
}

// Place adds a starting executor on a node. It returns nil for a lease that has ended or misses none.
func (t *Table) Place(now time.Time, id uint64, node string) *Executor {
	l := t.leases[id]
	if l == nil || l.Missing() == 0 {
		return nil
	}
	l.Epoch++
	l.Last++
	x := &Executor{ID: executorID(l.ID, l.Last), Lease: l.ID, Node: node, Epoch: l.Epoch, Placed: now}
	l.Executors[x.ID], t.executors[x.ID] = x, x
	t.fx.saveLease(l)
	t.fx.saveExecutor(x.ID, x)
	t.fx.Starts = append(t.fx.Starts, x)
	return x
}

// Ready says that an executor listens on a node. One that is not expected there is stopped. Repeats change nothing.
func (t *Table) Ready(now time.Time, id, node, address, local string) bool {
	x := t.executors[id]
	if x == nil || x.Node != node {
		t.fx.Stops = append(t.fx.Stops, Stop{node, id, api.EndReason_STOPPED})
		return false
	}
	if x.Ready && x.Address == address && x.Local == local {
		return true
	}
	l := t.leases[x.Lease]
	if !x.Ready {
		l.ready++
	}
	x.Ready, x.Address, x.Local = true, address, local
	t.fx.saveExecutor(x.ID, x)
	t.fx.Events = append(t.fx.Events, Event{Kind: Joined, Time: now, Lease: l, Executor: *x})
	if l.ready == 1 || l.Missing() == 0 && l.Detail != "" {
		l.Detail = ""
		t.changed(now, l)
	}
	return true
}

// Found says what an executor runs in.
func (t *Table) Found(id, imageDigest string) {
	x := t.executors[id]
	if x == nil || imageDigest == "" {
		return
	}
	if l := t.leases[x.Lease]; l.ImageDigest != imageDigest {
		l.ImageDigest = imageDigest
		t.fx.saveLease(l)
	}
}

// Gone says that an executor is no more. It returns false when that was known.
func (t *Table) Gone(now time.Time, id, node string, reason api.EndReason, detail string) bool {
	x := t.executors[id]
	if x == nil || x.Node != node {
		return false
	}
	l := t.leases[x.Lease]
	active := l.ready > 0
	if reason == api.EndReason_EVICTED {
		l.Evictions++
	}
	t.leave(now, l, x, reason, detail)
	t.fx.saveLease(l)
	if active && l.ready == 0 {
		l.Detail = NotYetKnown
		t.changed(now, l)
	}
	return true
}

// NodeGone says that every executor of a node is lost.
func (t *Table) NodeGone(now time.Time, node string, reason api.EndReason, detail string) {
	for _, id := range t.OnNode(node) {
		t.Gone(now, id, node, reason, detail)
	}
}

// OnNode returns the ids of a node's executors, sorted by placing.
func (t *Table) OnNode(node string) []string {
	var on []*Executor
	for _, x := range t.executors {
		if x.Node == node {
			on = append(on, x)
		}
	}
	slices.SortFunc(on, byAge)
	ids := make([]string, len(on))
	for i, x := range on {
		ids[i] = x.ID
	}
	return ids
}

// JobEnded ends the leases that belong to a Slurm job.
func (t *Table) JobEnded(now time.Time, job uint32) {
	for _, l := range t.Leases() {
		if l.Request.Job == job && job != 0 {
			t.End(now, l.ID, api.EndReason_JOB_ENDED, fmt.Sprintf("Slurm job %d is over", job))
		}
	}
}

// Waiting notes why a lease does not get what it misses.
func (t *Table) Waiting(now time.Time, id uint64, why string) {
	if l := t.leases[id]; l != nil && l.Detail != why {
		l.Detail = why
		t.changed(now, l)
	}
}

// Tick ends what has expired.
func (t *Table) Tick(now time.Time) {
	for _, l := range t.Leases() {
		if !now.Before(l.Expires) {
			t.End(now, l.ID, api.EndReason_EXPIRED, fmt.Sprintf("not renewed for %s", l.Request.TTL))
		}
	}
}

func (t *Table) leave(now time.Time, l *Lease, x *Executor, reason api.EndReason, detail string) {
	l.Epoch++
	if x.Ready {
		l.ready--
	}
	delete(l.Executors, x.ID)
	delete(t.executors, x.ID)
	t.fx.saveExecutor(x.ID, nil)
	t.fx.Events = append(t.fx.Events, Event{
		Kind: Left, Time: now, Lease: l, Executor: *x, Reason: reason, Detail: detail, WasReady: x.Ready,
	})
}

func (t *Table) changed(now time.Time, l *Lease) {
	t.fx.saveLease(l)
	t.fx.Events = append(t.fx.Events, Event{Kind: Changed, Time: now, Lease: l, Reason: l.Reason, Detail: l.Detail})
}

func (l *Lease) sorted() []*Executor { return slices.SortedFunc(maps.Values(l.Executors), byAge) }

// byAge orders executors by lease and placing.
func byAge(a, b *Executor) int {
	return cmp.Or(cmp.Compare(a.Lease, b.Lease), cmp.Compare(a.Epoch, b.Epoch))
}
