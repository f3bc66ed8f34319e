package broker

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/broker/store"
	"github.com/gleaner-hpc/gleaner/report"
	"github.com/gleaner-hpc/gleaner/slurmplugin/slurmctld"
)

func TestNodeLost(t *testing.T) {
	w := newWorld(t, nil)
	n1 := w.agent("n1", 4)
	c := w.user(alice)
	q := asked(2)
	q.Ttl = durationpb.New(time.Hour)
	l := w.acquire(c, q)
	f := w.follow(c, l.Id)
	w.eventually("ready", f.is(func() bool { return len(f.ready) == 2 }))
	n1.disconnect()
	cluster := api.NewClusterClient(w.dial(bob))
	w.eventually("away", func() bool {
		nodes, err := cluster.Nodes(w.ctx(), &api.NodesRequest{})
		return err == nil && !nodes.Nodes[0].Connected && nodes.Nodes[0].WhyNot == "its agent is away"
	})
	w.clock.advance(29 * time.Second)
	n1.connect() // in time
	w.eventually("kept", func() (ok bool) { n1.get(func() { ok = len(n1.keep) == 2 }); return ok })
	n1.disconnect()
	w.eventually("away again", func() bool {
		nodes, err := cluster.Nodes(w.ctx(), &api.NodesRequest{})
		return err == nil && !nodes.Nodes[0].Connected
	})
	w.clock.advance(31 * time.Second)
	w.eventually("lost", f.is(func() bool {
		return len(f.ready) == 0 && len(f.gone) == 2 && f.gone[0].Reason == api.EndReason_NODE_LOST && f.last.State == api.LeaseState_PENDING
	}))
	w.eventually("recorded", func() bool {
		w.rec.mu.Lock()
		defer w.rec.mu.Unlock()
		return len(w.rec.executors) == 2 && w.rec.executors[0].Reason == report.NodeLost
	})
	n1.connect() // too late: what it still runs is stopped, new ones start
	w.eventually("replaced", f.is(func() bool { return len(f.ready) == 2 && f.ready["1-3"] != nil && f.ready["1-4"] != nil }))
	w.eventually("old ones stopped", func() bool { return n1.count() == 2 })
}

// An agent that comes back without an executor has it gone after a moment, in which the reason may still arrive.
func TestAgentForgets(t *testing.T) {
	w := newWorld(t, nil)
	n1 := w.agent("n1", 4)
	c := w.user(alice)
	f := w.follow(c, w.acquire(c, asked(2)).Id)
	w.eventually("ready", f.is(func() bool { return len(f.ready) == 2 }))
	n1.disconnect()
	n1.get(func() {
		delete(n1.running, "1-1")
		delete(n1.running, "1-2")
		n1.boot, n1.record = "second", 1
		m := ended("1-2", api.EndReason_EVICTED, "job 5", true)
		m.Record = 1
		n1.unacked = []*api.AgentMessage{m}
	})
	n1.connect()
	w.eventually("evicted", f.is(func() bool { return len(f.gone) == 1 && f.gone[0].Reason == api.EndReason_EVICTED }))
	w.clock.advance(4 * time.Second)
	w.eventually("missing", f.is(func() bool { return len(f.gone) == 2 && f.gone[1].Reason == api.EndReason_NODE_LOST }))
	w.eventually("replaced", func() bool { w.clock.advance(time.Second); return n1.count() == 2 })
}

func TestRefusalsBackOff(t *testing.T) {
	w := newWorld(t, nil)
	n1 := w.agent("n1", 4)
	n1.get(func() { n1.refuse = true })
	c := w.user(alice)
	q := asked(1)
	q.Ttl = durationpb.New(time.Hour)
	l := w.acquire(c, q)
	cluster := api.NewClusterClient(w.dial(bob))
	for range 300 { // a minute
		w.clock.advance(200 * time.Millisecond)
		w.eventually("refused", func() bool {
			nodes, err := cluster.Nodes(w.ctx(), &api.NodesRequest{})
			return err == nil && nodes.Nodes[0].Executors == 0
		})
	}
	var refused uint64
	n1.get(func() { refused = n1.record })
	if refused < 3 || refused > 20 {
		t.Errorf("%d starts within a minute at a node that refuses them", refused)
	}
	list, err := c.List(w.ctx(), &api.ListRequest{})
	if err != nil || !strings.Contains(list.Leases[0].Detail, "no node has 1 core and 256M free: n1: resting after") {
		t.Errorf("lease %d: %v, %v", l.Id, list, err)
	}
}

func TestRecordsAreTakenOnce(t *testing.T) {
	w := newWorld(t, nil)
	w.rec.fail = errors.New("disk full")
	n1 := w.agent("n1", 4)
	n1.claim(2)
	n1.disconnect()
	n1.connect() // sends the claim again
	w.rec.mu.Lock()
	w.rec.fail = nil
	w.rec.mu.Unlock()
	acked := func(want uint64) func() bool {
		return func() (ok bool) { n1.get(func() { ok = n1.acked == want }); return ok }
	}
	w.eventually("acknowledged", acked(1))
	n1.claim(3)
	w.eventually("acknowledged", acked(2))
	w.stop()
	n1.disconnect()
	n1.get(func() { // an acknowledgement that was lost
		n1.acked = 0
		for i := range 2 {
			n1.unacked = append(n1.unacked, &api.AgentMessage{Record: uint64(i + 1), Message: &api.AgentMessage_Claim{Claim: &api.Claim{JobId: 77}}})
		}
	})
	w.start(nil)
	n1.connect()
	w.eventually("acknowledged after restart", acked(2))
	if _, claims := w.rec.count(); claims > 3 { // the repeat before the first could be stored may count twice
		t.Errorf("%d claims recorded", claims)
	}
}

func TestSlurmView(t *testing.T) {
	slurm := &slurmFake{}
	w := newWorld(t, func(cfg *Config) { cfg.Slurm, cfg.Poll = slurm, time.Millisecond })
	node := func(name, state string, allocated int, flags ...string) slurmctld.Node {
		return slurmctld.Node{Name: name, State: state, Flags: flags, CPUs: 8, Cores: 8, ThreadsPerCore: 1, MemoryMiB: 8192, AllocatedCPUs: allocated, Partitions: []string{"batch"}}
	}
	slurm.set(&slurmctld.View{
		AsOf:  w.clock.Now(),
		Nodes: []slurmctld.Node{node("n1", "mixed", 6), node("n2", "idle", 0, "planned"), node("n3", "allocated", 8), node("n4", "idle", 0)},
		Jobs:  []slurmctld.Job{{ID: 9, State: "running", Nodes: []slurmctld.Share{{Node: "n1", Cores: "0-5", CoreCount: 6}, {Node: "n3", CoreCount: 8}}}},
	}, nil)
	n1, n2, n3 := w.agent("n1", 8), w.agent("n2", 8), w.agent("n3", 8)
	c := w.user(alice)
	l := w.acquire(c, asked(5))
	f := w.follow(c, l.Id)
	w.eventually("two find room", f.is(func() bool { return len(f.ready) == 2 }))
	w.eventually("reason", func() bool {
		w.clock.advance(time.Second)
		list, err := c.List(w.ctx(), &api.ListRequest{})
		d := list.GetLeases()[0].Detail
		return err == nil && strings.Contains(d, "n2: node is planned for a job") && strings.Contains(d, "n3: all cores allocated by Slurm") && strings.Contains(d, "n4: its agent is away")
	})
	if n1.count() != 2 || n2.count() != 0 || n3.count() != 0 {
		t.Errorf("placed %d, %d, %d", n1.count(), n2.count(), n3.count())
	}
	w.eventually("agents told", func() (ok bool) {
		n1.get(func() { ok = len(n1.pushed) > 0 && n1.pushed[0].Jobs[0].Cores == "0-5" && n1.pushed[0].Harvestable })
		n2.get(func() {
			ok = ok && len(n2.pushed) > 0 && !n2.pushed[0].Harvestable && n2.pushed[0].WhyNot == "node is planned for a job"
		})
		return ok
	})
	// The Epilog of n3 knows better than the last view, which still names the job.
	n3.get(func() {
		n3.recordLocked(&api.AgentMessage{Message: &api.AgentMessage_JobEnded{JobEnded: &api.JobEnded{JobId: 9}}})
	})
	w.eventually("the rest find room", f.is(func() bool { return len(f.ready) == 5 }))
	slurm.set(nil, errors.New("slurmrestd: connection refused"))
	w.clock.advance(2 * time.Minute)
	cluster := api.NewClusterClient(w.dial(bob))
	w.eventually("said in nodes", func() bool {
		nodes, err := cluster.Nodes(w.ctx(), &api.NodesRequest{})
		return err == nil && nodes.SlurmAsOf == nil && nodes.SlurmError == "slurmrestd: connection refused"
	})
}

// Cores are never promised twice, whoever asks, and intervals add up.
func TestNoDoublePromise(t *testing.T) {
	w := newWorld(t, nil)
	var agents []*fakeAgent
	for i := range 3 {
		agents = append(agents, w.agent(fmt.Sprintf("n%d", i), 5))
	}
	var group sync.WaitGroup
	for u := range uint32(6) {
		c := w.user(alice + u)
		group.Go(func() {
			for range 8 {
				l, err := c.Acquire(w.ctx(), asked(4))
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := c.Release(w.ctx(), &api.ReleaseRequest{LeaseId: l.Id}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	w.clock.advance(time.Second)
	w.eventually("all stopped", func() bool { return agents[0].count()+agents[1].count()+agents[2].count() == 0 })
	for _, a := range agents {
		a.get(func() {
			for _, m := range a.unacked {
				if m.GetEnded().GetReason() == api.EndReason_REFUSED {
					t.Errorf("%s had to refuse: %v", a.name, m)
				}
			}
			if a.most > a.total {
				t.Errorf("%s: %d of %d cores leased", a.name, a.most, a.total)
			}
		})
	}
	w.stop()
	for _, i := range w.rec.intervals {
		if i.AllocatedCPUs+i.HarvestedCPUs > i.CPUs || !i.End.After(i.Start) {
			t.Errorf("interval %+v", i)
		}
	}
}

// TestGPUsThatNobodyGives: a lease for GPUs that turn out not to be given ends with the reason that the next one is denied for.
func TestGPUsThatNobodyGives(t *testing.T) {
	w := newWorld(t, nil)
	n1, offered := w.agent("n1", 4), uint32(1)
	n1.get(func() { n1.gpus = &offered; n1.sendState() })
	c, cluster := w.user(alice), api.NewClusterClient(w.dial(bob))
	w.eventually("a GPU and a note", func() bool {
		nodes, err := cluster.Nodes(w.ctx(), &api.NodesRequest{})
		return err == nil && nodes.Nodes[0].Total.Gpus == 1 && nodes.Nodes[0].Note == "the launcher gives none"
	})
	q := asked(1)
	q.Gpus = 1
	w.acquire(c, q)
	const never = "no node of the cluster can hold an executor of 1 core and 256M and 1 GPU"
	var last *api.Lease
	w.eventually("ended", func() bool {
		all, err := c.List(w.ctx(), &api.ListRequest{IncludeEnded: true})
		if err != nil || len(all.Leases) != 1 {
			return false
		}
		last = all.Leases[0]
		return last.State == api.LeaseState_ENDED
	})
	if last.EndReason != api.EndReason_REFUSED || !strings.HasPrefix(last.Detail, never) {
		t.Errorf("ended: %v", last)
	}
	if _, err := c.Acquire(w.ctx(), q); status.Code(err) != codes.FailedPrecondition || !strings.HasPrefix(status.Convert(err).Message(), never) {
		t.Errorf("the next: %v", err)
	}
}

// While the state cannot be written nothing is promised.
func TestStateCannotBeWritten(t *testing.T) {
	var b *store.Store
	w := newWorld(t, func(cfg *Config) { b = cfg.Store })
	n1 := w.agent("n1", 4)
	c := w.user(alice)
	l := w.acquire(c, asked(1))
	w.eventually("started", func() bool { return n1.count() == 1 })
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := c.Acquire(w.ctx(), asked(2))
	if s := status.Convert(err); s.Code() != codes.Aborted || !strings.Contains(s.Message(), "cannot write its state") {
		t.Errorf("acquire: %v", err)
	}
	leases := 0
	_ = w.b.call(w.ctx(), func(s *state, _ time.Time) error { leases, _ = s.table.Counts(); return nil })
	if leases != 1 {
		t.Errorf("%d leases live; that of the failed acquire is nobody's", leases)
	}
	w.clock.advance(time.Second)
	if n := n1.count(); n != 1 {
		t.Errorf("%d executors, one was promised", n)
	}
	// What ends is stopped all the same: that can do no harm.
	if _, err := c.Release(w.ctx(), &api.ReleaseRequest{LeaseId: l.Id}); status.Code(err) != codes.Aborted {
		t.Errorf("release: %v", err)
	}
	w.eventually("stopped", func() bool { return n1.count() == 0 })
	w.broken = true
}

// A function whose executors do not come up is told so.
func TestFailuresAreExplained(t *testing.T) {
	w := newWorld(t, nil)
	n1 := w.agent("n1", 4)
	n1.get(func() { n1.hold = true })
	c := w.user(alice)
	l := w.acquire(c, asked(1))
	w.eventually("started", func() bool { return n1.count() == 1 })
	n1.get(func() { n1.end("1-1", api.EndReason_EXECUTOR_FAILED, "exec format error") })
	w.eventually("explained", func() bool {
		w.clock.advance(100 * time.Millisecond)
		e, err := c.Explain(w.ctx(), &api.ExplainRequest{LeaseId: l.Id})
		return err == nil && strings.Contains(e.Summary, "the last executor failed on n1: exec format error")
	})
}

// TestWaitsAreWritten: the history says once that a lease was admitted, and why it waited, however short that was.
func TestWaitsAreWritten(t *testing.T) {
	w := newWorld(t, nil)
	c := w.user(alice)
	n1 := w.agent("n1", 4)
	n1.claim(4)
	l := w.acquire(c, asked(1))
	story := func() (lines []string) {
		e, err := c.Explain(w.ctx(), &api.ExplainRequest{LeaseId: l.Id})
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range e.History {
			lines = append(lines, h.What+" | "+h.Why)
		}
		return lines
	}
	w.eventually("written", func() bool {
		w.clock.advance(100 * time.Millisecond)
		lines := story()
		return len(lines) == 2 && strings.HasPrefix(lines[0], "lease admitted: ") && strings.HasPrefix(lines[1], "waits for 1 of 1 executors | no node has ")
	})
}

func FuzzLeaseOf(f *testing.F) {
	for _, id := range []string{"1-1", "", "-", "18446744073709551616-1", "1-", "a-1"} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		lease, err := leaseOf(id)
		if err == nil && !strings.HasPrefix(strings.TrimLeft(id, "0"), strings.TrimLeft(fmt.Sprint(lease), "0")+"-") {
			t.Errorf("%q names lease %d", id, lease)
		}
	})
}
