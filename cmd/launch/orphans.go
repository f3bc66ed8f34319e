package main

import (
	"context"
	"time"
)

// deadMan ends every sandbox when no agent has been connected for longer than the orphan timeout. Executors end themselves then; this is
// for those that do not, because what runs in them has seen to that.
func (s *server) deadMan(ctx context.Context) {
	if s.orphanTimeout <= 0 {
		return
	}
	timer := time.NewTimer(s.orphanTimeout)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.presence:
			if s.attended() {
				timer.Stop()
			} else {
				timer.Reset(s.orphanTimeout)
			}
		case <-timer.C:
			if !s.attended() {
				s.endOrphans(ctx)
				timer.Reset(s.orphanTimeout) // for what has not ended
			}
		}
	}
}

// attended says whether an agent is connected.
func (s *server) attended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.peers) > 0
}

// noticed wakes deadMan after an agent has come or gone.
func (s *server) noticed() {
	select {
	case s.presence <- struct{}{}:
	default:
	}
}

func (s *server) endOrphans(ctx context.Context) {
	all, err := s.manager.List(ctx)
	ids := make([]string, 0, len(all))
	for _, box := range all {
		ids = append(ids, box.ID)
	}
	if err == nil && len(ids) == 0 {
		return
	}
	var remaining []string
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, longestKill)
		defer cancel()
		remaining, err = s.manager.Kill(ctx, ids...)
	}
	s.log.Warn("no agent for longer than the orphan timeout; its sandboxes are ended", "timeout", s.orphanTimeout,
		"sandboxes", ids, "remaining", remaining, "error", err)
}
