package simulate

import (
	"time"

	"github.com/gleaner-hpc/gleaner/simulate/trace"
)

// amount is what of the machine is in which hands, in cores and bytes; over time, in core-seconds and byte-seconds.
type amount struct {
	cores, bytes float64
}

func (a *amount) add(b amount, times float64) {
	a.cores += b.cores * times
	a.bytes += b.bytes * times
}

// column is one stretch of the timeline.
type column struct {
	allocated, down, leased amount
	unused                  float64 // bytes of allocated that jobs do not touch, where that is known
}

// area sums over time what holds at each moment.
type area struct {
	total   amount
	span    time.Duration
	step    time.Duration
	now     time.Duration
	state   column
	columns []column
}

func newArea(t *trace.Trace, columns int) area {
	a := area{span: t.Span, step: max(time.Second, (t.Span+time.Duration(columns)-1)/time.Duration(columns))}
	a.columns = make([]column, int((t.Span+a.step-1)/a.step))
	for _, n := range t.Nodes {
		a.total.add(amount{float64(n.Cores), float64(n.Memory)}, 1)
	}
	return a
}

// until adds what has held since the last change.
func (a *area) until(now time.Duration) {
	for a.now < now {
		i := int(a.now / a.step)
		next := min(now, time.Duration(i+1)*a.step)
		seconds := (next - a.now).Seconds()
		c := &a.columns[i]
		c.allocated.add(a.state.allocated, seconds)
		c.down.add(a.state.down, seconds)
		c.leased.add(a.state.leased, seconds)
		c.unused += a.state.unused * seconds
		a.now = next
	}
}

// job enters what a job takes; negative cores are given back with their memory.
func (a *area) job(down bool, cores int, memory, used uint64) {
	sign := 1.0
	if cores < 0 {
		sign = -1
	}
	change := amount{float64(cores), sign * float64(memory)}
	if down {
		a.state.down.add(change, 1)
		return
	}
	a.state.allocated.add(change, 1)
	if used > 0 {
		a.state.unused += sign * float64(memory-min(memory, used))
	}
}

// leased enters what an executor takes, or gives back.
func (a *area) leased(cores int, bytes uint64) {
	sign := 1.0
	if cores < 0 {
		sign = -1
	}
	a.state.leased.add(amount{float64(cores), sign * float64(bytes)}, 1)
}

// into writes the sums.
func (a *area) into(o *Outcome) {
	var sum column
	for i := range a.columns {
		c := &a.columns[i]
		begin := time.Duration(i) * a.step
		seconds := (min(a.span, begin+a.step) - begin).Seconds()
		o.Timeline = append(o.Timeline, Column{
			Allocated: share(c.allocated.cores, a.total.cores*seconds), Down: share(c.down.cores, a.total.cores*seconds),
			Harvested: share(c.leased.cores, a.total.cores*seconds),
		})
		sum.allocated.add(c.allocated, 1)
		sum.down.add(c.down, 1)
		sum.leased.add(c.leased, 1)
		sum.unused += c.unused
	}
	reported := a.span.Seconds()
	o.CPU.Reported, o.Memory.Reported = a.total.cores*reported, a.total.bytes*reported
	o.CPU.Allocated, o.Memory.Allocated = sum.allocated.cores, sum.allocated.bytes
	o.CPU.Down, o.Memory.Down = sum.down.cores, sum.down.bytes
	o.CPU.Harvested, o.Memory.Harvested = sum.leased.cores, sum.leased.bytes
	o.Memory.UnusedInJobs = sum.unused
}

func share(part, whole float64) float64 {
	if whole <= 0 {
		return 0
	}
	return part / whole
}
