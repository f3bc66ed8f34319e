package simulate

import (
	"cmp"
	"slices"
	"time"

	"github.com/gleaner-hpc/gleaner/broker/placement"
	"github.com/gleaner-hpc/gleaner/policies"
)

// endless is how many executors a bag wants that never ends: more than any machine has.
const endless = 1 << 30

// task is one function of a second trace.
type task struct {
	arrive, length time.Duration
}

// bag holds functions of one size that wait. Its lease is its index plus one.
type bag struct {
	each    policies.Resources
	held    int
	waiting []int32 // tasks, the next one last in first out of their arrival; nil for an endless bag
}

// demand is what waits.
type demand struct {
	endless bool
	said    time.Duration // the length that users give
	bags    []bag
	tasks   []task
	sizes   []int32 // task → bag
	next    int     // task that arrives next
}

func newDemand(d Demand) *demand {
	if d.Trace == nil {
		return &demand{
			endless: true, said: d.Lengths.said(),
			bags: []bag{{each: policies.Resources{Cores: d.Cores, MemoryBytes: d.Memory}}},
		}
	}
	w := &demand{}
	byCores := map[int]int32{}
	jobs := slices.Clone(d.Trace.Jobs)
	slices.SortStableFunc(jobs, func(a, b simJob) int { return cmp.Compare(a.Submit, b.Submit) })
	for i := range jobs {
		j := &jobs[i]
		cores := max(1, j.Cores)
		size, known := byCores[cores]
		if !known {
			size = int32(len(w.bags))
			byCores[cores] = size
			w.bags = append(w.bags, bag{each: policies.Resources{Cores: cores, MemoryBytes: d.Memory}})
		}
		w.tasks = append(w.tasks, task{j.Submit, j.End - j.Start})
		w.sizes = append(w.sizes, size)
		w.said = max(w.said, j.End-j.Start)
	}
	return w
}

// arrived takes in what has been asked for up to a time, and says whether anything was.
func (d *demand) arrived(now time.Duration) bool {
	before := d.next
	for d.next < len(d.tasks) && d.tasks[d.next].arrive <= now {
		b := &d.bags[d.sizes[d.next]]
		b.waiting = append(b.waiting, int32(d.next))
		d.next++
	}
	return d.next > before
}

// needs is what the broker's placement is asked for.
func (d *demand) needs() []placement.Need {
	var needs []placement.Need
	for i := range d.bags {
		b := &d.bags[i]
		missing := len(b.waiting)
		if d.endless {
			missing = endless
		}
		if missing > 0 {
			needs = append(needs, placement.Need{
				Request: policies.Request{Lease: uint64(i) + 1, Function: "function", Length: d.said, Executors: missing, Each: b.each}, Held: b.held,
			})
		}
	}
	return needs
}

// take hands a waiting task of a lease to an executor; -1 from an endless bag.
func (d *demand) take(lease uint64) int32 {
	b := &d.bags[lease-1]
	b.held++
	if d.endless {
		return -1
	}
	first := b.waiting[0]
	b.waiting = b.waiting[1:]
	return first
}

// back is told when an executor has ended; a task that had not finished waits again, before all others.
func (d *demand) back(lease uint64, task int32, finished bool) {
	b := &d.bags[lease-1]
	b.held--
	if task >= 0 && !finished {
		b.waiting = append([]int32{task}, b.waiting...)
	}
}

// wanted says whether anything waits that has the size or less.
func (d *demand) wanted(free policies.Resources) bool {
	for i := range d.bags {
		if b := &d.bags[i]; (d.endless || len(b.waiting) > 0) && free.Fits(b.each) {
			return true
		}
	}
	return false
}

// left counts the tasks that never ran to their end.
func (d *demand) left() int {
	n := len(d.tasks) - d.next
	for i := range d.bags {
		n += len(d.bags[i].waiting) + d.bags[i].held
	}
	return n
}
