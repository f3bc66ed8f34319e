package broker

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/policies"
	"github.com/gleaner-hpc/gleaner/slurmplugin/slurmctld"
)

func TestSharing(t *testing.T) {
	s := Sharing{Default: true, Partitions: map[string]bool{"debug": false, "big": true}, Accounts: map[string]bool{"secret": false, "open": true}}
	for name, test := range map[string]struct {
		job  slurmctld.Job
		want bool
	}{
		"default":                  {slurmctld.Job{Partition: "main"}, true},
		"whole nodes":              {slurmctld.Job{Partition: "main", Exclusive: true}, false},
		"partition":                {slurmctld.Job{Partition: "debug"}, false},
		"partition and exclusive":  {slurmctld.Job{Partition: "big", Exclusive: true}, true},
		"account over partition":   {slurmctld.Job{Partition: "debug", Account: "open"}, true},
		"account over the default": {slurmctld.Job{Partition: "main", Account: "secret"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := s.Of(&test.job); got != test.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

// view is a cluster of one node with a running and a pending job.
func (w *world) view(expectedIn time.Duration) *slurmctld.View {
	now := w.clock.Now()
	return &slurmctld.View{
		AsOf:  now,
		Nodes: []slurmctld.Node{{Name: "n1", State: "mixed", Partitions: []string{"main"}, CPUs: 8, Cores: 8, ThreadsPerCore: 1, MemoryMiB: 8192, AllocatedCPUs: 2, AllocatedMiB: 2048}},
		Jobs: []slurmctld.Job{
			{ID: 77, State: "running", UID: 1000, Account: "lab", Partition: "main", End: now.Add(time.Hour), Nodes: []slurmctld.Share{{Node: "n1", Cores: "0-1", CoreCount: 2, MiB: 2048}}},
			{ID: 78, State: "pending", UID: 1000, Account: "lab", Partition: "main", Start: now.Add(expectedIn), Expected: []string{"n1"}},
		},
	}
}

// A function is placed where it can end before the next job, and nothing where that job is near.
func TestCarefulWaits(t *testing.T) {
	slurm := &slurmFake{}
	w := newWorld(t, func(c *Config) {
		c.Policy, c.Slurm, c.Poll, c.Watch, c.Sharing = policies.Careful{}, slurm, 5*time.Millisecond, time.Second, Sharing{Default: true}
	})
	slurm.set(w.view(2*time.Minute), nil)
	n1 := w.agent("n1", 8)
	c := w.user(alice)
	long, short := asked(1), asked(1)
	long.Length, short.Length = durationpb.New(10*time.Minute), durationpb.New(time.Minute)
	for _, q := range []*api.AcquireRequest{long, short} {
		q.Ttl = durationpb.New(time.Hour)
	}
	waits, runs := w.follow(c, w.acquire(c, long).Id), w.follow(c, w.acquire(c, short).Id)
	w.eventually("the short one runs", runs.is(func() bool { return len(runs.ready) == 1 }))
	w.eventually("the long one waits", waits.is(func() bool {
		return len(waits.ready) == 0 && strings.Contains(waits.last.GetDetail(), "not picked by the policy")
	}))
	w.eventually("the job's sharing is told", func() (told bool) {
		n1.get(func() {
			told = len(n1.pushed) > 0 && len(n1.pushed[len(n1.pushed)-1].Jobs) == 1 && n1.pushed[len(n1.pushed)-1].Jobs[0].Share == api.Share_SHARE_YES
		})
		return told
	})
	w.clock.advance(110 * time.Second)
	near := w.view(10 * time.Second)
	slurm.set(near, nil)
	late := w.follow(c, w.acquire(c, asked(1)).Id)
	w.eventually("nothing starts any more", late.is(func() bool {
		return len(late.ready) == 0 && strings.Contains(late.last.GetDetail(), "a job is expected there at")
	}))
}

// Executors that press a job go at the next tick, and their function is not placed beside that kind of job again.
func TestPressureSheds(t *testing.T) {
	slurm := &slurmFake{}
	w := newWorld(t, func(c *Config) {
		c.Policy, c.Slurm, c.Poll, c.Watch = policies.Pressure{}, slurm, 5*time.Millisecond, time.Second
	})
	slurm.set(w.view(time.Hour), nil)
	n1 := w.agent("n1", 8)
	n1.get(func() { n1.slurm = 2; n1.stalls = &api.Stalls{}; n1.sendState() })
	c := w.user(alice)
	f := w.follow(c, w.acquire(c, asked(4)).Id)
	w.eventually("ready", f.is(func() bool { return len(f.ready) == 4 }))
	w.clock.advance(time.Second)
	w.eventually("the order is told, the youngest first", func() (told bool) {
		w.clock.advance(time.Millisecond)
		n1.get(func() { told = slices.Equal(n1.order, []string{"1-4", "1-3", "1-2", "1-1"}) || len(n1.order) == 4 })
		return told
	})
	n1.get(func() { n1.stalls = &api.Stalls{Memory: 0.5}; n1.sendState() })
	w.eventually("half of them go", func() bool {
		w.clock.advance(time.Millisecond)
		return f.is(func() bool { return len(f.gone) >= 2 })()
	})
	for range enoughStates {
		n1.get(n1.sendState)
		w.clock.advance(300 * time.Millisecond)
	}
	w.eventually("all of them go", func() bool {
		n1.get(n1.sendState)
		w.clock.advance(300 * time.Millisecond)
		return n1.count() == 0
	})
	f.is(func() bool {
		if g := f.gone[0]; g.Reason != api.EndReason_EVICTED || g.Detail != "evicted: the jobs there stall: memory" {
			t.Errorf("%v: %s", g.Reason, g.Detail)
		}
		return true
	})()
	w.eventually("the lease knows why it waits", func() bool {
		w.clock.advance(time.Millisecond) // nobody renews the lease
		return f.is(func() bool { return strings.Contains(f.last.GetDetail(), "the jobs there stall: memory") })()
	})
}

// A node that cannot tell its memory bandwidth has nothing beside its jobs. One that has told nothing yet keeps what it runs and gets no
// more.
func TestPressureIsNotBlind(t *testing.T) {
	slurm := &slurmFake{}
	w := newWorld(t, func(c *Config) {
		c.Policy, c.Slurm, c.Poll, c.Watch = policies.Pressure{}, slurm, 5*time.Millisecond, time.Second
	})
	idle := w.view(time.Hour)
	idle.Jobs, idle.Nodes[0].AllocatedCPUs, idle.Nodes[0].AllocatedMiB = nil, 0, 0
	slurm.set(idle, nil)
	n1 := w.agent("n1", 8)
	c := w.user(alice)
	f := w.follow(c, w.acquire(c, asked(2)).Id)
	w.eventually("without jobs it lends", f.is(func() bool { return len(f.ready) == 2 }))

	slurm.set(w.view(time.Hour), nil)
	n1.get(func() { n1.slurm = 2; n1.sendState() })
	w.eventually("the job is known", func() (known bool) {
		_ = w.b.call(w.ctx(), func(s *state, _ time.Time) error {
			known = len(s.nodes["n1"].state.GetJobs()) == 1
			return nil
		})
		return known
	})
	more := w.follow(c, w.acquire(c, asked(1)).Id)
	w.eventually("nothing more until it has told", func() bool {
		w.clock.advance(time.Millisecond)
		return more.is(func() bool {
			return len(more.ready) == 0 && strings.Contains(more.last.GetDetail(), "the node has not told yet how its jobs fare")
		})()
	})
	f.is(func() bool {
		if len(f.gone) > 0 {
			t.Errorf("gone before it has told: %v", f.gone)
		}
		return true
	})()

	n1.get(func() { n1.stalls = &api.Stalls{Missing: []string{"bandwidth"}}; n1.sendState() })
	w.eventually("all of them go", func() bool {
		w.clock.advance(time.Millisecond)
		return f.is(func() bool { return len(f.gone) == 2 })()
	})
	f.is(func() bool {
		for _, g := range f.gone {
			if g.Reason != api.EndReason_EVICTED || !strings.Contains(g.Detail, "mount resctrl there") {
				t.Errorf("%v: %s", g.Reason, g.Detail)
			}
		}
		return true
	})()

	n1.get(func() { n1.stalls = &api.Stalls{}; n1.sendState() })
	w.eventually("it sees, and lends", func() bool {
		w.clock.advance(time.Second)
		return f.is(func() bool { return len(f.ready) > 2 })() || more.is(func() bool { return len(more.ready) > 0 })()
	})
}

// enoughStates teach the broker that a pair clashes.
const enoughStates = 2 * policies.EnoughSeen
