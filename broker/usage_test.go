package broker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/broker/store"
)

// What executors poll is in their lease's record: while they run, when they have gone, and after the lease's end and a restart.
func TestPollingIsRecorded(t *testing.T) {
	w := newWorld(t, nil)
	c, a := w.user(alice), w.agent("n1", 4)
	lease, err := c.Acquire(w.ctx(), asked(2))
	if err != nil {
		t.Fatal(err)
	}
	w.eventually("two executors", func() bool { return a.count() == 2 })
	id := func(n string) string { return fmt.Sprintf("%d-%s", lease.Id, n) }
	spin := func(c api.LeasesClient) time.Duration {
		all, err := c.List(w.ctx(), &api.ListRequest{IncludeEnded: true})
		if err != nil || len(all.Leases) != 1 {
			t.Fatalf("%v, %v", all, err)
		}
		return all.Leases[0].GetSpin().AsDuration()
	}
	a.get(func() {
		a.sendLocked(&api.AgentMessage{Message: &api.AgentMessage_Usage{Usage: &api.Usage{Executors: []*api.Usage_Executor{
			{Id: id("1"), SpinNanoseconds: 2e9}, {Id: id("2"), SpinNanoseconds: 1e9}, {Id: "99-1", SpinNanoseconds: 7e9},
		}}}})
	})
	w.eventually("3 s of running executors", func() bool { return spin(c) == 3*time.Second })
	a.get(func() {
		a.polled = map[string]uint64{id("1"): 4e9, id("2"): 6e9}
		a.end(id("1"), api.EndReason_STOPPED, "")
	})
	w.eventually("4 s of one that ended, 1 s of one that runs", func() bool { return spin(c) == 5*time.Second })
	explained, err := c.Explain(w.ctx(), &api.ExplainRequest{LeaseId: lease.Id})
	if err != nil || !strings.Contains(explained.Summary, "polled for calls, without serving, for 5s") {
		t.Errorf("%q, %v", explained.GetSummary(), err)
	}
	if _, err := c.Release(w.ctx(), &api.ReleaseRequest{LeaseId: lease.Id}); err != nil {
		t.Fatal(err)
	}
	w.eventually("the last end comes after the lease's", func() bool { return spin(c) == 10*time.Second })
	a.disconnect()
	w.stop()
	w.start(nil)
	if got := spin(w.user(alice)); got != 10*time.Second {
		t.Errorf("%v after a restart", got)
	}
	w.rec.mu.Lock()
	defer w.rec.mu.Unlock()
	polled := time.Duration(0)
	for _, x := range w.rec.executors {
		polled += x.SpinTime
	}
	if polled != 10*time.Second {
		t.Errorf("%v in the report's records", polled)
	}
}

// Task records that cannot be written do not gather without end.
func TestPendingTaskRecordsAreBounded(t *testing.T) {
	s := &state{}
	for range 10 {
		s.tasks(7, store.Totals{OK: 1}, make([]store.Task, maxReported))
	}
	if kept, ok := len(s.change.Tasks[7]), s.change.Totals[7].OK; kept != maxPending || ok != 10 {
		t.Errorf("%d records and %d tasks wait, want %d and 10", kept, ok, maxPending)
	}
}
