package broker

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/slurmplugin/slurmctld"
)

// jobSettles is how long after a lease was admitted a look at slurmctld must have begun to prove that the lease's job is over by
// not naming it.
const jobSettles = 2 * time.Second

// observe takes one look at slurmctld.
func (s *state) observe(now time.Time, o *observed) {
	if o.err != nil {
		if s.viewError == "" {
			s.cfg.Log.Warn("cannot read slurmctld; until that works the agents' own ledgers decide", "error", o.err)
		}
		s.viewError = o.err.Error()
		return
	}
	if s.viewError != "" {
		s.cfg.Log.Info("slurmctld can be read again")
	}
	before := s.view
	s.view, s.viewBegan, s.viewError = o.view, o.began, ""
	if before == o.view {
		s.viewAge = o.began.Sub(s.viewFirst)
		for _, n := range s.nodes {
			s.pushJobs(n) // an agent may hold what slurmctld has not named for long
		}
		s.endJobs(now, o.began)
		return
	}
	s.viewFirst, s.viewAge = o.began, 0
	s.jobs = make(map[uint32]*slurmctld.Job, len(o.view.Jobs))
	shares := map[string][]*api.JobHold{}
	for i := range o.view.Jobs {
		job := &o.view.Jobs[i]
		s.jobs[job.ID] = job
		lent := share(s.cfg.Watch > 0 && s.cfg.Sharing.Of(job))
		for _, share := range job.Nodes {
			shares[share.Node] = append(shares[share.Node], &api.JobHold{
				JobId: job.ID, Cores: share.Cores, CoreCount: uint32(share.CoreCount), MemoryBytes: share.MiB << 20, Gpus: uint32(share.GPUs),
				Share: lent,
			})
		}
	}
	for _, n := range s.nodes {
		n.slurm = nil
	}
	for i := range o.view.Nodes {
		s.node(now, o.view.Nodes[i].Name).slurm = &o.view.Nodes[i]
	}
	s.foresee()
	for _, n := range s.nodes {
		n.shares = shares[n.name]
		s.pushJobs(n)
		s.measure(now, n)
	}
	if before != nil {
		was, _ := outOfService(before)
		is, reasons := outOfService(o.view)
		s.drained(now, was, is, reasons)
	}
	s.endJobs(now, o.began)
	s.dirty = true
}

// dropView forgets a view that has grown too old to be believed.
func (s *state) dropView(now time.Time) {
	s.view, s.jobs = nil, nil
	for _, n := range s.nodes {
		n.slurm, n.shares, n.forecast = nil, nil, forecast{}
		s.measure(now, n)
	}
	s.dirty = true
}

// endJobs ends the leases whose Slurm job is over, after slurmctld; the agents' Epilogs usually say so first.
func (s *state) endJobs(now, began time.Time) {
	for _, l := range s.table.Leases() {
		job := l.Request.Job
		if job == 0 {
			continue
		}
		known := s.jobs[job]
		if known == nil && began.Sub(l.Created) > jobSettles || known != nil && jobOver[known.State] {
			s.table.JobEnded(now, job)
		}
	}
}

var jobOver = map[string]bool{
	"completed": true, "completing": true, "cancelled": true, "failed": true, "timeout": true, "node_fail": true, "preempted": true,
	"boot_fail": true, "deadline": true, "out_of_memory": true, "revoked": true,
}

// pushJobs tells an agent what slurmctld says of its node, when that has changed or differs from what the agent holds.
func (s *state) pushJobs(n *node) {
	if s.view == nil || n.session == nil {
		return
	}
	push := &api.SlurmJobs{Jobs: n.shares}
	push.Harvestable, push.WhyNot = n.harvestable(s.view)
	push.Vacate = n.slurm != nil && n.slurm.Vacate()
	as := timestamppb.New(s.view.AsOf.Add(s.viewAge))
	if n.pushed != nil {
		push.AsOf = n.pushed.AsOf
		if proto.Equal(push, n.pushed) && (sameJobs(n.shares, n.state.GetJobs()) || proto.Equal(as, n.pushed.AsOf)) {
			return
		}
	}
	push.AsOf = as
	n.pushed = push
	n.send(&api.BrokerMessage{Message: &api.BrokerMessage_SlurmJobs{SlurmJobs: push}})
}

// sameJobs says whether both name the same jobs.
func sameJobs(a, b []*api.JobHold) bool {
	ids := func(holds []*api.JobHold) []uint32 {
		var ids []uint32
		for _, h := range holds {
			ids = append(ids, h.JobId)
		}
		slices.Sort(ids)
		return slices.Compact(ids)
	}
	return slices.Equal(ids(a), ids(b))
}

// outOfService names the nodes that run no new jobs, with the administrator's or Slurm's reason.
func outOfService(view *slurmctld.View) (map[string]bool, map[string]string) {
	out, reasons := map[string]bool{}, map[string]string{}
	for i := range view.Nodes {
		n := &view.Nodes[i]
		if n.State == "down" || slices.Contains(n.Flags, "drain") || slices.Contains(n.Flags, "fail") {
			out[n.Name], reasons[n.Name] = true, n.Reason
			if n.Reason == "" {
				reasons[n.Name] = fmt.Sprintf("no reason given (state %s)", n.State)
			}
		}
	}
	return out, reasons
}
