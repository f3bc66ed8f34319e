package lease

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/policies"
)

var update = flag.Bool("update", false, "rewrite testdata from what the table does")

var epoch0 = time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)

// script runs commands against a table. A line "> …" in the file is what it is expected to print.
type script struct {
	t     *testing.T
	table *Table
	now   time.Time
	out   strings.Builder
	saved map[uint64]Lease
	execs map[string]Executor
}

func (s *script) run(line string) {
	f := strings.Fields(line)
	number := func(i int) uint64 {
		n, err := strconv.ParseUint(f[i], 10, 64)
		if err != nil {
			s.t.Fatalf("%s: %v", line, err)
		}
		return n
	}
	switch f[0] {
	case "acquire": // executors ttl [job]
		ttl, err := time.ParseDuration(f[2])
		if err != nil {
			s.t.Fatal(err)
		}
		r := Request{UID: 1000, Executors: int(number(1)), TTL: ttl, Each: policies.Resources{Cores: 1}}
		if len(f) > 3 {
			r.Job = uint32(number(3))
		}
		s.table.Acquire(s.now, r)
	case "renew":
		if err := s.table.Renew(s.now, number(1)); err != nil {
			fmt.Fprintf(&s.out, "> error: %v\n", err)
		}
	case "release":
		s.table.End(s.now, number(1), api.EndReason_RELEASED, "released by its holder")
	case "place":
		if s.table.Place(s.now, number(1), f[2]) == nil {
			fmt.Fprintf(&s.out, "> nothing to place\n")
		}
	case "ready":
		s.table.Ready(s.now, f[1], f[2], f[2]+":"+f[3], "/run/"+f[1])
	case "gone":
		reason := api.EndReason(api.EndReason_value[f[3]])
		if !s.table.Gone(s.now, f[1], f[2], reason, strings.Join(f[4:], " ")) {
			fmt.Fprintf(&s.out, "> known to be gone\n")
		}
	case "nodegone":
		s.table.NodeGone(s.now, f[1], api.EndReason_NODE_LOST, "away")
	case "jobended":
		s.table.JobEnded(s.now, uint32(number(1)))
	case "waiting":
		s.table.Waiting(s.now, number(1), strings.Join(f[2:], " "))
	case "wait":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			s.t.Fatal(err)
		}
		s.now = s.now.Add(d)
		s.table.Tick(s.now)
	case "restart":
		s.restart()
	default:
		s.t.Fatalf("unknown command %q", line)
	}
	s.effects()
}

// restart makes a table of what was saved.
func (s *script) restart() {
	var leases []*Lease
	for _, l := range s.saved {
		if l.Ended.IsZero() {
			leases = append(leases, &l)
		}
	}
	var execs []*Executor
	for _, x := range s.execs {
		execs = append(execs, &x)
	}
	table, err := NewTable(s.now, s.table.Next(), leases, execs)
	if err != nil {
		s.t.Fatal(err)
	}
	s.table = table
}

func (s *script) effects() {
	fx := s.table.Take()
	maps.DeleteFunc(fx.Leases, func(id uint64, l *Lease) bool { s.saved[id] = *l; return false })
	for id, x := range fx.Changed {
		if delete(s.execs, id); x != nil {
			s.execs[id] = *x
		}
	}
	if len(fx.Leases) > 0 {
		fmt.Fprintf(&s.out, "> save %v\n", slices.Sorted(maps.Keys(fx.Leases)))
	}
	for _, x := range fx.Starts {
		fmt.Fprintf(&s.out, "> start %s on %s, epoch %d\n", x.ID, x.Node, x.Epoch)
	}
	for _, x := range fx.Stops {
		fmt.Fprintf(&s.out, "> stop %s on %s: %s\n", x.ID, x.Node, x.Reason)
	}
	for _, e := range fx.Events {
		l := e.Lease
		switch e.Kind {
		case Changed:
			fmt.Fprintf(&s.out, "> lease %d %s epoch %d: %s\n", l.ID, l.State(), l.Epoch, e.Detail)
		case Joined:
			fmt.Fprintf(&s.out, "> lease %d joined by %s at %s\n", l.ID, e.Executor.ID, e.Executor.Address)
		case Left:
			fmt.Fprintf(&s.out, "> lease %d left by %s, announced %t: %s %s\n", l.ID, e.Executor.ID, e.WasReady, e.Reason, e.Detail)
		}
	}
}

func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			table, err := NewTable(epoch0, 1, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			s := &script{t: t, table: table, now: epoch0, saved: map[uint64]Lease{}, execs: map[string]Executor{}}
			for line := range strings.Lines(string(text)) {
				if strings.HasPrefix(line, ">") {
					continue
				}
				s.out.WriteString(line)
				if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
					s.run(line)
				}
			}
			if *update {
				if err := os.WriteFile(file, []byte(s.out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got := s.out.String(); got != string(text) {
				t.Errorf("differs from the script; got:\n%s", got)
			}
		})
	}
}

// TestModel does random steps and checks the invariants after each.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{now: epoch0, used: map[string]uint64{}, ended: map[uint64]bool{}, epochs: map[uint64]uint64{}, held: map[string]string{}, reported: map[string]bool{}}
		m.table, _ = NewTable(m.now, 1, nil, nil)
		lease := rapid.Uint64Range(1, 12)
		node := rapid.SampledFrom([]string{"n1", "n2", "n3"})
		// executor is mostly one that is there, on its node.
		executor := func(t *rapid.T) (id, where string) {
			on, at := node.Draw(t, "node"), node.Draw(t, "mostly the same")
			if rapid.IntRange(0, 3).Draw(t, "stranger") > 0 {
				at = on
			}
			if ids := m.table.OnNode(at); len(ids) > 0 {
				return rapid.SampledFrom(ids).Draw(t, "executor"), on
			}
			return fmt.Sprintf("%d-%d", lease.Draw(t, "lease"), rapid.IntRange(1, 6).Draw(t, "n")), on
		}
		t.Repeat(map[string]func(*rapid.T){
			"acquire": func(t *rapid.T) {
				m.table.Acquire(m.now, Request{Executors: rapid.IntRange(1, 4).Draw(t, "executors"), TTL: 30 * time.Second, Job: uint32(rapid.IntRange(0, 3).Draw(t, "job"))})
			},
			"renew":   func(t *rapid.T) { m.renew(t, lease.Draw(t, "lease")) },
			"release": func(t *rapid.T) { m.table.End(m.now, lease.Draw(t, "lease"), api.EndReason_RELEASED, "") },
			"place":   func(t *rapid.T) { m.table.Place(m.now, lease.Draw(t, "lease"), node.Draw(t, "node")) },
			"ready": func(t *rapid.T) {
				id, on := executor(t)
				m.table.Ready(m.now, id, on, "a", "l")
			},
			"gone": func(t *rapid.T) {
				reason := rapid.SampledFrom([]api.EndReason{api.EndReason_EVICTED, api.EndReason_REFUSED, api.EndReason_EXECUTOR_FAILED}).Draw(t, "reason")
				id, on := executor(t)
				m.gone(t, id, on, reason)
			},
			"node gone": func(t *rapid.T) {
				on := node.Draw(t, "node")
				for _, id := range m.table.OnNode(on) {
					m.reported[id] = true
				}
				m.table.NodeGone(m.now, on, api.EndReason_NODE_LOST, "")
			},
			"job ended": func(t *rapid.T) { m.table.JobEnded(m.now, uint32(rapid.IntRange(0, 3).Draw(t, "job"))) },
			"time": func(t *rapid.T) {
				m.now = m.now.Add(time.Duration(rapid.IntRange(1, 20).Draw(t, "seconds")) * time.Second)
				m.table.Tick(m.now)
			},
			"": m.check,
		})
		// Nothing stays leased for ever.
		m.now = m.now.Add(time.Minute)
		m.table.Tick(m.now)
		m.check(t)
		if leases, executors := m.table.Counts(); leases != 0 || executors != 0 || len(m.held) != 0 {
			t.Fatalf("%d leases, %d executors and %d starts not stopped after all have expired", leases, executors, len(m.held))
		}
	})
}

type model struct {
	table  *Table
	now    time.Time
	used   map[string]uint64 // executor ids ever started → epoch
	ended  map[uint64]bool
	epochs map[uint64]uint64
	held   map[string]string // started and neither stopped nor gone → node
	// reported are those whose end a node has told; of all others the node has to be told.
	reported map[string]bool
}

// gone: a node speaks for its own executors only.
func (m *model) gone(t *rapid.T, id, on string, reason api.EndReason) {
	x := m.table.Executor(id)
	theirs := x != nil && x.Node == on
	if theirs {
		m.reported[id] = true
	}
	if known := m.table.Gone(m.now, id, on, reason, ""); known != theirs {
		t.Fatalf("node %s says that %s is gone, which is %+v: taken as %v", on, id, x, known)
	}
}

func (m *model) renew(t *rapid.T, id uint64) {
	err := m.table.Renew(m.now, id)
	if known := m.table.Get(id) != nil; errors.Is(err, ErrUnknown) == known {
		t.Fatalf("renew %d: %v, known %t", id, err, known)
	}
}

func (m *model) check(t *rapid.T) {
	fx := m.table.Take()
	for _, x := range fx.Starts {
		if _, twice := m.used[x.ID]; twice {
			t.Fatalf("executor id %s used twice", x.ID)
		}
		if m.ended[x.Lease] {
			t.Fatalf("executor %s started for an ended lease", x.ID)
		}
		m.used[x.ID], m.held[x.ID] = x.Epoch, x.Node
	}
	stopped := map[string]bool{}
	for _, stop := range fx.Stops {
		stopped[stop.ID] = true
		if m.held[stop.ID] == stop.Node {
			delete(m.held, stop.ID)
		}
	}
	for _, e := range fx.Events {
		if e.Kind == Left {
			if id := e.Executor.ID; !m.reported[id] && !stopped[id] {
				t.Fatalf("executor %s left and nobody stops it", id)
			}
			delete(m.held, e.Executor.ID)
		}
		if e.Kind == Joined && e.Executor.Epoch != m.used[e.Executor.ID] {
			t.Fatalf("executor %s announced with epoch %d, started with %d", e.Executor.ID, e.Executor.Epoch, m.used[e.Executor.ID])
		}
		if e.Ending() {
			if m.ended[e.Lease.ID] {
				t.Fatalf("lease %d ended twice", e.Lease.ID)
			}
			m.ended[e.Lease.ID] = true
		}
	}
	m.checkTable(t)
}

func (m *model) checkTable(t *rapid.T) {
	total := 0
	for _, l := range m.table.Leases() {
		if m.ended[l.ID] {
			t.Fatalf("lease %d lives again", l.ID)
		}
		if l.Epoch < m.epochs[l.ID] || len(l.Executors) > l.Request.Executors || !m.now.Before(l.Expires) && m.now != l.Created {
			t.Fatalf("lease %d: epoch %d after %d, %d of %d executors, expires %s at %s", l.ID, l.Epoch, m.epochs[l.ID], len(l.Executors), l.Request.Executors, l.Expires, m.now)
		}
		m.epochs[l.ID] = l.Epoch
		ready, epochs := 0, map[uint64]bool{}
		for _, x := range l.Executors {
			total++
			if x.Ready {
				ready++
			}
			if epochs[x.Epoch] || x.Epoch > l.Epoch || m.held[x.ID] != x.Node {
				t.Fatalf("executor %s: epoch %d of lease epoch %d, node %s, held on %q", x.ID, x.Epoch, l.Epoch, x.Node, m.held[x.ID])
			}
			epochs[x.Epoch] = true
		}
		if ready != l.ReadyCount() || (l.State() == api.LeaseState_ACTIVE) != (ready > 0) {
			t.Fatalf("lease %d: %d ready, counted %d, %s", l.ID, ready, l.ReadyCount(), l.State())
		}
	}
	if _, executors := m.table.Counts(); executors != total || executors != len(m.held) {
		t.Fatalf("%d executors in leases, %d in the table, %d held", total, executors, len(m.held))
	}
}
