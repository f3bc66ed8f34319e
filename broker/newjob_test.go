package broker

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gleaner-hpc/gleaner/slurmplugin/slurmctld"
)

// A job that has begun since the last look is looked for at once; somebody else's is refused whether or not it was known before.
func TestLeaseOfANewJob(t *testing.T) {
	slurm := &slurmFake{}
	view := func(jobs ...slurmctld.Job) {
		slurm.set(&slurmctld.View{AsOf: newClock().Now(), Nodes: []slurmctld.Node{{Name: "n1", State: "idle", CPUs: 8, Cores: 8, ThreadsPerCore: 1, MemoryMiB: 8192}}, Jobs: jobs}, nil)
	}
	view() // before the first look, after which there is none for an hour
	w := newWorld(t, func(cfg *Config) { cfg.Slurm, cfg.Poll = slurm, time.Hour })
	with := func(uid uint32, job uint32) error {
		w.clock.advance(time.Second)
		q := asked(1)
		q.JobId = job
		_, err := w.user(uid).Acquire(w.ctx(), q)
		return err
	}
	w.eventually("the first look", func() bool { return w.viewed() })
	if s := status.Convert(with(alice, 7)); s.Code() != codes.FailedPrecondition || !strings.Contains(s.Message(), "slurmctld knows no job 7") {
		t.Errorf("unknown job: %v", s)
	}
	view(slurmctld.Job{ID: 7, State: "running", UID: alice}, slurmctld.Job{ID: 8, State: "running", UID: bob})
	if err := with(alice, 7); err != nil {
		t.Errorf("a new job: %v", err)
	}
	view(slurmctld.Job{ID: 7, State: "running", UID: alice}, slurmctld.Job{ID: 9, State: "running", UID: bob})
	if s := status.Convert(with(alice, 9)); s.Code() != codes.PermissionDenied || !strings.Contains(s.Message(), "belongs to uid 1001") {
		t.Errorf("somebody else's new job: %v", s)
	}
}

// While slurmctld cannot be read nobody gets a lease of a job that the broker does not know.
func TestLeaseOfAJobWithoutSlurmctld(t *testing.T) {
	slurm := &slurmFake{}
	slurm.set(nil, errors.New("connection refused"))
	w := newWorld(t, func(cfg *Config) { cfg.Slurm, cfg.Poll, cfg.JobPatience = slurm, time.Millisecond, 50*time.Millisecond })
	q := asked(1)
	q.JobId = 7
	_, err := w.user(alice).Acquire(w.ctx(), q)
	if s := status.Convert(err); s.Code() != codes.Aborted || !strings.Contains(s.Message(), "connection refused") {
		t.Errorf("got %v", err)
	}
	if _, err := w.user(alice).Acquire(w.ctx(), asked(1)); err != nil {
		t.Errorf("without a job: %v", err)
	}
}

// viewed says whether slurmctld has been read.
func (w *world) viewed() bool {
	seen := false
	_ = w.b.call(w.ctx(), func(s *state, _ time.Time) error {
		seen = s.view != nil
		return nil
	})
	return seen
}
