package broker

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gleaner-hpc/gleaner/api"
)

// Nodes returns what is known of each node, by name. Any caller with a credential may ask.
func (b *Broker) Nodes(ctx context.Context, _ *api.NodesRequest) (*api.NodesResponse, error) {
	if _, err := b.caller(ctx); err != nil {
		return nil, err
	}
	answer := &api.NodesResponse{}
	err := b.call(ctx, func(s *state, _ time.Time) error {
		answer.SlurmError = s.viewError
		if s.view != nil {
			answer.SlurmAsOf = timestamppb.New(s.view.AsOf)
		}
		for _, n := range s.sortedNodes() {
			answer.Nodes = append(answer.Nodes, s.status(n))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// status is a node as the CLI shows it. What its agent does not tell comes from slurmctld.
func (s *state) status(n *node) *api.NodeStatus {
	st := &api.NodeStatus{Node: n.name, Connected: n.session != nil, AgentVersion: n.version, Executors: uint32(len(n.booked))}
	st.Admitting, st.WhyNot = n.usable(s.view)
	if n.slurm != nil {
		st.SlurmState = strings.Join(append([]string{n.slurm.State}, n.slurm.Flags...), "+")
	}
	if n.state == nil {
		if n.slurm != nil {
			st.Total = &api.Resources{Cores: uint32(n.slurm.CPUs), MemoryBytes: n.slurm.MemoryMiB << 20, Gpus: uint32(n.slurm.GPUs)}
			st.Slurm = wire(n.allocated())
		}
		return st
	}
	st.Total, st.Slurm, st.Leased = n.state.Total, wire(n.allocated()), n.state.Leased
	st.Note = n.state.Note
	if st.Admitting {
		st.Free = n.state.Free
	}
	return st
}

// Report returns the utilization report. Any caller with a credential may ask. Without since it begins a day before until, which is now by default.
func (b *Broker) Report(ctx context.Context, q *api.ReportRequest) (*api.ReportResponse, error) {
	if _, err := b.caller(ctx); err != nil {
		return nil, err
	}
	if b.cfg.Report == nil {
		return nil, status.Error(codes.Unimplemented, "this broker keeps no report")
	}
	until := b.cfg.Now()
	if q.Until != nil {
		until = q.Until.AsTime()
	}
	since := until.Add(-24 * time.Hour)
	if q.Since != nil {
		since = q.Since.AsTime()
	}
	if !since.Before(until) {
		return nil, status.Errorf(codes.InvalidArgument, "since: %s is not before until, %s", since.Format(time.RFC3339), until.Format(time.RFC3339))
	}
	if err := b.settle(ctx); err != nil {
		return nil, err
	}
	json, err := b.cfg.Report(ctx, since, until)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "build report: %v", err)
	}
	return &api.ReportResponse{Json: json}, nil
}

// settle closes the open intervals and waits until what has been queued is stored, so that a report reaches to the present.
func (b *Broker) settle(ctx context.Context) error {
	stored := make(chan struct{})
	err := b.call(ctx, func(s *state, now time.Time) error {
		s.closeIntervals(now)
		if !s.rec.add(record{what: stored}) {
			close(stored)
		}
		return nil
	})
	if err != nil {
		return err
	}
	select {
	case <-stored:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-b.stopped:
		return errStopping
	}
}
