package broker

import (
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/api/token"
	"github.com/gleaner-hpc/gleaner/slurmplugin/slurmctld"
)

const alice, bob = 1000, 1001

// follower keeps what a Watch tells.
type follower struct {
	mu    sync.Mutex
	ready map[string]*api.Executor
	gone  []*api.LeaseEvent
	last  *api.Lease
	err   error
	ended bool
}

func (w *world) follow(c api.LeasesClient, id uint64) *follower {
	w.t.Helper()
	stream, err := c.Watch(w.ctx(), &api.WatchRequest{LeaseId: id})
	if err != nil {
		w.t.Fatal(err)
	}
	f := &follower{ready: map[string]*api.Executor{}}
	done := make(chan struct{})
	w.t.Cleanup(func() { w.stop(); <-done })
	go func() {
		defer close(done)
		for {
			e, err := stream.Recv()
			f.mu.Lock()
			switch {
			case err != nil:
				f.ended = errors.Is(err, io.EOF)
				f.err = err
			case e.Kind == api.LeaseEvent_LEASE:
				f.last = e.Lease
			case e.Kind == api.LeaseEvent_EXECUTOR_READY:
				f.ready[e.Executor.Id] = e.Executor
			case e.Kind == api.LeaseEvent_EXECUTOR_GONE:
				delete(f.ready, e.Executor.Id)
				f.gone = append(f.gone, e)
			}
			f.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return f
}

func (f *follower) is(ok func() bool) func() bool {
	return func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return ok()
	}
}

func (w *world) acquire(c api.LeasesClient, q *api.AcquireRequest) *api.Lease {
	w.t.Helper()
	l, err := c.Acquire(w.ctx(), q)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// The main story: executors come, a job takes a node, they come elsewhere, the lease is released.
func TestEvictionIsReplaced(t *testing.T) {
	w := newWorld(t, nil)
	n1, n2 := w.agent("n1", 4), w.agent("n2", 4)
	c := w.user(alice)
	l := w.acquire(c, asked(4))
	f := w.follow(c, l.Id)
	w.eventually("4 executors", f.is(func() bool { return len(f.ready) == 4 }))
	if n1.count() != 2 || n2.count() != 2 {
		t.Errorf("not spread: %d and %d", n1.count(), n2.count())
	}
	n1.claim(4)
	w.eventually("4 executors again", func() bool { w.clock.advance(200 * time.Millisecond); return n2.count() == 4 })
	w.eventually("told", f.is(func() bool { return len(f.ready) == 4 && len(f.gone) == 2 }))
	f.is(func() bool {
		for _, e := range f.gone {
			if e.Reason != api.EndReason_EVICTED || e.Detail != "job 77 needed the cores" {
				t.Errorf("gone: %v", e)
			}
		}
		return true
	})()
	if _, err := c.ReportTasks(w.ctx(), &api.ReportTasksRequest{LeaseId: l.Id, Ok: 9, Retried: 2, Tasks: []*api.TaskRecord{{
		Index: 3, Name: "a.jpg", Outcome: api.TaskRecord_OK, Attempts: []*api.TaskRecord_Attempt{{Executor: "1-1", Node: "n1", Error: "evicted: job 77"}, {Executor: "1-5", Node: "n2"}},
	}}}); err != nil {
		t.Fatal(err)
	}
	if l, err := c.Release(w.ctx(), &api.ReleaseRequest{LeaseId: l.Id}); err != nil || l.State != api.LeaseState_ENDED || l.EndReason != api.EndReason_RELEASED || l.Evictions != 2 {
		t.Errorf("release: %v, %v", l, err)
	}
	w.eventually("watch ended", f.is(func() bool { return f.ended && f.last.State == api.LeaseState_ENDED }))
	w.eventually("stopped and recorded", func() bool { x, claims := w.rec.count(); return n2.count() == 0 && x == 6 && claims == 1 })
	w.eventually("acknowledged", func() (ok bool) { n1.get(func() { ok = n1.acked == 3 }); return ok })
	w.explains(c, l.Id)
}

func (w *world) explains(c api.LeasesClient, id uint64) {
	w.t.Helper()
	e, err := c.Explain(w.ctx(), &api.ExplainRequest{LeaseId: id})
	if err != nil {
		w.t.Fatal(err)
	}
	var lines []string
	for _, h := range e.History {
		lines = append(lines, h.What+" | "+h.Why)
	}
	story := e.Summary + "\n" + strings.Join(lines, "\n")
	for _, want := range []string{"released", "taken back 2 executors", "9 tasks done", "lease admitted: 4 executors of 1 core and 256M for f", "evicted | job 77 needed", "is ready on n2"} {
		if !strings.Contains(story, want) {
			w.t.Errorf("explanation lacks %q:\n%s", want, story)
		}
	}
	index := uint64(3)
	if e, err = c.Explain(w.ctx(), &api.ExplainRequest{LeaseId: id, Task: &index}); err != nil || len(e.History) != 2 || !strings.Contains(e.Summary, "done, at attempt 2") {
		w.t.Errorf("task: %v, %v", e, err)
	}
}

func TestRestart(t *testing.T) {
	w := newWorld(t, nil)
	n1 := w.agent("n1", 4)
	c := w.user(alice)
	l := w.acquire(c, asked(2))
	f := w.follow(c, l.Id)
	w.eventually("2 executors", f.is(func() bool { return len(f.ready) == 2 }))
	n1.get(func() { n1.running["99-1"] = &api.Start{Id: "99-1", Cores: 1} }) // of a lease that the broker does not know
	w.stop()
	n1.disconnect()
	w.clock.now = w.clock.now.Add(time.Hour) // the holder could not renew meanwhile
	w.start(nil)
	n1.connect()
	c = w.user(alice)
	w.eventually("kept and stopped", func() (ok bool) {
		n1.get(func() { ok = len(n1.keep) == 2 && len(n1.running) == 2 && n1.running["99-1"] == nil })
		return ok
	})
	snapshot, err := c.Watch(w.ctx(), &api.WatchRequest{LeaseId: l.Id})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := snapshot.Recv(); err != nil || !first.GetSnapshot() || len(first.GetLease().GetExecutors()) != 2 {
		t.Errorf("a watch begins with %v, %v; want a snapshot that names both executors", first, err)
	}
	f = w.follow(c, l.Id)
	w.eventually("2 executors again", f.is(func() bool { return len(f.ready) == 2 && f.last != nil && f.last.State == api.LeaseState_ACTIVE }))
	if next := w.acquire(c, asked(1)); next.Id != l.Id+1 {
		t.Errorf("lease %d after %d", next.Id, l.Id)
	}
}

func TestTokens(t *testing.T) {
	var public []byte
	w := newWorld(t, func(cfg *Config) { public = cfg.Store.Key()[32:] })
	w.agent("n1", 4)
	c := w.user(alice)
	l := w.acquire(c, asked(1))
	f := w.follow(c, l.Id)
	root := w.follow(w.user(0), l.Id)
	var x, seen *api.Executor
	w.eventually("ready", f.is(func() bool { x = f.ready["1-1"]; return x != nil }))
	w.eventually("root sees it", root.is(func() bool { seen = root.ready["1-1"]; return seen != nil }))
	claims, err := token.Verify(public, x.Token, w.clock.Now())
	if err != nil || claims.Executor != "1-1" || claims.Lease != l.Id || claims.UID != alice || claims.Epoch != x.Epoch || claims.Digest != [32]byte(l.Request.Function.Digest) {
		t.Errorf("token says %+v, %v", claims, err)
	}
	if len(seen.Token) != 0 {
		t.Error("root got the holder's token")
	}
	list, err := c.List(w.ctx(), &api.ListRequest{})
	if err != nil || len(list.Leases) != 1 || len(list.Leases[0].Executors[0].Token) == 0 {
		t.Errorf("list: %v, %v", list, err)
	}
}

func TestWhoMayWhat(t *testing.T) {
	w := newWorld(t, func(cfg *Config) { cfg.MaxLeasesPerUser, cfg.MaxExecutors, cfg.Operators = 1, 100, []uint32{1500} })
	w.agent("n1", 4)
	a, b, root := w.user(alice), w.user(bob), w.user(0)
	l := w.acquire(a, asked(1))
	ctx := w.ctx()
	huge, many, short, escapes := asked(1), asked(101), asked(1), asked(1)
	escapes.Account = "physics\x1b[2J"
	huge.MemoryBytes, short.Ttl = 1<<40, durationpb.New(time.Second)
	acquire := func(c api.LeasesClient, q *api.AcquireRequest) error { _, err := c.Acquire(ctx, q); return err }
	_, foreign := b.Renew(ctx, &api.RenewRequest{LeaseId: l.Id})
	_, foreignRelease := b.Release(ctx, &api.ReleaseRequest{LeaseId: l.Id})
	_, unknown := a.Renew(ctx, &api.RenewRequest{LeaseId: 4711})
	session, _ := api.NewAgentsClient(w.dial(alice)).Session(ctx)
	_, notAgent := session.Recv()
	for name, test := range map[string]struct {
		err  error
		code codes.Code
		text string
	}{
		"root":             {acquire(root, asked(1)), codes.PermissionDenied, "identity.allow_root"},
		"second lease":     {acquire(a, asked(1)), codes.ResourceExhausted, "limits.max_leases_per_user"},
		"no executors":     {acquire(b, asked(0)), codes.InvalidArgument, "executors: 0 is out of range 1 to 4096"},
		"too many":         {acquire(b, many), codes.ResourceExhausted, "limits.max_executors"},
		"short ttl":        {acquire(b, short), codes.InvalidArgument, "ttl: 1s is out of range 2s to 1h0m0s"},
		"escapes":          {acquire(b, escapes), codes.InvalidArgument, "account: "},
		"no function":      {acquire(b, &api.AcquireRequest{Executors: 1}), codes.InvalidArgument, "function: missing"},
		"infeasible":       {acquire(b, huge), codes.FailedPrecondition, "no node of the cluster can hold an executor of 1 core and 1024G"},
		"foreign renew":    {foreign, codes.NotFound, "no lease 1"},
		"foreign release":  {foreignRelease, codes.NotFound, "no lease 1"},
		"unknown lease":    {unknown, codes.NotFound, "no lease 4711"},
		"user as an agent": {notAgent, codes.PermissionDenied, "identity.agents"},
	} {
		if s := status.Convert(test.err); s.Code() != test.code || !strings.Contains(s.Message(), test.text) {
			t.Errorf("%s: %v, want %s …%s…", name, test.err, test.code, test.text)
		}
	}
	for uid, want := range map[uint32]int{alice: 1, bob: 0, 0: 1, 1500: 1} {
		if list, err := w.user(uid).List(ctx, &api.ListRequest{}); err != nil || len(list.Leases) != want {
			t.Errorf("uid %d sees %v, %v", uid, list, err)
		}
	}
	stopped, err := root.Release(ctx, &api.ReleaseRequest{LeaseId: l.Id})
	if err != nil || stopped.EndReason != api.EndReason_STOPPED {
		t.Errorf("operator's release: %v, %v", stopped, err)
	}
	_, err = a.Renew(ctx, &api.RenewRequest{LeaseId: l.Id})
	if s := status.Convert(err); s.Code() != codes.FailedPrecondition || !strings.Contains(s.Message(), "stopped by an operator") {
		t.Errorf("renew of an ended lease: %v", err)
	}
	if list, err := a.List(ctx, &api.ListRequest{IncludeEnded: true}); err != nil || len(list.Leases) != 1 {
		t.Errorf("ended leases: %v, %v", list, err)
	}
}

func TestLeasesEnd(t *testing.T) {
	slurm := &slurmFake{}
	view := func(at time.Time, jobs ...slurmctld.Job) *slurmctld.View {
		return &slurmctld.View{AsOf: at, Nodes: []slurmctld.Node{{Name: "n1", State: "idle", CPUs: 8, Cores: 8, ThreadsPerCore: 1, MemoryMiB: 8192}}, Jobs: jobs}
	}
	w := newWorld(t, func(cfg *Config) { cfg.Slurm, cfg.Poll = slurm, time.Millisecond })
	slurm.set(view(w.clock.Now(), slurmctld.Job{ID: 5, State: "running", UID: alice}, slurmctld.Job{ID: 6, State: "running", UID: alice, Account: "physics"}), nil)
	n1 := w.agent("n1", 8)
	c := w.user(alice)
	with := func(job uint32) *api.AcquireRequest { q := asked(1); q.JobId = job; return q }
	w.eventually("job known", func() bool {
		_, err := w.user(bob).Acquire(w.ctx(), with(6))
		return status.Code(err) == codes.PermissionDenied
	})
	expires, epilog, gone := w.acquire(c, asked(1)), w.acquire(c, with(5)), w.acquire(c, with(6))
	if gone.Account != "physics" {
		t.Errorf("account %q", gone.Account)
	}
	w.eventually("started", func() bool { return n1.count() >= 2 })
	reason := func(id uint64) api.EndReason {
		list, err := c.List(w.ctx(), &api.ListRequest{IncludeEnded: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range list.Leases {
			if l.Id == id {
				return l.EndReason
			}
		}
		return -1
	}
	n1.get(func() {
		n1.recordLocked(&api.AgentMessage{Message: &api.AgentMessage_JobEnded{JobEnded: &api.JobEnded{JobId: 5}}})
	})
	w.eventually("epilog", func() bool { return reason(epilog.Id) == api.EndReason_JOB_ENDED })
	w.clock.advance(5 * time.Second)
	slurm.set(view(w.clock.Now()), nil)
	w.eventually("job gone from the view", func() bool { return reason(gone.Id) == api.EndReason_JOB_ENDED })
	if got := reason(expires.Id); got != 0 {
		t.Errorf("ended early: %v", got)
	}
	w.clock.advance(20 * time.Second)
	if _, err := c.Renew(w.ctx(), &api.RenewRequest{LeaseId: expires.Id}); err != nil {
		t.Error(err)
	}
	w.clock.advance(29 * time.Second)
	if got := reason(expires.Id); got != 0 {
		t.Errorf("ended although renewed: %v", got)
	}
	w.clock.advance(2 * time.Second)
	w.eventually("holder died", func() bool { return reason(expires.Id) == api.EndReason_EXPIRED })
	w.eventually("all stopped", func() bool { return n1.count() == 0 })
}
