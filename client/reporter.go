package client

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/gleaner-hpc/gleaner/api"
)

// reporter tells the broker what became of tasks, in batches, so that `gleaner explain` and the report know. What the broker did
// not take is sent again with the next batch.
type reporter struct {
	leases api.LeasesClient
	lease  uint64

	mu                  sync.Mutex
	ok, failed, retried uint64
	records             map[uint64]*api.TaskRecord
}

const (
	reportEvery = 2 * time.Second
	maxRecords  = 4096 // that wait for the broker; beyond, totals alone are kept
)

func newReporter(leases api.LeasesClient, lease uint64) *reporter {
	return &reporter{leases: leases, lease: lease, records: map[uint64]*api.TaskRecord{}}
}

// task notes a retry (WAITING) or an end. Tasks that succeed at once are only counted.
func (r *reporter) task(result *Result, outcome api.TaskRecord_Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch outcome {
	case api.TaskRecord_OK:
		r.ok++
	case api.TaskRecord_FAILED:
		r.failed++
	default:
		r.retried++
	}
	if outcome == api.TaskRecord_OK && len(result.Attempts) == 1 {
		return
	}
	if _, known := r.records[result.Index]; known || len(r.records) < maxRecords {
		r.records[result.Index] = result.record(outcome)
	}
}

func (r *reporter) add(ok, failed, retried uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ok += ok
	r.failed += failed
	r.retried += retried
}

// Run sends batches until ctx ends.
func (r *reporter) Run(ctx context.Context) {
	ticker := time.NewTicker(reportEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			_ = r.flush(ctx) // kept for the next batch
		}
	}
}

// flush sends what has gathered.
func (r *reporter) flush(ctx context.Context) error {
	r.mu.Lock()
	batch := &api.ReportTasksRequest{LeaseId: r.lease, Ok: r.ok, Failed: r.failed, Retried: r.retried}
	for _, record := range r.records {
		batch.Tasks = append(batch.Tasks, record)
	}
	taken := r.records
	r.records = map[uint64]*api.TaskRecord{}
	r.ok, r.failed, r.retried = 0, 0, 0
	r.mu.Unlock()
	if batch.Ok+batch.Failed+batch.Retried == 0 && len(batch.Tasks) == 0 {
		return nil
	}
	if _, err := r.leases.ReportTasks(ctx, batch); err != nil {
		r.restore(batch, taken)
		return Describe(fmt.Sprintf("report the tasks of lease %d", r.lease), err)
	}
	return nil
}

func (r *reporter) restore(batch *api.ReportTasksRequest, taken map[uint64]*api.TaskRecord) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ok += batch.Ok
	r.failed += batch.Failed
	r.retried += batch.Retried
	for index, record := range taken {
		if r.records[index] == nil {
			r.records[index] = record
		}
	}
}
