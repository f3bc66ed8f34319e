package simulate

import (
	"cmp"
	"fmt"
	"time"

	"github.com/gleaner-hpc/gleaner/policies"
	"github.com/gleaner-hpc/gleaner/simulate/trace"
)

// Config says what is asked for and what things take. Only Policies has no default.
type Config struct {
	Policies []Named
	Demand   Demand
	Seed     uint64
	// Round is how often the broker decides at most; 0: a second.
	Round time.Duration
	// Retry is how often it asks again for nodes on which a policy lends nothing; 0: half a minute, as slurmctld is read.
	Retry time.Duration
	// Startup is from the decision to a function's first instruction; 0: 100 ms, more than an executor without a parked sandbox takes.
	Startup time.Duration
	// DelayEvicting and DelayQuiet are what a job's start waits for the gate where executors go and where none do; 0: 15 ms and 4 ms,
	// the bounds of 'gleaner bench evict'.
	DelayEvicting, DelayQuiet time.Duration
	// Columns of the timeline; 0: 240.
	Columns int
}

// Named is a policy under the name that people know it by.
type Named struct {
	Name   string
	Policy policies.Policy
}

// Demand is what functions there are: an endless bag of one kind, or those of a second trace.
type Demand struct {
	Lengths Lengths
	Cores   int    // of one executor; 0: one
	Memory  uint64 // bytes of one executor; 0: 256 MiB
	// Trace, when given, is the demand: each of its jobs is a function that is asked for when the job was handed in. Its processors count as
	// the executor's cores. Lengths and Cores say nothing then.
	Trace *trace.Trace
}

func (c Config) defaults() Config {
	c.Round, c.Retry = cmp.Or(c.Round, time.Second), cmp.Or(c.Retry, 30*time.Second)
	c.Startup = cmp.Or(c.Startup, 100*time.Millisecond)
	c.DelayEvicting, c.DelayQuiet = cmp.Or(c.DelayEvicting, 15*time.Millisecond), cmp.Or(c.DelayQuiet, 4*time.Millisecond)
	c.Columns = cmp.Or(c.Columns, 240)
	c.Demand.Cores, c.Demand.Memory = cmp.Or(c.Demand.Cores, 1), cmp.Or(c.Demand.Memory, 256<<20)
	if c.Demand.Lengths == (Lengths{}) {
		c.Demand.Lengths = Lengths{Uniform, time.Second, time.Minute}
	}
	return c
}

func (c Config) check() error {
	switch {
	case len(c.Policies) == 0:
		return fmt.Errorf("no policy to simulate")
	case c.Demand.Cores < 0:
		return fmt.Errorf("functions of %d cores", c.Demand.Cores)
	case min(c.Round, c.Retry, c.Startup, c.DelayEvicting, c.DelayQuiet) < 0:
		return fmt.Errorf("times are not negative: %v, %v, %v, %v, %v", c.Round, c.Retry, c.Startup, c.DelayEvicting, c.DelayQuiet)
	case c.Columns < 0 || c.Columns > 100_000:
		return fmt.Errorf("%d columns of the timeline, want 100000 at most", c.Columns)
	}
	if c.Demand.Trace == nil {
		return c.Demand.Lengths.Check()
	}
	return nil
}
