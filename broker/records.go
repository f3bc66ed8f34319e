package broker

import (
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"maps"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/broker/lease"
	"github.com/gleaner-hpc/gleaner/broker/meter"
	"github.com/gleaner-hpc/gleaner/broker/placement"
	"github.com/gleaner-hpc/gleaner/broker/store"
	"github.com/gleaner-hpc/gleaner/report"
)

// causes are the ends after which a node rests.
var causes = map[api.EndReason]placement.Cause{
	api.EndReason_EVICTED: placement.Evicted, api.EndReason_REFUSED: placement.Refused, api.EndReason_EXECUTOR_FAILED: placement.Failed,
}

// reasonName is an end reason as metrics, reports and people read it: "job_ended".
func reasonName(r api.EndReason) string { return strings.ToLower(r.String()) }

// reasonWords is the reason for people.
func reasonWords(r api.EndReason) string { return strings.ReplaceAll(reasonName(r), "_", " ") }

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (s *state) publicKey() ed25519.PublicKey { return s.cfg.Store.Key().Public().(ed25519.PublicKey) }

// nodeState takes what an agent's ledger says.
func (s *state) nodeState(now time.Time, n *node, state *api.NodeState) {
	n.state = state
	if state.GetStalls() != nil {
		s.looked[n.name] = true
	}
	for _, job := range state.GetJobs() {
		delete(n.over, job.JobId) // it came back, requeued
	}
	s.pushJobs(n)
	s.measure(now, n)
	s.dirty = true
}

// measure starts a new interval when what the node does has changed.
func (s *state) measure(now time.Time, n *node) {
	sample, known := s.sample(n)
	var ended []report.Interval
	if known {
		ended = s.meter.Set(now, sample)
	} else {
		ended = s.meter.Clear(now, n.name)
	}
	for _, i := range ended {
		s.keepInterval(i)
	}
}

// sample is what a node does now; false when neither slurmctld nor its agent tells.
func (s *state) sample(n *node) (report.Interval, bool) {
	total, leased, allocated, threads := resources(n.state.GetTotal()), resources(n.state.GetLeased()), n.allocated(), n.threads()
	if n.slurm == nil {
		return report.Interval{
			Node: n.name, State: report.Idle, CPUs: total.Cores, AllocatedCPUs: allocated.Cores, HarvestedCPUs: leased.Cores,
			MemoryBytes: total.MemoryBytes, AllocatedMemory: allocated.MemoryBytes, HarvestedMemory: leased.MemoryBytes,
			GPUs: total.GPUs, AllocatedGPUs: allocated.GPUs, HarvestedGPUs: leased.GPUs,
		}, n.state != nil
	}
	i := report.Interval{
		Node: n.name, State: meter.StateOf(n.slurm.State, n.slurm.Flags), CPUs: n.slurm.CPUs,
		AllocatedCPUs: allocated.Cores * threads, HarvestedCPUs: leased.Cores * threads,
		MemoryBytes: n.slurm.MemoryMiB << 20, AllocatedMemory: allocated.MemoryBytes, HarvestedMemory: leased.MemoryBytes,
		GPUs: n.slurm.GPUs, AllocatedGPUs: allocated.GPUs, HarvestedGPUs: leased.GPUs,
	}
	if len(n.slurm.Partitions) > 0 {
		i.Partition = n.slurm.Partitions[0]
	}
	if n.slurm.FreeMiB > 0 && n.slurm.FreeMiB <= n.slurm.MemoryMiB {
		i.UsedMemory = (n.slurm.MemoryMiB - n.slurm.FreeMiB) << 20
	}
	return i, true
}

func (s *state) keepInterval(i report.Interval) {
	s.metrics.harvestedCPU.WithLabelValues(i.Partition).Add(float64(i.HarvestedCPUs) * i.End.Sub(i.Start).Seconds())
	if !s.rec.add(record{what: i}) {
		s.metrics.dropped.Inc()
	}
}

func (s *state) closeIntervals(now time.Time) {
	for _, i := range s.meter.Close(now) {
		s.keepInterval(i)
	}
}

// lookup finds a lease that lives, has just ended, or ended long ago; nil when there is none.
func (s *state) lookup(id uint64) *lease.Lease {
	if l := s.table.Get(id); l != nil {
		return l
	}
	if l := s.change.Leases[id]; l != nil {
		return l
	}
	l, err := s.cfg.Store.Ended(id)
	if err != nil {
		s.cfg.Log.Error("cannot read an ended lease", "lease", id, "error", err)
	}
	return l
}

// executorRecord is an executor's life for the report; nil when it never ran.
func (s *state) executorRecord(n *node, e *api.ExecutorEnded) *report.Executor {
	if e.Started == nil || e.Ended == nil {
		return nil
	}
	r := &report.Executor{
		ID: e.Id, Node: n.name, Start: e.Started.AsTime(), End: e.Ended.AsTime(), CPUTime: time.Duration(e.CpuNanoseconds),
		SpinTime:  time.Duration(e.SpinNanoseconds),
		PeakBytes: e.PeakMemoryBytes, Reason: reasonName(e.Reason), Detail: e.Detail,
	}
	if n.slurm != nil && len(n.slurm.Partitions) > 0 {
		r.Partition = n.slurm.Partitions[0]
	}
	if b := n.booked[e.Id]; b != nil {
		r.Startup = b.startup
	}
	id, err := leaseOf(e.Id)
	if err != nil {
		return r
	}
	r.Lease = id
	if l := s.lookup(id); l != nil {
		q := &l.Request
		r.UID, r.Account, r.Function, r.Digest = q.UID, q.Account, q.Function.Name, hex.EncodeToString(q.Function.Digest)
		if r.Function == "" {
			r.Function = q.Function.Symbol
		}
		r.Cores, r.Memory, r.GPUs = q.Each.Cores, q.Each.MemoryBytes, q.Each.GPUs
	}
	return r
}

// assume keeps a record of an executor of which its agent may never tell the end: it is taken to have run until its node was last
// heard of, and gives way to the agent's own record.
func (s *state) assume(n *node, id string, end time.Time, detail string) {
	x := s.table.Executor(id)
	if x == nil || !x.Ready || !end.After(x.Placed) {
		return
	}
	r := s.executorRecord(n, &api.ExecutorEnded{
		Id: id, Reason: api.EndReason_NODE_LOST, Detail: detail, Started: timestamppb.New(x.Placed), Ended: timestamppb.New(end),
	})
	if !s.rec.add(record{what: *r}) {
		s.metrics.dropped.Inc()
	}
}

func (s *state) claim(n *node, c *api.Claim) any {
	seconds := c.Duration.AsDuration().Seconds()
	s.metrics.startDelay.Observe(seconds)
	if len(c.Evicted) > 0 {
		s.metrics.eviction.Observe(seconds)
	}
	return report.Claim{
		Job: c.JobId, Node: n.name, Path: c.Path, Time: c.Time.AsTime(), Duration: c.Duration.AsDuration(),
		Evicted: len(c.Evicted), Memory: c.MemoryBytes, Complete: c.Complete,
	}
}

// recordsStored acknowledges records once their numbers are stored too.
func (s *state) recordsStored(stored map[string]store.Node) {
	for name, r := range stored {
		n := s.nodes[name]
		if n == nil || n.boot != r.Boot || r.Record <= n.stored {
			continue
		}
		n.stored = r.Record
		s.change.Nodes = merge(s.change.Nodes, map[string]store.Node{name: r})
		s.acks[name] = r
	}
}

// drained notes the nodes that left service since the last look.
func (s *state) drained(now time.Time, was, is map[string]bool, reasons map[string]string) {
	for name := range maps.Keys(is) {
		if !was[name] {
			reason := reasons[name]
			s.rec.add(record{what: report.Drain{
				Node: name, Time: now, Reason: reason, Ours: strings.Contains(strings.ToLower(reason), "gleaner"),
			}})
		}
	}
}
