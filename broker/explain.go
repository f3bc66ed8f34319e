package broker

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/broker/lease"
)

// Explain tells the story of a lease or of a task.
func (b *Broker) Explain(ctx context.Context, q *api.ExplainRequest) (*api.Explanation, error) {
	if q.LeaseId == 0 {
		return b.explainDenied(ctx)
	}
	var answer *api.Explanation
	err := b.withLease(ctx, q.LeaseId, func(s *state, _ time.Time, l *lease.Lease) error {
		summary, advice := summarize(l)
		if spin := s.spinOf(l); spin >= time.Millisecond {
			summary += fmt.Sprintf(" Its executors polled for calls, without serving, for %s (--spin).", spin.Round(time.Millisecond))
		}
		answer = &api.Explanation{Summary: summary, Advice: advice}
		return nil
	})
	if err != nil {
		return nil, err
	}
	// What the step saw is committed by now.
	if q.Task != nil {
		return b.explainTask(q.LeaseId, *q.Task, answer)
	}
	history, err := b.cfg.Store.History(q.LeaseId)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	for _, e := range history {
		answer.History = append(answer.History, &api.Explanation_Entry{Time: timestamppb.New(e.Time), What: e.What, Why: e.Why})
	}
	_, totals, err := b.cfg.Store.Task(q.LeaseId, 0)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if totals.OK+totals.Failed > 0 {
		answer.Summary += fmt.Sprintf(" Its holder reported %s done, %d failed, %d repeated.", plural(int(totals.OK), "task"), totals.Failed, totals.Retried)
	}
	return answer, nil
}

// explainDenied tells the caller of the requests of his that were denied, which are no leases.
func (b *Broker) explainDenied(ctx context.Context) (*api.Explanation, error) {
	caller, err := b.caller(ctx)
	if err != nil {
		return nil, err
	}
	answer := &api.Explanation{}
	err = b.call(ctx, func(s *state, _ time.Time) error {
		var list []denied
		answer.Summary, list = s.explainDenials(caller.UID)
		for _, d := range list {
			answer.History = append(answer.History, &api.Explanation_Entry{Time: timestamppb.New(d.when), What: "denied by rule " + d.rule, Why: d.why})
		}
		return nil
	})
	return answer, err
}

// summarize says in a sentence where a lease stands, and what its holder can do.
func summarize(l *lease.Lease) (summary, advice string) {
	r := &l.Request
	evicted := ""
	if l.Evictions > 0 {
		evicted = fmt.Sprintf(" Slurm's jobs have taken back %s so far.", plural(int(l.Evictions), "executor"))
	}
	switch {
	case !l.Ended.IsZero():
		summary = endSummary(l)
		switch l.Reason {
		case api.EndReason_EXPIRED:
			advice = "Its holder must renew it, three times in each ttl; did the client end or lose its network? Run it again: gleaner map takes up what is missing."
		case api.EndReason_JOB_ENDED:
			advice = "Submit the job again: gleaner map takes up what is missing. A longer time limit, or a lease without a job, lives longer."
		}
	case l.Missing() == 0 && l.ReadyCount() == r.Executors:
		summary = fmt.Sprintf("Lease %d has all of its %s.", l.ID, plural(r.Executors, "executor"))
	case l.Missing() == 0:
		summary = fmt.Sprintf("Lease %d has %s; %d more starting.", l.ID, plural(l.ReadyCount(), "executor"), r.Executors-l.ReadyCount())
	default:
		summary = fmt.Sprintf("Lease %d has %d of %d executors and waits for the others: %s.", l.ID, l.ReadyCount(), r.Executors, l.Detail)
		advice = "Executors come by themselves when jobs leave. Smaller ones (fewer cores, less memory) find room sooner."
	}
	return summary + evicted, advice
}

// endSummary says why a lease ended, in the words of its detail alone when it has one.
func endSummary(l *lease.Lease) string {
	if l.Detail != "" {
		return fmt.Sprintf("Lease %d ended: %s.", l.ID, l.Detail)
	}
	return fmt.Sprintf("Lease %d ended: %s.", l.ID, reasonWords(l.Reason))
}

func (b *Broker) explainTask(id, index uint64, answer *api.Explanation) (*api.Explanation, error) {
	record, totals, err := b.cfg.Store.Task(id, index)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if len(record) == 0 {
		cut := ""
		if totals.Cut > 0 {
			cut = fmt.Sprintf(", and the records of %d tasks of this lease were cut", totals.Cut)
		}
		return &api.Explanation{
			Summary: fmt.Sprintf("Nothing is recorded of task %d.%d.", id, index),
			Advice:  fmt.Sprintf("Only tasks that were retried, failed or wait are recorded one by one%s. %s", cut, answer.Summary),
		}, nil
	}
	var t api.TaskRecord
	if err := proto.Unmarshal(record, &t); err != nil {
		return nil, status.Errorf(codes.Internal, "decode record of task %d.%d: %v", id, index, err)
	}
	told := &api.Explanation{}
	for i, a := range t.Attempts {
		e := &api.Explanation_Entry{Time: a.End, What: fmt.Sprintf("attempt %d on %s (executor %s)", i+1, a.Node, a.Executor), Why: a.Error}
		if a.Error == "" {
			e.What += ": done"
		}
		told.History = append(told.History, e)
	}
	name := fmt.Sprintf("Task %d.%d", id, index)
	if t.Name != "" {
		name += fmt.Sprintf(" (%s)", t.Name)
	}
	last := "no attempt yet"
	if n := len(t.Attempts); n > 0 {
		last = t.Attempts[n-1].Error
	}
	switch t.Outcome {
	case api.TaskRecord_OK:
		told.Summary = fmt.Sprintf("%s is done, at attempt %d.", name, len(t.Attempts))
	case api.TaskRecord_FAILED:
		told.Summary = fmt.Sprintf("%s failed: %s.", name, last)
		told.Advice = "The function or its input is at fault, or retries ran out; evictions alone do not fail a task. Correct it and run again: only what is missing is done."
	default:
		told.Summary = fmt.Sprintf("%s waits: %s.", name, last)
		told.Advice = answer.Summary
	}
	return told, nil
}
