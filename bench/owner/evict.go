// Package owner measures what a job's start costs on a node that lends: the gate's round trip with nothing and with much to evict,
// what force takes when the agent hangs, what an idle agent costs, what srun's user waits, and what a job feels that grows into memory
// which it has lent. It speaks the gate's own protocol and asks for executors as any client does; it runs as root on the node, whose
// executors it evicts. Each figure stands beside a baseline that was measured in turns with it. It is called by 'gleaner bench'.
package owner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/gleaner-hpc/gleaner/bench"
	"github.com/gleaner-hpc/gleaner/client"
)

// Schema is the version of the document that Evict makes.
const Schema = "gleaner.bench.evict/1"

// Config says what is measured, and where.
type Config struct {
	Client       *client.Client
	Resident     *client.Function // contrib/functions/resident.c
	Socket       string           // the agent's
	Node         string           // as slurm.conf names it
	CgroupParent string
	Hook         string   // program, for the agent that hangs; "" leaves that out
	Child        []string // this program, as it is asked for a Child

	Executors   int           // of one core each
	Bytes       uint64        // resident between them, in the scenario with memory
	Trips       int           // with nothing to evict
	Rounds      int           // of evictions
	Settle      time.Duration // that executors serve before they are evicted; a node that has just started them is busy still
	HungRounds  int           // with the agent stopped
	IdleTime    time.Duration // for which an idle agent is watched; 0 leaves that out
	AckDeadline time.Duration // the gate's first deadline
	Progress    io.Writer
}

// Scenario is one line of the result.
type Scenario struct {
	Name     string        `json:"name"`
	What     string        `json:"what"`
	Measured bench.Summary `json:"measured"`
	Acked    bench.Summary `json:"acknowledged"` // the gate's first deadline is against this
	Baseline bench.Summary `json:"baseline"`
	Against  string        `json:"baseline_is"`
	Ratio    float64       `json:"ratio_p50"`
	Bound    Bound         `json:"bound"`
	Within   bool          `json:"within"`
	Evicted  int           `json:"evicted"`         // in each round
	Resident uint64        `json:"resident_bytes"`  // between them
	Left     Left          `json:"left_at_answer"`  // the most in any round
	Samples  []float64     `json:"samples_ms"`      // in the order of the rounds
	BaseEach []float64     `json:"baseline_each"`   // ms, as many
	Freed    bool          `json:"freed_at_answer"` // no process and no memory was left in any round
}

// Bound is what the scenario may take at most; 0 for no bound.
type Bound struct {
	P50 float64 `json:"p50_ms,omitempty"`
	P99 float64 `json:"p99_ms,omitempty"`
	Max float64 `json:"max_ms,omitempty"`
}

func (b Bound) holds(s bench.Summary) bool {
	within := func(value, bound float64) bool { return bound == 0 || value <= bound }
	return within(s.P50, b.P50) && within(s.P99, b.P99) && within(s.Max, b.Max)
}

// Result is the document.
type Result struct {
	Schema    string        `json:"schema"`
	Time      time.Time     `json:"time"`
	Node      string        `json:"node"`
	Machine   bench.Machine `json:"machine"`
	Scenarios []Scenario    `json:"scenarios"`
	Idle      *Idle         `json:"idle_agent,omitempty"`
}

// Evict measures. What has been measured when an error ends the run is in the result.
func Evict(ctx context.Context, c Config) (*Result, error) {
	r := &Result{Schema: Schema, Time: time.Now().UTC(), Node: c.Node}
	defer func() { r.Machine = bench.Here() }()
	g := &gateway{socket: c.Socket, node: c.Node}
	if err := g.empty(); err != nil {
		return r, err
	}
	if c.IdleTime > 0 {
		c.say("an idle agent, %v", c.IdleTime)
		idle, err := watchAgent(ctx, c.Socket, c.IdleTime)
		if err != nil {
			return r, err
		}
		r.Idle = idle
	}
	steps := []func(context.Context, Config, *gateway) (*Scenario, error){nothing, small, large, hung}
	for _, step := range steps {
		s, err := step(ctx, c, g)
		if s != nil && s.Measured.Samples > 0 {
			r.Scenarios = append(r.Scenarios, *s)
		}
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

func (c Config) say(format string, args ...any) {
	if c.Progress != nil {
		fmt.Fprintf(c.Progress, "measuring: "+format+"\n", args...)
	}
}

// empty makes sure that the node harvests nothing for others, whose executors the measurement would evict.
func (g *gateway) empty() error {
	t, err := g.claim()
	if err != nil {
		return err
	}
	if err := g.release(); err != nil {
		return err
	}
	if t.evicted > 0 {
		return fmt.Errorf("the node lent to others: %d executors were evicted; measure on a node that lends to nobody", t.evicted)
	}
	return nil
}

func nothing(ctx context.Context, c Config, g *gateway) (*Scenario, error) {
	if c.Trips == 0 {
		return nil, nil
	}
	c.say("%d round trips with nothing to evict", c.Trips)
	s := &Scenario{
		Name: "nothing", What: "gate round trip, nothing to evict", Against: "a server that answers the same frames and does nothing",
		Bound: Bound{P50: 1, P99: 4},
	}
	dir, err := os.MkdirTemp("", "gleaner-bench")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	plain := &gateway{socket: filepath.Join(dir, "echo.sock")}
	server, err := spawn(c.Child, "echo", plain.socket)
	if err != nil {
		return nil, err
	}
	defer server.end()
	var samples series
	for range c.Trips {
		if err := ctx.Err(); err != nil {
			return s, err
		}
		base, err := plain.claim()
		if err != nil {
			return s, err
		}
		t, err := g.claim()
		if err != nil {
			return s, errors.Join(err, g.release())
		}
		samples.add(t, base.done)
		if err := g.release(); err != nil {
			return s, err
		}
	}
	s.finish(&samples)
	return s, nil
}

func small(ctx context.Context, c Config, g *gateway) (*Scenario, error) {
	return evictions(ctx, c, g, &Scenario{
		Name: "small", What: fmt.Sprintf("gate round trip, %d small executors evicted", c.Executors), Bound: Bound{P50: 6, P99: 15},
	})
}

func large(ctx context.Context, c Config, g *gateway) (*Scenario, error) {
	return evictions(ctx, c, g, &Scenario{
		Name: "resident", What: fmt.Sprintf("gate round trip, %d executors with %d MiB resident between them evicted", c.Executors, c.Bytes>>20),
		Resident: c.Bytes, Bound: Bound{P99: 60},
	})
}

// evictions measures rounds of: executors fill the node, a claim takes it, plain processes of the same size are killed.
func evictions(ctx context.Context, c Config, g *gateway, s *Scenario) (*Scenario, error) {
	if c.Rounds == 0 || s.Resident == 0 && s.Name == "resident" {
		return nil, nil
	}
	c.say("%d rounds: %s", c.Rounds, s.What)
	s.Against, s.Evicted = fmt.Sprintf("%d plain processes of the same size, from SIGKILL until the last is reaped", c.Executors), c.Executors
	var samples series
	defer s.finish(&samples)
	return s, c.harvested(ctx, s.Resident, c.Rounds, func() error {
		time.Sleep(c.Settle)
		t, err := g.claim()
		left := leftover(cgroupRoot, c.CgroupParent, c.Node)
		if err = errors.Join(err, g.release()); err != nil {
			return err
		}
		if t.evicted != c.Executors {
			return fmt.Errorf("%d executors serve, but the claim evicted %d: others lend too, or %s is not their node", c.Executors, t.evicted, c.Node)
		}
		base, err := plainKill(c.Child, c.Executors, s.Resident)
		if err != nil {
			return err
		}
		s.Left = s.Left.max(left)
		samples.add(t, base)
		return nil
	})
}

const cgroupRoot = "/sys/fs/cgroup"

// harvested does something a number of times to a node full of executors.
func (c Config) harvested(ctx context.Context, resident uint64, rounds int, act func() error) error {
	h, err := acquire(ctx, c.Client, c.Resident, c.Executors, resident)
	if err != nil {
		return err
	}
	for range rounds {
		if err = h.fill(ctx); err == nil {
			err = act()
		}
		if err != nil {
			break
		}
	}
	return errors.Join(err, h.release())
}

// series collects the samples of a scenario.
type series struct {
	done, acked, base []time.Duration
}

func (s *series) add(t trip, base time.Duration) {
	s.done, s.base = append(s.done, t.done), append(s.base, base)
	if t.acked > 0 {
		s.acked = append(s.acked, t.acked)
	}
}

func (s *Scenario) finish(samples *series) {
	s.Measured, s.Acked, s.Baseline = bench.Summarize(samples.done), bench.Summarize(samples.acked), bench.Summarize(samples.base)
	s.Ratio = bench.Ratio(s.Measured.P50, s.Baseline.P50)
	s.Freed = s.Left.Processes == 0 && s.Left.Bytes <= uint64(s.Evicted)<<20
	s.Within = s.Bound.holds(s.Measured) && s.Freed
	s.Samples, s.BaseEach = nil, nil
	for i := range samples.done {
		s.Samples = append(s.Samples, bench.Milliseconds(samples.done[i]))
		s.BaseEach = append(s.BaseEach, bench.Milliseconds(samples.base[i]))
	}
}
