package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	bolt "go.etcd.io/bbolt"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/broker/lease"
)

var t0 = time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "broker.db")
	s := open(t, path)
	key := s.Key()
	living := &lease.Lease{ID: 1, Request: lease.Request{UID: 1000, TTL: time.Minute, Executors: 2}, Created: t0, Last: 2}
	over := &lease.Lease{ID: 2, Created: t0, Ended: t0, Reason: api.EndReason_RELEASED}
	x := &lease.Executor{ID: "1-2", Lease: 1, Node: "n1", Epoch: 3, Ready: true, Address: "n1:5000"}
	must(t, s.Update(Change{
		Next: 3, Leases: map[uint64]*lease.Lease{1: living, 2: {ID: 2, Created: t0}},
		Executors: map[string]*lease.Executor{"1-1": {ID: "1-1", Lease: 1}, "1-2": x}, Nodes: map[string]Node{"n1": {"boot", 7}},
		History: map[uint64][]Entry{1: {{t0, "a", ""}}, 2: {{t0, "b", ""}}},
	}))
	must(t, s.Update(Change{Leases: map[uint64]*lease.Lease{2: over}, Executors: map[string]*lease.Executor{"1-1": nil}, History: map[uint64][]Entry{1: {{t0, "c", "d"}}}}))
	must(t, s.Close())
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	s = open(t, path)
	if !s.Key().Equal(key) {
		t.Error("another key after reopening")
	}
	got, err := s.Load()
	must(t, err)
	want := State{Next: 3, Leases: []*lease.Lease{living}, Executors: []*lease.Executor{x}, Nodes: map[string]Node{"n1": {"boot", 7}}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(lease.Lease{})); diff != "" {
		t.Error(diff)
	}
	ended, err := s.Ended(2)
	if err != nil || ended == nil || ended.Reason != api.EndReason_RELEASED {
		t.Errorf("ended lease: %+v, %v", ended, err)
	}
	history, err := s.History(1)
	if diff := cmp.Diff([]Entry{{t0, "a", ""}, {t0, "c", "d"}}, history); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if _, err := Open(path); !errors.Is(err, ErrBusy) {
		t.Errorf("second broker: %v", err)
	}
}

func TestUnusable(t *testing.T) {
	newer := func(t *testing.T, path string) {
		must(t, open(t, path).Close())
		db, err := bolt.Open(path, 0o600, nil)
		must(t, err)
		must(t, db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(keySchema, number(Schema+1)) }))
		must(t, db.Close())
	}
	overwrite := func(from, to int) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			must(t, open(t, path).Close())
			text, err := os.ReadFile(path)
			must(t, err)
			for i := from; i < min(to, len(text)); i++ {
				text[i] = 0xa5
			}
			must(t, os.WriteFile(path, text, 0o600))
		}
	}
	for name, test := range map[string]struct {
		spoil func(*testing.T, string)
		text  string
	}{
		"newer schema": {newer, "schema 2, this one knows 1"},
		"not bbolt": {func(t *testing.T, path string) {
			must(t, os.WriteFile(path, []byte(strings.Repeat("leases ", 4000)), 0o600))
		}, "damaged"},
		"both metas": {overwrite(0, 8192), "damaged"},
		"every page": {overwrite(8192, 1<<20), ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "broker.db")
			test.spoil(t, path)
			s, err := Open(path)
			if err == nil {
				_ = s.Close()
			}
			if !errors.Is(err, ErrUnusable) || !strings.Contains(err.Error(), test.text) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestTasks(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "broker.db"))
	report := func(ok uint64, from, n int) {
		t.Helper()
		c := Change{Totals: map[uint64]Totals{5: {OK: ok, Retried: 1}}, Tasks: map[uint64][]Task{}}
		for i := range n {
			c.Tasks[5] = append(c.Tasks[5], Task{uint64(from + i), []byte{byte(ok)}})
		}
		must(t, s.Update(c))
	}
	report(3, 0, 10)
	report(4, 5, 10) // five of them again
	record, totals, err := s.Task(5, 7)
	if err != nil || string(record) != "\x04" || totals != (Totals{OK: 7, Retried: 2}) {
		t.Errorf("%q, %+v, %v", record, totals, err)
	}
	report(1, 0, MaxTasks+3)
	if _, totals, _ = s.Task(5, 0); totals.Cut != 3 {
		t.Errorf("%+v, want 3 cut", totals)
	}
	if record, _, err = s.Task(6, 0); err != nil || len(record) != 0 {
		t.Errorf("%q, %v", record, err)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "broker.db"))
	lines := make([]Entry, MaxHistory+50)
	for i := range lines {
		lines[i].What = "executor ready"
	}
	lines[len(lines)-1].What = "lease ended"
	must(t, s.Update(Change{History: map[uint64][]Entry{1: lines, 2: lines[:1]}}))
	history, err := s.History(1)
	if err != nil || len(history) != MaxHistory || !strings.HasPrefix(history[MaxHistory-1].What, "lease ended (lines") {
		t.Errorf("%d lines, the last %+v, %v", len(history), history[len(history)-1], err)
	}
}

func TestPrune(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "broker.db"))
	for id := range uint64(10) {
		must(t, s.Update(Change{
			Leases:  map[uint64]*lease.Lease{id: {ID: id, Created: t0, Ended: t0.Add(time.Duration(id) * time.Hour)}},
			History: map[uint64][]Entry{id: {{t0, "a", ""}, {t0, "b", ""}}},
			Totals:  map[uint64]Totals{id: {OK: 1}}, Tasks: map[uint64][]Task{id: {{1, []byte("x")}}},
		}))
	}
	for _, want := range []int{4, 2, 0} {
		if n, err := s.Prune(t0.Add(6*time.Hour), 4); err != nil || n != want {
			t.Errorf("pruned %d, %v; want %d", n, err, want)
		}
	}
	left, err := s.ListEnded(func(*lease.Lease) bool { return true }, 100)
	if err != nil || len(left) != 4 || left[0].ID != 9 || left[3].ID != 6 {
		t.Errorf("left: %v, %v", left, err)
	}
	history, _ := s.History(5)
	record, totals, _ := s.Task(5, 1)
	if len(history) != 0 || len(record) != 0 || totals.OK != 0 {
		t.Errorf("left of lease 5: %v, %q, %+v", history, record, totals)
	}
	if history, _ := s.History(6); len(history) != 2 {
		t.Errorf("history of lease 6: %v", history)
	}
}
