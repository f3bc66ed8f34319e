package executor

import (
	"time"

	wire "github.com/gleaner-hpc/gleaner/api/executor"
)

// graceTick is how often the request that may finish is looked at.
const graceTick = time.Millisecond / 2

// leaving is a revoked lease whose running request may finish.
type leaving struct {
	reason     string
	ends       time.Time
	generation uint64
	tick       *time.Timer
}

// revoked ends the lease, at once unless a request runs and was given a grace. It reports whether the executor ends.
func (s *supervisor) revoked(r *wire.Revoke) bool {
	if r.Grace > 0 && s.worker != nil {
		if _, _, generation, running := s.worker.state.running(); running {
			s.leaving.reason, s.leaving.ends, s.leaving.generation = r.Reason, time.Now().Add(r.Grace), generation
			s.leaving.tick.Reset(graceTick)
			return false
		}
	}
	s.revoke(r.Reason)
	return true
}

// graceOver says whether the request that ran has ended, or its time has. What has begun since is cut off.
func (s *supervisor) graceOver() bool {
	if s.worker == nil || !time.Now().Before(s.leaving.ends) {
		return true
	}
	if _, _, generation, running := s.worker.state.running(); !running || generation != s.leaving.generation {
		return true
	}
	s.leaving.tick.Reset(graceTick)
	return false
}
