package faults

import (
	"math/rand/v2"
	"time"
)

// Fault is one thing that breaks.
type Fault struct {
	Kind  string        // what breaks and how, such as "kill agentd"
	Node  int           // index of the node that is looked at first, for kinds that have one
	Hosts bool          // take the first node from there that hosts executors
	After time.Duration // pause before it
	For   time.Duration // how long it lasts
	Step  time.Duration // for clocks
}

// Kinds are all kinds of faults. The first word says how, the second what.
var Kinds = []string{
	"kill agentd", "kill launch", "kill brokerd", "kill executors", "kill workers", "kill slurmd", "kill slurmctld", "kill slurmrestd",
	"stop agentd", "stop launch", "stop brokerd", "stop executors", "stop workers", "stop slurmd", "stop slurmctld", "stop slurmrestd",
	"fill agentd", "fill brokerd", "unlink agentd", "unlink launch", "unlink executors", "step agentd", "step brokerd", "starve agentd",
}

// Plan draws faults. Each kind comes once before any comes again.
func Plan(seed uint64, count int, kinds []string) []Fault {
	random := rand.New(rand.NewPCG(seed, 0))
	var plan []Fault
	var deck []int
	for len(plan) < count && len(kinds) > 0 {
		if len(deck) == 0 {
			deck = random.Perm(len(kinds))
		}
		f := Fault{
			Kind: kinds[deck[0]], Node: random.IntN(nodes), Hosts: random.IntN(4) > 0,
			After: between(random, 0, 600*time.Millisecond), For: between(random, 20*time.Millisecond, 1800*time.Millisecond),
		}
		f.Step = between(random, time.Second, 2*time.Hour)
		if random.IntN(2) == 0 {
			f.Step = -f.Step
		}
		plan, deck = append(plan, f), deck[1:]
	}
	return plan
}

// between draws a time, short ones more often than long ones.
func between(random *rand.Rand, low, high time.Duration) time.Duration {
	x := random.Float64()
	return low + time.Duration(x*x*float64(high-low))
}
