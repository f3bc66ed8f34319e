// Package neighbour measures what functions cost a job beside which they run: a host's program that presses on one part of the machine
// does a fixed amount of work, in turns with functions running and without, and the ratio of the two times is the slowdown. Host and
// functions come in the same five kinds (loads/kinds.h), so that a table of both says which pairs disturb each other. It is called by
// 'gleaner bench neighbour'; the host's program is started by srun, so that it is a Slurm job like any other.
package neighbour

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gleaner-hpc/gleaner/bench"
	"github.com/gleaner-hpc/gleaner/bench/program"
)

// Schema is the version of the document.
const Schema = "gleaner.bench.neighbour/1"

// Kinds of work, numbered as in loads/kinds.h.
var Kinds = []string{"compute", "bandwidth", "cache", "memory", "io"}

// Config says what is measured.
type Config struct {
	Policy    string   // name of the broker's policy, for the document
	Host      []string // command that starts the host's program, to which KIND and MILLISECONDS are added
	Hosts     []string // kinds
	Functions []string // kinds
	Pairs     int
	Work      time.Duration // of the host in each run, alone
	Slice     time.Duration // of one invocation
	Invoke    func(ctx context.Context, input []byte) ([]byte, error)
	Executors func() int    // that serve now
	Load      int           // invocations at a time
	Patience  time.Duration // for the first invocation of a cell to end, before the host is measured without
	Progress  func(string)
}

// Cell is one pair of kinds.
type Cell struct {
	Host     string         `json:"host"`
	Function string         `json:"function"`
	Pairs    int            `json:"pairs"`
	Slowdown bench.Interval `json:"slowdown"` // of the host: 0.02 is 2 % slower
	Bound    float64        `json:"bound"`
	Within   bool           `json:"within"` // the median is
	Told     bool           `json:"told"`   // the whole interval lies on one side of the bound; else the machine was too restless for so few pairs
	Calls    int            `json:"invocations"`
	Units    uint64         `json:"function_units"` // of work that functions did meanwhile
	Least    int            `json:"fewest_executors"`
	With     []float64      `json:"with_ms"`
	Without  []float64      `json:"without_ms"`
}

// Result is the document.
type Result struct {
	Schema  string        `json:"schema"`
	Time    time.Time     `json:"time"`
	Policy  string        `json:"policy"`
	Machine bench.Machine `json:"machine"`
	Cells   []Cell        `json:"cells"`
}

// laterPatience is how long a turn waits for the first invocation to end once one has waited in vain. Invocations that begin later count too.
const laterPatience = 250 * time.Millisecond

// bound of a host's slowdown under a policy that watches it.
func bound(host string) float64 {
	if host == "compute" {
		return 0.01
	}
	return 0.02
}

// Run measures. What has been measured when an error ends the run is in the result.
func Run(ctx context.Context, c Config) (*Result, error) {
	r := &Result{Schema: Schema, Time: time.Now().UTC(), Policy: c.Policy}
	defer func() { r.Machine = bench.Here() }()
	for _, kind := range c.Hosts {
		h, err := startHost(ctx, c, kind)
		if err != nil {
			return r, err
		}
		for _, function := range c.Functions {
			c.Progress(fmt.Sprintf("host %s beside function %s, %d pairs", kind, function, c.Pairs))
			cell, err := c.cell(ctx, h, kind, function)
			if err != nil {
				return r, errors.Join(err, h.End())
			}
			r.Cells = append(r.Cells, cell)
		}
		if err := h.End(); err != nil {
			return r, err
		}
	}
	return r, nil
}

// cell measures pairs; every other one begins with the functions, so that a drift of the machine falls on both.
func (c Config) cell(ctx context.Context, h *host, kind, function string) (Cell, error) {
	cell := Cell{Host: kind, Function: function, Bound: bound(kind), Least: c.Executors()}
	var ratios []float64
	for pair := range c.Pairs {
		var took [2]time.Duration // without, with
		for turn := range 2 {
			with := (pair + turn) % 2
			var err error
			if with == 1 {
				took[1], err = c.beside(ctx, h, function, &cell)
			} else {
				took[0], err = h.run()
			}
			if err != nil {
				return cell, err
			}
		}
		cell.Without, cell.With = append(cell.Without, bench.Milliseconds(took[0])), append(cell.With, bench.Milliseconds(took[1]))
		ratios = append(ratios, float64(took[1])/float64(took[0])-1)
	}
	cell.Pairs, cell.Slowdown = c.Pairs, bench.MedianInterval(ratios)
	cell.Within = cell.Slowdown.Median <= cell.Bound
	cell.Told = cell.Slowdown.High <= cell.Bound || cell.Slowdown.Low > cell.Bound
	return cell, nil
}

// beside runs the host while functions run, from the first invocation's end on.
func (c Config) beside(ctx context.Context, h *host, function string, cell *Cell) (time.Duration, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	input := binary.LittleEndian.AppendUint32(nil, uint32(slices.Index(Kinds, function))) //nolint:gosec // a small number
	input = binary.LittleEndian.AppendUint32(input, uint32(c.Slice.Milliseconds()))       //nolint:gosec // a short time
	input = binary.LittleEndian.AppendUint64(input, 0)
	var calls, units atomic.Uint64
	var over atomic.Bool
	var callers sync.WaitGroup
	first, failed := make(chan struct{}, c.Load), make(chan error, c.Load)
	for range c.Load {
		callers.Go(func() {
			for !over.Load() {
				output, err := c.Invoke(ctx, input)
				if err == nil && len(output) != 8 {
					err = fmt.Errorf("function of kind %s cannot do its work in its sandbox", function)
				}
				if err != nil {
					failed <- err
					return
				}
				calls.Add(1)
				units.Add(binary.LittleEndian.Uint64(output))
				select {
				case first <- struct{}{}:
				default:
				}
			}
		})
	}
	patience := c.Patience
	if len(cell.With) > 0 && cell.Calls == 0 {
		patience = min(patience, laterPatience)
	}
	var took time.Duration
	var err error
	select {
	case <-first:
		took, err = h.run()
	case <-time.After(patience): // a policy that lends nothing beside this host is measured as it is
		took, err = h.run()
	case err = <-failed:
	}
	cell.Least = min(cell.Least, c.Executors())
	over.Store(true)
	if calls.Load() == 0 { // they wait for executors that do not come
		stop()
	}
	callers.Wait()
	cell.Calls, cell.Units = cell.Calls+int(calls.Load()), cell.Units+units.Load() //nolint:gosec // few
	if err == nil && calls.Load() > 0 {
		select {
		case err = <-failed:
		default:
		}
	}
	return took, err
}

// host is the program that runs.
type host struct{ *program.Program }

// startHost starts the program and waits until it knows its work.
func startHost(ctx context.Context, c Config, kind string) (*host, error) {
	p, _, err := program.Start(ctx, "the host's program", append(slices.Clone(c.Host), kind, strconv.FormatInt(c.Work.Milliseconds(), 10))...)
	if err != nil {
		return nil, err
	}
	h := &host{p}
	if _, err := h.run(); err != nil { // the first run warms up
		return nil, errors.Join(err, h.End())
	}
	return h, nil
}

// run has the program do its work once; it measures by its own clock.
func (h *host) run() (time.Duration, error) {
	answer, err := h.Ask("run")
	if err != nil {
		return 0, err
	}
	ns, err := strconv.ParseInt(answer, 10, 64)
	if err != nil || ns < 1 {
		return 0, fmt.Errorf("the host's program says %q, want nanoseconds", answer)
	}
	return time.Duration(ns), nil
}
