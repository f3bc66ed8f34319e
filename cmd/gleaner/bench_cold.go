package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/bench"
	"github.com/gleaner-hpc/gleaner/client"
	"github.com/gleaner-hpc/gleaner/client/batch"
	"github.com/gleaner-hpc/gleaner/fabric"
)

// coldBounds are what a lease of one executor may take from its grant to its first result.
var coldBounds = map[bool]bench.Summary{true: {P50: 10, P99: 30}, false: {P50: 60}}

// coldResult is what 'bench cold' reports: leases whose executor was parked, and the others.
type coldResult struct {
	Carrier string        `json:"carrier"`
	Bytes   int           `json:"bytes"`
	Rows    []coldRow     `json:"rows"`
	Machine bench.Machine `json:"machine"`
}

type coldRow struct {
	What   string        `json:"what"`
	Parked bool          `json:"parked"`
	Step   bench.Summary `json:"measured"`
	Bound  float64       `json:"bound_p50_ms,omitempty"`
	Within bool          `json:"within"`
}

// coldRound is the life of one lease; times count from the grant.
type coldRound struct {
	parked                       bool
	acquire, ready, dial, result time.Duration
}

// coldProbe is a connector that notes when the executor was announced and connected to.
type coldProbe struct {
	carrier string

	mu              sync.Mutex
	ready, attached time.Time
	parked          bool
}

func (p *coldProbe) connect(ctx context.Context, e *api.Executor, f *client.Function, path client.Path) (client.Conn, error) {
	ready := time.Now()
	conn, err := fabric.Dial(ctx, fabric.Endpoint{Address: e.GetAddress(), Local: e.GetLocal(), Token: e.GetToken()},
		fabric.Code{Symbol: f.Symbol, Library: f.Library, Digest: f.Digest}, fabric.Options{Carrier: p.carrier, BufferBytes: path.Buffer, Spin: path.Spin})
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready, p.attached = ready, time.Now()
	p.parked = strings.Contains(e.GetLocal(), "/parked-") // a parked sandbox keeps its name
	return conn, nil
}

func (a *app) benchColdCommand() *cobra.Command {
	var f leaseFlags
	var out, function string
	probe := &coldProbe{}
	rounds, pause := 100, duration(time.Second)
	c := &cobra.Command{
		Use: "cold", Short: "Measure leases: from the grant to the first result, from parked sandboxes and from none", Args: cobra.NoArgs,
		Long: `Take a lease of one executor, run the function once on 64 bytes, and give the lease back, many times. The pause between two leases lets
nodes park another sandbox ([executor] parked in agent.toml); with --pause 0 most leases find none.`,
		Example: "  gleaner bench cold --rounds 100 -o cold.json",
		RunE: func(c *cobra.Command, _ []string) error {
			loaded, err := client.LoadFunction(function)
			if err != nil {
				return &exitError{exitUsage, err}
			}
			request, err := f.request(loaded, 1, 64, a.getenv)
			if err != nil {
				return err
			}
			if rounds < 1 {
				return usage("--rounds takes a positive number")
			}
			return a.benchCold(c.Context(), probe, request, rounds, time.Duration(pause), out)
		},
	}
	f.add(c.Flags(), a.getenv)
	c.Flags().StringVarP(&out, "out", "o", "", "file for the document with all figures")
	c.Flags().StringVar(&function, "function", installed("lib/gleaner/functions/echo.so"), "the function")
	c.Flags().StringVar(&probe.carrier, "carrier", "", "ring or ofi; \"\": the ring on the same node")
	c.Flags().IntVar(&rounds, "rounds", rounds, "leases, one after the other")
	c.Flags().Var(&pause, "pause", "between two leases")
	return c
}

func (a *app) benchCold(ctx context.Context, probe *coldProbe, request client.Request, count int, pause time.Duration, out string) error {
	a.connector = probe.connect
	broker, err := a.dial()
	if err != nil {
		return err
	}
	defer broker.Close()
	var rounds []coldRound
	for len(rounds) < count && err == nil {
		var r coldRound
		if r, err = coldLease(ctx, broker, probe, request); err == nil {
			rounds = append(rounds, r)
			err = wait(ctx, pause)
		}
	}
	if len(rounds) == 0 {
		return err
	}
	result := summarizeCold(rounds)
	result.Carrier, result.Bytes = probe.carrier, 64
	return a.deliver(out, coldListing(result), err)
}

// coldLease is one round.
func coldLease(ctx context.Context, broker *client.Client, probe *coldProbe, request client.Request) (coldRound, error) {
	begin := time.Now()
	lease, err := broker.Acquire(ctx, request)
	if err != nil {
		return coldRound{}, err
	}
	granted := time.Now()
	_, err = lease.Invoke(ctx, make([]byte, 64))
	done := time.Now()
	release, cancel := context.WithTimeout(context.WithoutCancel(ctx), batch.ReleaseTimeout)
	defer cancel()
	if e := lease.Release(release); err == nil {
		err = e
	}
	probe.mu.Lock()
	defer probe.mu.Unlock()
	return coldRound{
		parked: probe.parked, acquire: granted.Sub(begin), ready: probe.ready.Sub(granted), dial: probe.attached.Sub(probe.ready), result: done.Sub(granted),
	}, err
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func summarizeCold(rounds []coldRound) *coldResult {
	result := &coldResult{Machine: bench.Here()}
	for _, parked := range []bool{true, false} {
		var ready, dial, total []time.Duration
		for _, r := range rounds {
			if r.parked == parked {
				ready, dial, total = append(ready, r.ready), append(dial, r.dial), append(total, r.result)
			}
		}
		if len(total) == 0 {
			continue
		}
		for _, step := range []struct {
			what    string
			samples []time.Duration
		}{{"grant to executor ready", ready}, {"connect and send the code", dial}, {"grant to first result", total}} {
			row := coldRow{What: step.what, Parked: parked, Step: bench.Summarize(step.samples), Within: true}
			if bound := coldBounds[parked]; step.what == "grant to first result" {
				row.Bound = bound.P50
				row.Within = row.Step.P50 <= bound.P50 && (bound.P99 == 0 || row.Step.P99 <= bound.P99)
			}
			result.Rows = append(result.Rows, row)
		}
	}
	return result
}

func coldListing(r *coldResult) listing {
	l := listing{
		header:   []string{"sandbox", "what", "leases", "p50 ms", "p99 ms", "max ms", "bound p50", "within"},
		numeric:  map[int]bool{2: true, 3: true, 4: true, 5: true, 6: true},
		csvNames: []string{"sandbox", "what", "leases", "p50_ms", "p99_ms", "max_ms", "bound_p50_ms", "within"},
		document: r,
	}
	for _, x := range r.Rows {
		sandbox := "new"
		if x.Parked {
			sandbox = "parked"
		}
		l.rows = append(l.rows, []string{sandbox, x.What, fmt.Sprint(x.Step.Samples), ms(x.Step.P50), ms(x.Step.P99), ms(x.Step.Max), bound(x.Bound), yesNo(x.Within)})
	}
	return l
}
