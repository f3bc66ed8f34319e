// Package ledger says who holds each core, byte and GPU of one node: a Slurm job, an executor, the reserve, or nobody. It is pure:
// no clock, no file, no process; times are arguments. The agent's event loop is its only caller and asks it before anything is
// started and after anything is claimed.
//
// What it promises:
//   - Executors never share a core or a GPU, and what they hold never exceeds the node less its reserve. Parked sandboxes, which sleep,
//     count as free to leases and as harvested to jobs.
//   - Reserve never gives what a job holds. A claim is always accepted, whatever executors hold: Overlap then names those that have
//     to go, and Clear says whether they are gone.
//   - A job whose cores cannot be known holds every core and byte.
//   - Of a job's memory and GPUs only what Lend has set counts as free, never its cores, and nothing of a job that said no.
//
// An executor's life, as the ledger sees it:
//
//	         Reserve                 Condemn              Remove
//	nobody ──────────▶ holding ──────────────▶ condemned ────────▶ nobody
//	                      └──────────────────── Remove ──────────────▲
//
// A condemned executor still holds what it held: nothing is free before its sandbox is known to be gone.
package ledger

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gleaner-hpc/gleaner/agent/coreset"
)

// Config describes the node.
type Config struct {
	Cores         int    // abstract cores, numbered from 0
	Memory        uint64 // bytes, Slurm's RealMemory
	GPUs          int
	ReserveCores  int    // the highest-numbered ones, never lent; 0 means none
	ReserveMemory uint64 // bytes, never lent; 0 means none
	// Before orders executors for eviction when memory alone is short: those that go first come first. Nil means the policy's order (Rank), then youngest first.
	Before func(a, b *Executor) int
}

// Executor is what one sandbox holds.
type Executor struct {
	ID        string
	Lease     uint64
	Cores     coreset.Set
	Memory    uint64
	GPUs      coreset.Set
	Since     time.Time
	Condemned bool
	Parked    bool // waits for a lease, asleep
	Rank      int  // in the policy's order of eviction, from 1; 0 goes before all others
}

// Hold is what one Slurm job holds, from its claim to its release. A suspended job holds all of it: slurmctld counts its cores as idle
// and may give them to other jobs, but nobody on the node hears of its resumption before its processes run again.
type Hold struct {
	Job       uint32
	Cores     coreset.Set // abstract; empty with All
	All       bool        // its cores cannot be known: it holds everything
	CoreCount int         // for people, when All: how many cores it is said to have; 0 when unknown
	Memory    uint64      // bytes; capped at the node's
	GPUs      coreset.Set
	Since     time.Time
	Origin    Origin
	Share     Share // its own word; "" for none
}

// Origin says how the ledger learnt of a hold.
type Origin string

const (
	Gate       Origin = "gate"       // exact, from slurmstepd
	Prolog     Origin = "prolog"     // blunt claim, or GPUs of a warning
	Controller Origin = "controller" // from slurmctld through the broker
	Scan       Origin = "scan"       // found running on the node, claimed by nobody
)

// ErrNoRoom is wrapped by every refusal of Reserve that is for lack of resources.
var ErrNoRoom = errors.New("no room")

// ErrNotAdmitting is wrapped by refusals while the node admits nothing.
var ErrNotAdmitting = errors.New("admits nothing")

// Ledger holds the node's state. The zero value is not usable; see New.
type Ledger struct {
	cfg       Config
	lendable  coreset.Set // all cores less the reserve
	jobs      map[uint32]*Hold
	executors map[string]*Executor
	warned    map[uint32]time.Time // job → until when its warning stops admission
	released  map[uint32]time.Time // job → when it left; keeps late reports from bringing it back
	doubts    map[uint32]doubt     // jobs that slurmctld names and nobody has claimed
	blocked   map[string]string    // cause → why nothing is admitted
	loans     map[uint32]Loan      // job → what may be lent of its hold
	withheld  coreset.Set          // GPUs that cannot be lent
}

// New returns the ledger of a node on which nothing runs.
func New(cfg Config) (*Ledger, error) {
	switch {
	case cfg.Cores < 1 || cfg.Cores > coreset.Limit:
		return nil, fmt.Errorf("ledger: %d cores, want 1 to %d", cfg.Cores, coreset.Limit)
	case cfg.ReserveCores < 0 || cfg.ReserveCores > cfg.Cores:
		return nil, fmt.Errorf("ledger: %d of %d cores reserved", cfg.ReserveCores, cfg.Cores)
	case cfg.ReserveMemory > cfg.Memory:
		return nil, fmt.Errorf("ledger: %d of %d bytes reserved", cfg.ReserveMemory, cfg.Memory)
	case cfg.GPUs < 0 || cfg.GPUs > coreset.Limit:
		return nil, fmt.Errorf("ledger: %d GPUs", cfg.GPUs)
	}
	if cfg.Before == nil {
		cfg.Before = byRank
	}
	return &Ledger{
		cfg: cfg, lendable: coreset.Range(0, cfg.Cores-cfg.ReserveCores),
		jobs: map[uint32]*Hold{}, executors: map[string]*Executor{}, warned: map[uint32]time.Time{},
		released: map[uint32]time.Time{}, doubts: map[uint32]doubt{}, blocked: map[string]string{},
	}, nil
}

func byRank(a, b *Executor) int {
	if c := a.Rank - b.Rank; c != 0 {
		return c
	}
	return youngestFirst(a, b)
}

func youngestFirst(a, b *Executor) int {
	if c := b.Since.Compare(a.Since); c != 0 {
		return c
	}
	return strings.Compare(a.ID, b.ID)
}

// Need is what one executor asks for.
type Need struct {
	Cores  int
	Memory uint64
	GPUs   int
}

// Reserve gives an executor cores, memory and GPUs that nobody holds. It takes the highest-numbered, since Slurm fills a node from
// the lowest, so that a job that comes meets as few executors as can be.
func (l *Ledger) Reserve(id string, lease uint64, need Need, now time.Time) (Executor, error) {
	if _, known := l.executors[id]; known {
		return Executor{}, fmt.Errorf("executor %s runs here already", id)
	}
	if ok, why := l.Admitting(now); !ok {
		return Executor{}, fmt.Errorf("node %w: %s", ErrNotAdmitting, why)
	}
	cores, memory, gpus := l.free()
	if need.Cores < 1 || cores.Len() < need.Cores || memory < need.Memory || gpus.Len() < need.GPUs {
		return Executor{}, fmt.Errorf("%w: needs %d cores, %d bytes, %d GPUs; free are %d, %d, %d",
			ErrNoRoom, need.Cores, need.Memory, need.GPUs, cores.Len(), memory, gpus.Len())
	}
	e := &Executor{
		ID: id, Lease: lease, Since: now, Memory: need.Memory,
		Cores: cores.Highest(need.Cores), GPUs: gpus.Highest(need.GPUs),
	}
	l.executors[id] = e
	return *e, nil
}

// Park books a core and memory for a sandbox that waits for a lease. It is not in a lease's way: Reserve gives its core and memory to
// others, and Crowd then says whether it has to go. A job's claim meets it like any executor.
func (l *Ledger) Park(id string, memory uint64, now time.Time) (Executor, error) {
	if ok, why := l.Admitting(now); !ok {
		return Executor{}, fmt.Errorf("node %w: %s", ErrNotAdmitting, why)
	}
	cores, free, _ := l.free()
	if used := l.Parked().Memory + memory; cores.Empty() || free < used {
		return Executor{}, fmt.Errorf("%w: parking needs a core and %d bytes; free are %d, %d", ErrNoRoom, used, cores.Len(), free)
	}
	e := &Executor{ID: id, Since: now, Memory: memory, Cores: cores.Highest(1), Parked: true}
	l.executors[id] = e
	return *e, nil
}

// Crowd names the parked sandboxes whose memory Reserve has given away, youngest first.
func (l *Ledger) Crowd() []string {
	held := l.jobMemory() + l.cfg.ReserveMemory
	var waiting []*Executor
	for _, e := range l.executors {
		held += e.Memory
		if e.Parked && !e.Condemned {
			waiting = append(waiting, e)
		}
	}
	slices.SortFunc(waiting, youngestFirst)
	var ids []string
	for _, e := range waiting {
		if held <= l.cfg.Memory {
			break
		}
		ids = append(ids, e.ID)
		held -= e.Memory
	}
	return ids
}

// Adopt enters an executor that a predecessor of this agent started. It fails when another executor holds one of its cores or GPUs; a job's hold
// does not matter: Overlap names the executor then.
func (l *Ledger) Adopt(e Executor) error {
	if _, known := l.executors[e.ID]; known {
		return fmt.Errorf("adopt %s: known already", e.ID)
	}
	for _, other := range l.executors {
		if other.Cores.Overlaps(e.Cores) || other.GPUs.Overlaps(e.GPUs) {
			return fmt.Errorf("adopt %s: shares cores or GPUs with %s", e.ID, other.ID)
		}
	}
	if !e.Cores.Minus(l.lendable).Empty() {
		return fmt.Errorf("adopt %s: cores %s are not lent on this node", e.ID, e.Cores)
	}
	l.executors[e.ID] = &e
	return nil
}

// Condemn marks an executor that is being ended. It reports whether the executor is known and was not condemned before.
func (l *Ledger) Condemn(id string) bool {
	e, ok := l.executors[id]
	if !ok || e.Condemned {
		return false
	}
	e.Condemned = true
	return true
}

// Remove frees what an executor held; its sandbox is known to be gone.
func (l *Ledger) Remove(id string) { delete(l.executors, id) }

// Executor returns what an executor holds.
func (l *Ledger) Executor(id string) (Executor, bool) {
	e, ok := l.executors[id]
	if !ok {
		return Executor{}, false
	}
	return *e, true
}

// Executors lists all of them by id.
func (l *Ledger) Executors() []Executor {
	list := make([]Executor, 0, len(l.executors))
	for _, e := range l.executors {
		list = append(list, *e)
	}
	slices.SortFunc(list, func(a, b Executor) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// Withhold sets the GPUs that cannot be lent, whoever holds them: the node is as if they were not there.
func (l *Ledger) Withhold(gpus coreset.Set) { l.withheld = gpus.And(coreset.Range(0, l.cfg.GPUs)) }

// lendableGPUs are all but those.
func (l *Ledger) lendableGPUs() coreset.Set { return coreset.Range(0, l.cfg.GPUs).Minus(l.withheld) }

// Block stops admission for a cause of the caller's ("launcher is gone"); an empty why ends it.
func (l *Ledger) Block(cause, why string) {
	if why == "" {
		delete(l.blocked, cause)
		return
	}
	l.blocked[cause] = why
}

// Admitting says whether Reserve may succeed now, and if not, why.
func (l *Ledger) Admitting(now time.Time) (bool, string) {
	causes := make([]string, 0, len(l.blocked))
	for cause := range l.blocked {
		causes = append(causes, cause)
	}
	if len(causes) > 0 {
		return false, l.blocked[slices.Min(causes)]
	}
	for job, until := range l.warned {
		if now.Before(until) {
			return false, fmt.Sprintf("job %d is about to start", job)
		}
	}
	for job := range l.doubts {
		return false, fmt.Sprintf("job %d runs here and has not claimed its cores yet", job)
	}
	return true, ""
}

// NextChange returns the earliest time at which something changes without an event: a warning or a doubt that runs out. Zero
// means never.
func (l *Ledger) NextChange(now time.Time) time.Time {
	var next time.Time
	consider := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, until := range l.warned {
		consider(until)
	}
	for _, d := range l.doubts {
		consider(d.until)
	}
	return next
}
