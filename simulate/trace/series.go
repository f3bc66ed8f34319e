package trace

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Snapshot counts a machine's nodes at one moment.
type Snapshot struct {
	At          time.Time
	Idle, Other int // other: neither allocated nor idle
	Total       int
	line        int
}

// ReadSnapshots reads CSV with a heading that names date (day-month-year), idle_nodes, other_nodes and total_nodes. Rows may stand in
// any order.
func ReadSnapshots(file string, r io.Reader) ([]Snapshot, error) {
	reader := csv.NewReader(r)
	reader.ReuseRecord = true
	heading, err := reader.Read()
	if err != nil {
		return nil, fault(file, 1, "want a heading: %w", err)
	}
	columns := map[string]int{}
	for i, name := range heading {
		columns[strings.TrimSpace(name)] = i
	}
	for _, name := range []string{"date", "idle_nodes", "other_nodes", "total_nodes"} {
		if _, ok := columns[name]; !ok {
			return nil, fault(file, 1, "no column %s", name)
		}
	}
	var list []Snapshot
	for {
		record, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil { // says the line itself
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		line, _ := reader.FieldPos(0)
		s := Snapshot{line: line}
		if s.At, err = time.Parse("02-01-06 15:04:05", record[columns["date"]]); err != nil {
			return nil, fault(file, line, "date %q, want 31-12-22 23:59:59", record[columns["date"]])
		}
		for _, c := range []struct {
			name string
			into *int
		}{{"idle_nodes", &s.Idle}, {"other_nodes", &s.Other}, {"total_nodes", &s.Total}} {
			if *c.into, err = strconv.Atoi(record[columns[c.name]]); err != nil || *c.into < 0 || *c.into > Most {
				return nil, fault(file, line, "%s is %q, want a number up to %d", c.name, record[columns[c.name]], Most)
			}
		}
		if s.Idle+s.Other > s.Total {
			return nil, fault(file, line, "%d idle and %d other of %d nodes", s.Idle, s.Other, s.Total)
		}
		list = append(list, s)
	}
}

// longestGap between two snapshots is bridged; in longer ones all nodes count as down, since nobody knows.
const longestGap = 10 * time.Minute

// FromSnapshots makes a trace of snapshots: between two of them as few nodes as possible change hands, each at a moment drawn from the
// time between, and which ones is drawn as well. A node that leaves a job and is taken by another between two snapshots is not seen.
func FromSnapshots(file string, list []Snapshot, shape Shape, seed uint64) (*Trace, error) {
	if len(list) < 2 {
		return nil, fault(file, 1, "%d snapshots, want two at least", len(list))
	}
	list = slices.SortedStableFunc(slices.Values(list), func(a, b Snapshot) int { return a.At.Compare(b.At) })
	total, cores := 0, shape.Cores
	for _, s := range list {
		total = max(total, s.Total)
	}
	if total == 0 {
		return nil, fault(file, list[0].line, "no nodes")
	}
	t := &Trace{Origin: list[0].At.UTC(), Span: list[len(list)-1].At.Sub(list[0].At)}
	if cores == 0 {
		cores = 36
		t.Notes = append(t.Notes, "The cores of nodes are not known; 36 are assumed.")
	}
	t.Nodes = uniform(total, cores, shape.memoryOf(cores, &t.Notes))
	f := &filler{t: t, random: rand.New(rand.NewPCG(seed, 1))}
	for range total {
		f.pool[free] = append(f.pool[free], interval{node: int32(len(f.pool[free]))})
	}
	gaps := 0
	for i, s := range list {
		at := s.At.Sub(t.Origin)
		before := at
		if i > 0 {
			before = list[i-1].At.Sub(t.Origin)
		}
		if at-before > longestGap {
			gaps++
			f.settle(before, before, [3]int{down: total})
			before = at
		}
		other := s.Other + total - s.Total
		f.settle(before, at, [3]int{free: s.Idle, busy: total - s.Idle - other, down: other})
	}
	f.settle(t.Span, t.Span, [3]int{free: total})
	sortJobs(t.Jobs)
	noteCount(&t.Notes, gaps, "%d gaps of more than 10 minutes between snapshots; all nodes count as down in them.")
	t.Notes = append(t.Notes, fmt.Sprintf("%d snapshots count nodes and name none: between two as few nodes as possible change hands, drawn at random; each "+
		"allocation of a node counts as a job.", len(list)))
	return t, nil
}

// What a node is at a snapshot.
const (
	free = iota
	busy
	down
)

type interval struct {
	node  int32
	since time.Duration
}

// filler turns counts into intervals of nodes.
type filler struct {
	t      *Trace
	random *rand.Rand
	pool   [3][]interval
}

// settle moves nodes from the states that have too many to those that have too few.
func (f *filler) settle(before, at time.Duration, want [3]int) {
	var moving []interval
	for state := range f.pool {
		for len(f.pool[state]) > want[state] {
			moving = append(moving, f.leave(state, before, at))
		}
	}
	slices.SortFunc(moving, func(a, b interval) int { return cmp.Or(cmp.Compare(a.since, b.since), cmp.Compare(a.node, b.node)) })
	for state := range f.pool {
		for len(f.pool[state]) < want[state] {
			f.pool[state] = append(f.pool[state], moving[0])
			moving = moving[1:]
		}
	}
}

// leave draws a node of a state, ends what it was at a moment between two snapshots, and returns it from that moment on.
func (f *filler) leave(state int, before, at time.Duration) interval {
	pool := f.pool[state]
	i := f.random.IntN(len(pool))
	was := pool[i]
	pool[i] = pool[len(pool)-1]
	f.pool[state] = pool[:len(pool)-1]
	when := before
	if at > before {
		when += time.Duration(f.random.Int64N(int64(at - before)))
	}
	if state != free && when > was.since {
		f.t.Jobs = append(f.t.Jobs, Job{Submit: was.since, Start: was.since, End: when, On: []int32{was.node}, Down: state == down})
	}
	return interval{was.node, max(when, was.since)}
}
