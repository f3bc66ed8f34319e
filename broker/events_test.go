package broker

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/broker/lease"
	"github.com/gleaner-hpc/gleaner/broker/store"
	"github.com/gleaner-hpc/gleaner/policies"
)

// A Watch that begins in the batch in which an executor becomes ready hears of that executor once.
func TestWatchTellsOnce(t *testing.T) {
	db, err := store.Open(filepath.Join(t.TempDir(), "broker.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	b, err := New(Config{Store: db})
	if err != nil {
		t.Fatal(err)
	}
	s, now := b.state, time.Now()
	n := s.node(now, "n1")
	n.session = &session{out: make(chan *api.BrokerMessage, maxOutbox), cancel: func(error) {}}
	l := s.table.Acquire(now, lease.Request{UID: alice, Executors: 2, Each: policies.Resources{Cores: 1, MemoryBytes: 1 << 30}, TTL: time.Minute})
	ready := func() {
		x := s.table.Place(now, l.ID, "n1")
		n.book(x.ID, l.Request.Each)
		s.receive(now, n, &api.AgentMessage{Message: &api.AgentMessage_Ready{Ready: &api.ExecutorReady{Id: x.ID, Address: "n1:1"}}})
	}
	heard := func(w *watcher) (ids []string) {
		for len(w.events) > 0 {
			if e := <-w.events; e.Kind == api.LeaseEvent_EXECUTOR_READY {
				ids = append(ids, e.Executor.Id)
			}
		}
		return ids
	}

	early, _ := s.watch(now, l)
	ready()
	late, snapshot := s.watch(now, l)
	if err := s.flush(now); err != nil {
		t.Fatal(err)
	}
	if len(snapshot) != 2 || snapshot[1].Executor.GetId() != "1-1" {
		t.Fatalf("snapshot: %v", snapshot)
	}
	if ids := heard(early); len(ids) != 1 {
		t.Errorf("who watched before heard of %v", ids)
	}
	if ids := heard(late); len(ids) != 0 {
		t.Errorf("told again of %v", ids)
	}
	ready()
	if err := s.flush(now); err != nil {
		t.Fatal(err)
	}
	if ids := heard(late); len(ids) != 1 || ids[0] != "1-2" {
		t.Errorf("the next event: %v", ids)
	}
}
