// Package lease is the state machine of leases: who holds which executors, until when, and why one went. It is pure: time is an
// argument, and what is to be done (start, stop, tell, save) comes back as Effects. The broker's loop is its only caller.
//
// A lease:
//
//	             an executor is ready
//	          ┌────────────────────────▶ ┐
//	Acquire ▶ Pending                     Active
//	          └ ◀────────────────────────┘
//	          │  the last ready one went  │
//	          └──────────┬────────────────┘
//	                     ▼  release, expiry, end of its job, an operator
//	                   Ended      for good: the id is never used again, and the table forgets it
//
// An executor:
//
//	Place ▶ Starting ──Ready──▶ Ready ──▶ gone: evicted, failed, refused, node lost, or its lease ended
//	            └──────────────────────────▲
//
// Each joining and each leaving of an executor raises the lease's epoch, and an executor carries the epoch at which it joined. Its
// id is "<lease>-<n>", where n only grows, so that neither an id nor an epoch means two things.
package lease

import (
	"errors"
	"fmt"
	"time"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/policies"
)

// ErrUnknown is returned for a lease that does not exist or has ended.
var ErrUnknown = errors.New("no such lease, or it has ended")

// Function is what a lease's executors serve.
type Function struct {
	Symbol    string `json:"symbol"`
	Digest    []byte `json:"digest"`
	SizeBytes uint64 `json:"size_bytes"`
	Name      string `json:"name,omitempty"`
}

// Request is what a holder asked for, with every default filled in.
type Request struct {
	UID         uint32             `json:"uid"`
	GID         uint32             `json:"gid"`
	User        string             `json:"user,omitempty"`
	Groups      []string           `json:"groups,omitempty"` // as they were when it was admitted, if a rule asked for them
	Account     string             `json:"account,omitempty"`
	Checked     bool               `json:"checked,omitempty"` // the account is that of its Slurm job
	Job         uint32             `json:"job,omitempty"`     // 0 for none
	Executors   int                `json:"executors"`         // wanted at the same time
	Each        policies.Resources `json:"each"`
	Function    Function           `json:"function"`
	TTL         time.Duration      `json:"ttl"`
	BufferBytes uint64             `json:"buffer_bytes"`
	Binds       []Bind             `json:"binds,omitempty"`
	Network     bool               `json:"network,omitempty"`
	Length      time.Duration      `json:"length,omitempty"` // of one invocation; 0: not known
	Image       string             `json:"image,omitempty"`  // "": the node's own libraries
}

// Bind shows files of the holder's at a place in the sandbox.
type Bind struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	Writable bool   `json:"writable,omitempty"`
}

// Lease is one lease. Callers read it and never change it.
type Lease struct {
	ID        uint64        `json:"id"`
	Request   Request       `json:"request"`
	Created   time.Time     `json:"created"`
	Expires   time.Time     `json:"expires"`
	Ended     time.Time     `json:"ended,omitzero"`
	Reason    api.EndReason `json:"reason,omitempty"`
	Detail    string        `json:"detail,omitempty"` // why it waits, or how it ended
	Epoch     uint64        `json:"epoch"`
	Evictions uint32        `json:"evictions,omitempty"`
	Last      uint64        `json:"last"`           // n of the executor placed last
	Spin      time.Duration `json:"spin,omitempty"` // that executors which have ended polled without serving

	ImageDigest string `json:"image_digest,omitempty"` // of Request.Image, once an executor has found it

	Executors map[string]*Executor `json:"-"` // starting and ready ones
	ready     int
}

// Executor is one executor of a living lease.
type Executor struct {
	ID      string    `json:"id"`
	Lease   uint64    `json:"lease"`
	Node    string    `json:"node"`
	Epoch   uint64    `json:"epoch"`
	Placed  time.Time `json:"placed"`
	Ready   bool      `json:"ready,omitempty"`
	Address string    `json:"address,omitempty"`
	Local   string    `json:"local,omitempty"`
}

// State says where the lease stands.
func (l *Lease) State() api.LeaseState {
	switch {
	case !l.Ended.IsZero():
		return api.LeaseState_ENDED
	case l.ready > 0:
		return api.LeaseState_ACTIVE
	}
	return api.LeaseState_PENDING
}

// Missing is how many executors the lease still wants.
func (l *Lease) Missing() int { return max(0, l.Request.Executors-len(l.Executors)) }

// ReadyCount is how many executors can be connected to.
func (l *Lease) ReadyCount() int { return l.ready }

// Kind says what an Event is about.
type Kind int

const (
	// Changed: state, expiry or detail of the lease.
	Changed Kind = iota + 1
	// Joined: an executor may be connected to.
	Joined
	// Left: an executor is gone, or never came to be.
	Left
)

// Event is told to those who watch a lease, and kept as its history.
type Event struct {
	Kind     Kind
	Time     time.Time
	Lease    *Lease // as it is after the batch of effects
	Executor Executor
	Reason   api.EndReason
	Detail   string
	WasReady bool // Left: the executor had been announced
}

// Ending says that this is a lease's last event.
func (e *Event) Ending() bool { return e.Kind == Changed && e.Reason != 0 }

// Stop asks a node to end an executor.
type Stop struct {
	Node, ID string
	Reason   api.EndReason
}

// Effects is what has to be done after transitions, in this order: save, then start and stop, then tell.
type Effects struct {
	Leases  map[uint64]*Lease    // to save; an ended one for its history
	Changed map[string]*Executor // to save; nil means gone
	Starts  []*Executor
	Stops   []Stop
	Events  []Event
}

// Empty says that there is nothing to do.
func (fx *Effects) Empty() bool {
	return len(fx.Leases) == 0 && len(fx.Changed) == 0 && len(fx.Starts) == 0 && len(fx.Stops) == 0 && len(fx.Events) == 0
}

func (fx *Effects) saveLease(l *Lease) {
	if fx.Leases == nil {
		fx.Leases = map[uint64]*Lease{}
	}
	fx.Leases[l.ID] = l
}

func (fx *Effects) saveExecutor(id string, x *Executor) {
	if fx.Changed == nil {
		fx.Changed = map[string]*Executor{}
	}
	fx.Changed[id] = x
}

// executorID is never used twice, because n only grows.
func executorID(lease, n uint64) string { return fmt.Sprintf("%d-%d", lease, n) }
