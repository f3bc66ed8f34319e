package broker

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
)

const (
	// jobAgain is the time between looks at what slurmctld has said.
	jobAgain = 20 * time.Millisecond
	// lookRest bounds how often it is read out of turn.
	lookRest = 500 * time.Millisecond
)

// awaitJob waits until slurmctld has named a lease's job, which may have begun since the last look: whose job it is decides whether
// the lease is admitted. It refuses when a look that began after the request does not name it, and when there is no such look in time.
func (b *Broker) awaitJob(ctx context.Context, job uint32) *denial {
	if job == 0 || b.cfg.Slurm == nil {
		return nil
	}
	asked, began := b.cfg.Now(), time.Now()
	for {
		known, looked, why := false, false, ""
		err := b.call(ctx, func(s *state, _ time.Time) error {
			known, looked, why = s.jobs[job] != nil, s.view != nil && !s.viewBegan.Before(asked), s.viewError
			return nil
		})
		switch {
		case err != nil:
			return &denial{"job", err}
		case known:
			return nil
		case looked:
			return deny("job", codes.FailedPrecondition, "job_id: slurmctld knows no job %d that has not ended", job)
		case time.Since(began) > b.cfg.JobPatience:
			return deny("job", codes.Aborted, "job_id: whose job %d is cannot be known while slurmctld cannot be read (%s); try again, or without a job", job, orNone(why))
		}
		select {
		case b.look <- struct{}{}:
		default:
		}
		select {
		case <-time.After(jobAgain):
		case <-ctx.Done():
		}
	}
}

func orNone(why string) string {
	if why == "" {
		return "it has not answered yet"
	}
	return why
}
