package invoke

import (
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gleaner-hpc/gleaner/bench"
	"github.com/gleaner-hpc/gleaner/fabric"
	"github.com/gleaner-hpc/gleaner/fabric/channel"
)

const (
	thinkTime   = 100 * time.Microsecond // as in bench/wire
	never       = time.Nanosecond        // a budget that ends at once
	warmUp      = 32                     // rounds that connect and touch every buffer
	floodDepth  = 16
	streamBytes = 1 << 20
	streamDepth = 4 // large slots of a connection with such buffers
	inPlace     = "Go in place"
)

// Run measures all that cfg asks for. What was measured before an error is returned with it.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	r := &Result{Schema: "gleaner-bench-invoke/2", Provider: cfg.Provider}
	var err error
	for _, carrier := range cfg.Carriers {
		for _, phase := range []string{"hot", "warm"} {
			if err == nil {
				err = r.phase(ctx, &cfg, carrier, phase)
			}
		}
	}
	r.Machine = bench.Here()
	return r, err
}

// setup is one executor with its callers, and the bare carrier.
type setup struct {
	executor *local
	bare, c  *program
	conn     *fabric.Conn
}

func (s *setup) close() {
	if s.conn != nil {
		_ = s.conn.Close()
	}
	for _, p := range []*program{s.bare, s.c} {
		if p != nil {
			p.stop()
		}
	}
	if s.executor != nil {
		s.executor.stop()
	}
}

func prepare(ctx context.Context, cfg *Config, carrier string, spin time.Duration) (*setup, error) {
	s := &setup{}
	bare := []string{"ring"}
	if carrier == "ofi" {
		bare = []string{"ofi", cfg.Provider, cfg.Host}
	}
	err := s.open(ctx, cfg, carrier, spin, bare)
	if err != nil {
		s.close()
		return nil, fmt.Errorf("prepare %s: %w", carrier, err)
	}
	return s, nil
}

func (s *setup) open(ctx context.Context, cfg *Config, carrier string, spin time.Duration, bare []string) error {
	var err error
	if s.bare, err = startProgram(ctx, cfg.Wire, bare...); err != nil {
		return err
	}
	if s.executor, err = startLocal(ctx, cfg); err != nil {
		return err
	}
	e := s.executor.endpoint
	if s.conn, err = fabric.Dial(ctx, e, s.executor.code, fabric.Options{Carrier: carrier, Provider: cfg.Provider, BufferBytes: bufferBytes, Spin: spin}); err != nil {
		return err
	}
	passport, err := s.executor.passport()
	if err != nil {
		return err
	}
	address, files, err := carried(ctx, e.Address, carrier)
	if err != nil {
		return err
	}
	defer closeAll(files)
	s.c, err = startProgramWith(ctx, files, cfg.Wire, "call", address, e.Local, carrier, cfg.Provider, passport, cfg.Function, "echo", strconv.FormatInt(int64(spin), 10), strconv.Itoa(bufferBytes))
	return err
}

// carried opens the protected connection for a C caller, as its descriptor 3, when it is to use libfabric.
func carried(ctx context.Context, address, carrier string) (string, []*os.File, error) {
	if carrier != "ofi" {
		return "", nil, nil
	}
	secure, err := channel.Open(ctx, address)
	if err != nil {
		return "", nil, err
	}
	host, _, _ := net.SplitHostPort(secure.LocalAddr().String())
	near, err := channel.Carry(secure)
	return "fd:3|" + host, []*os.File{near}, err
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// series gathers one measurement over all turns.
type series struct {
	samples []uint32
	turns   []float64 // what each gave: the p50, or the rate of a stream
	rate    float64   // of the best turn, per second
	allocs  float64
}

func (s *series) add(samples []uint32, rounds int, total time.Duration) {
	s.samples = append(s.samples, samples...)
	s.turns = append(s.turns, float64(times(samples).P50))
	s.rate = max(s.rate, perSecond(rounds, total))
}

func (s *series) stream(rate float64) {
	s.turns = append(s.turns, rate)
	s.rate = max(s.rate, rate)
}

func perSecond(rounds int, total time.Duration) float64 {
	return math.Round(float64(rounds) / total.Seconds())
}

// over compares turn by turn, as the machine's speed changes between them.
func (s *series) over(bare *series) float64 {
	var ratios []float64
	for i := range bare.turns {
		ratios = append(ratios, bench.Ratio(s.turns[i], bare.turns[i]))
	}
	return bench.MedianInterval(ratios).Median
}

func times(samples []uint32) Times {
	sorted := slices.Sorted(slices.Values(samples))
	if len(sorted) == 0 {
		return Times{}
	}
	at := func(q float64) uint32 { return sorted[max(int(math.Ceil(q*float64(len(sorted)))), 1)-1] }
	return Times{Samples: len(sorted), P50: at(0.5), P99: at(0.99), P999: at(0.999)}
}

// rounds gives larger payloads fewer round trips.
func rounds(most, bytes int) int { return max(most*64/max(64, bytes/16), 50) }

// sides are what is measured with one payload.
type sides struct{ bare, c, golang, place series }

// streams are what is measured with many in flight.
type streams struct{ many, c, bare series }

func (r *Result) phase(ctx context.Context, cfg *Config, carrier, phase string) error {
	mode, spin, most := modeSpin, cfg.Spin, cfg.Rounds
	if phase == "warm" {
		mode, spin, most = modeBlock, never, max(cfg.Rounds/10, 50)
	}
	bySize := make([]sides, len(cfg.Sizes))
	var flood streams
	turn := func() error {
		s, err := prepare(ctx, cfg, carrier, spin)
		if err != nil {
			return err
		}
		defer s.close()
		for i, size := range cfg.Sizes {
			if err := s.turn(ctx, job{size, warmUp, mode, 1}, &sides{}); err != nil {
				return fmt.Errorf("%d bytes: %w", size, err)
			}
			if err := s.turn(ctx, job{size, rounds(most, size), mode, 1}, &bySize[i]); err != nil {
				return fmt.Errorf("%d bytes: %w", size, err)
			}
		}
		if phase == "warm" {
			return nil
		}
		return s.flood(cfg, carrier, &flood)
	}
	for i := range cfg.Turns {
		if cfg.Progress != nil {
			cfg.Progress(fmt.Sprintf("%s, %s, turn %d of %d", carrier, phase, i+1, cfg.Turns))
		}
		if err := turn(); err != nil {
			return fmt.Errorf("%s, %s: %w", carrier, phase, err)
		}
	}
	for i, size := range cfg.Sizes {
		m := &bySize[i]
		r.pair(Row{Carrier: carrier, What: phase, Caller: "C", Bytes: size, InFlight: 1}, &m.c, &m.bare)
		r.pair(Row{Carrier: carrier, What: phase, Caller: "Go", Bytes: size, InFlight: 1, Allocs: m.golang.allocs}, &m.golang, &m.bare)
		r.pair(Row{Carrier: carrier, What: phase, Caller: inPlace, Bytes: size, InFlight: 1, Allocs: m.place.allocs}, &m.place, &m.bare)
	}
	if phase == "hot" {
		r.pair(Row{Carrier: carrier, What: "in-flight", Caller: "C", Bytes: 64, InFlight: floodDepth}, &flood.many, &series{})
		r.pair(Row{Carrier: carrier, What: "bandwidth", Caller: "C", Bytes: streamBytes, InFlight: streamDepth}, &flood.c, &flood.bare)
	}
	return nil
}

// turn measures bare, C and Go, with copies and in place, one after the other.
func (s *setup) turn(ctx context.Context, j job, to *sides) error {
	for _, m := range []struct {
		p  *program
		to *series
	}{{s.bare, &to.bare}, {s.c, &to.c}} {
		samples, total, err := m.p.run(j)
		if err != nil {
			return err
		}
		m.to.add(samples, j.rounds, total)
	}
	return onProcessor(false, func() error {
		input, result := make([]byte, j.bytes), make([]byte, j.bytes)
		err := fromGo(j, &to.golang, func() error { _, err := s.conn.Invoke(ctx, input, result, 0); return err })
		if err != nil {
			return err
		}
		b, err := s.conn.Borrow(ctx, j.bytes)
		if err != nil {
			return err
		}
		defer b.Release()
		clear(b.Args()[:j.bytes])
		return fromGo(j, &to.place, func() error { _, err := b.Invoke(ctx, j.bytes, j.bytes, 0); return err })
	})
}

// fromGo measures what call does.
func fromGo(j job, to *series, call func() error) error {
	samples := make([]uint32, 0, j.rounds)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	begin := time.Now()
	last := time.Duration(0)
	for range j.rounds {
		if j.mode == modeBlock {
			time.Sleep(thinkTime)
			last = time.Since(begin)
		}
		if err := call(); err != nil {
			return err
		}
		end := time.Since(begin)
		samples = append(samples, uint32(min(end-last, math.MaxUint32)))
		last = end
	}
	runtime.ReadMemStats(&after)
	to.allocs = math.Floor(float64(after.Mallocs-before.Mallocs) / float64(j.rounds))
	to.add(samples, j.rounds, last)
	return nil
}

// flood measures many in flight, and bandwidth.
func (s *setup) flood(cfg *Config, carrier string, to *streams) error {
	rounds := max(cfg.Rounds/10, 50)
	var many, c, bare float64
	for _, m := range []struct {
		p    *program
		j    job
		rate *float64
	}{
		{s.c, job{64, cfg.Rounds * 10, modeSpin, floodDepth}, &many},
		{s.c, job{streamBytes, rounds, modeStream, streamDepth}, &c},
		{s.bare, job{streamBytes, rounds, modeStream, streamDepth}, &bare},
		{s.c, job{streamBytes, rounds, modeStream, streamDepth}, &c}, // the best of as many tries on both sides
		{s.bare, job{streamBytes, rounds, modeStream, floodDepth}, &bare},
	} {
		if m.p == s.bare && carrier == "ring" {
			continue // in place: nothing is moved
		}
		_, total, err := m.p.run(m.j)
		if err != nil {
			return fmt.Errorf("%d in flight: %w", m.j.inFlight, err)
		}
		*m.rate = max(*m.rate, perSecond(m.j.rounds, total))
	}
	to.many.stream(many)
	to.c.stream(c)
	to.bare.stream(bare)
	return nil
}

// pair books a measurement beside its baseline.
func (r *Result) pair(row Row, measured, bare *series) {
	row.Measured, row.Bare, row.Rate, row.BareRate = times(measured.samples), times(bare.samples), measured.rate, bare.rate
	row.Ratio = measured.over(bare)
	row.Bound, row.Within = judge(&row, r.Provider)
	r.Rows = append(r.Rows, row)
}

// judge gives the bound that the project holds a measurement to: of the ratio; for many in flight of the rate.
func judge(r *Row, provider string) (bound float64, within bool) {
	switch {
	case r.What == "bandwidth" && r.Carrier == "ofi":
		return 0.9, r.Ratio >= 0.9
	case r.What == "in-flight" && r.Carrier == "ring":
		return 2e6, r.Rate >= 2e6
	case r.Measured.Samples == 0:
		return 0, true
	case r.Caller == inPlace:
		return 0, r.Allocs == 0
	case r.What == "warm" && r.Caller == "C":
		bound = 1.15
	case r.What == "hot" && r.Carrier == "ring" && r.Bytes == 64:
		bound = map[string]float64{"C": 1.5, "Go": 4}[r.Caller]
		if r.Allocs > 0 {
			return bound, false
		}
	case r.What == "hot" && r.Carrier == "ofi" && r.Caller == "C" && (r.Bytes == 64 || r.Bytes == 4096):
		bound = 1.05
		if strings.HasPrefix(provider, "verbs") {
			bound = 1.1
		}
	case r.What == "hot" && r.Carrier == "ofi" && r.Caller == "C" && r.Bytes == 1<<20:
		bound = 1.1
	}
	return bound, bound == 0 || r.Ratio <= bound
}
