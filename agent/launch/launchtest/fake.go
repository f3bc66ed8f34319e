// Package launchtest stands in for the launcher in tests: Fake keeps sandboxes in memory, and Conformance is the suite that the
// fake, the client and the real launcher all pass, so that what is tested against the fake holds for the real one.
package launchtest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

// Fake is a launcher without processes. Its zero value is not usable; see NewFake.
type Fake struct {
	exited chan launcher.Exited

	mu      sync.Mutex
	boxes   map[string]*launcher.Sandbox
	stuck   map[string]bool
	refusal error
	fixed   bool
	pid     int
	kills   [][]string
	shut    map[uint32]bool
}

// NewFake returns an empty fake. Up to 4096 exits wait to be read.
func NewFake() *Fake {
	return &Fake{
		exited: make(chan launcher.Exited, 4096), boxes: map[string]*launcher.Sandbox{}, stuck: map[string]bool{}, shut: map[uint32]bool{}, pid: 1 << 22,
	}
}

// Refuse makes every Start fail with err, until Refuse(nil).
func (f *Fake) Refuse(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refusal = err
}

// RefuseResize makes every Resize fail, or not.
func (f *Fake) RefuseResize(fixed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fixed = fixed
}

// Shut is what a job's gate does that uses force: all sandboxes end, and Start fails until Open.
func (f *Fake) Shut(job uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shut[job] = true
	for id := range f.boxes {
		f.remove(id, launcher.Exited{Code: -1, Signal: 9})
	}
}

// Open is the launcher's verb.
func (f *Fake) Open(_ context.Context, jobs ...uint32) ([]uint32, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, job := range jobs {
		delete(f.shut, job)
	}
	return slices.Sorted(maps.Keys(f.shut)), nil
}

// Stick makes Kill fail to end the sandbox: it stays until Unstick.
func (f *Fake) Stick(id string) { f.setStuck(id, true) }

// Unstick undoes Stick.
func (f *Fake) Unstick(id string) { f.setStuck(id, false) }

func (f *Fake) setStuck(id string, stuck bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stuck[id] = stuck
}

// Exit ends a sandbox as if its executor had exited by itself. It reports whether there was one.
func (f *Fake) Exit(id string, code int, oom bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.boxes[id] == nil {
		return false
	}
	end := launcher.Exited{Code: code, OOM: oom}
	if oom {
		end.Code, end.Signal = -1, 9
	}
	f.remove(id, end)
	return true
}

// Kills returns the ids of every Kill so far, one slice per call.
func (f *Fake) Kills() [][]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.kills)
}

// remove forgets a box and reports its end. f.mu is held.
func (f *Fake) remove(id string, end launcher.Exited) {
	end.ID, end.Started, end.Ended = id, f.boxes[id].Started, time.Now()
	delete(f.boxes, id)
	f.exited <- end
}

// Start is the launcher's verb.
func (f *Fake) Start(ctx context.Context, spec launcher.Spec) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case len(f.shut) > 0:
		return 0, launcher.ErrShut
	case f.refusal != nil:
		return 0, f.refusal
	case spec.ID == "":
		return 0, fmt.Errorf("id %q: empty", spec.ID)
	case spec.UID == 0 || spec.GID == 0:
		return 0, fmt.Errorf("uid %d, gid %d: root is refused", spec.UID, spec.GID)
	case spec.MilliCPUs < 10 || spec.MemoryBytes <= 0:
		return 0, fmt.Errorf("milli_cpus %d, memory_bytes %d: too small", spec.MilliCPUs, spec.MemoryBytes)
	case f.boxes[spec.ID] != nil:
		return 0, fmt.Errorf("sandbox %s exists already", spec.ID)
	}
	f.pid++
	f.boxes[spec.ID] = &launcher.Sandbox{ID: spec.ID, PID: f.pid, Running: true, Started: time.Now(), Spec: spec}
	return f.pid, nil
}

// Resize is the launcher's verb.
func (f *Fake) Resize(_ context.Context, spec launcher.Spec) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.boxes[spec.ID]
	switch {
	case b == nil:
		return fmt.Errorf("sandbox %s does not exist", spec.ID)
	case f.fixed:
		return fmt.Errorf("sandbox %s cannot be resized", spec.ID)
	case b.Spec.UID != spec.UID || b.Spec.GID != spec.GID:
		return fmt.Errorf("sandbox %s is another user's", spec.ID)
	}
	b.Spec, b.Started = spec, time.Now()
	return nil
}

// Kill is the launcher's verb.
func (f *Fake) Kill(ctx context.Context, ids ...string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() != nil {
		return ids, ctx.Err()
	}
	f.kills = append(f.kills, slices.Clone(ids))
	var remaining []string
	for _, id := range ids {
		switch {
		case f.boxes[id] == nil:
		case f.stuck[id]:
			remaining = append(remaining, id)
		default:
			f.remove(id, launcher.Exited{Code: -1, Signal: 9})
		}
	}
	return remaining, nil
}

// Freeze is the launcher's verb.
func (f *Fake) Freeze(_ context.Context, ids ...string) error { return f.setFrozen(true, ids) }

// Thaw is the launcher's verb.
func (f *Fake) Thaw(_ context.Context, ids ...string) error { return f.setFrozen(false, ids) }

func (f *Fake) setFrozen(frozen bool, ids []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		if b := f.boxes[id]; b != nil {
			b.Frozen = frozen
		} else {
			return fmt.Errorf("sandbox %s does not exist", id)
		}
	}
	return nil
}

// List is the launcher's verb.
func (f *Fake) List(ctx context.Context) ([]launcher.Sandbox, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []launcher.Sandbox
	for _, b := range f.boxes {
		all = append(all, *b)
	}
	slices.SortFunc(all, func(a, b launcher.Sandbox) int { return cmp.Compare(a.ID, b.ID) })
	return all, ctx.Err()
}

// Exited gives the ends of sandboxes.
func (f *Fake) Exited() <-chan launcher.Exited { return f.exited }
