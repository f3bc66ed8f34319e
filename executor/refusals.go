package executor

import (
	"time"

	wire "github.com/gleaner-hpc/gleaner/api/executor"
	"github.com/gleaner-hpc/gleaner/api/jsonframe"
)

// tellWithin bounds how often the agent hears of refusals.
const tellWithin = time.Second

// refusals counts clients that were not let in. Each reason is logged once: whoever knocks with bad tokens does not fill the log.
type refusals struct {
	seen    map[uint32]bool
	untold  map[string]uint64 // by wire.TokenReasons
	tell    *time.Timer       // runs while there is something to tell
	running bool
}

func newRefusals() refusals {
	r := refusals{seen: map[uint32]bool{}, untold: map[string]uint64{}, tell: time.NewTimer(time.Hour)}
	r.tell.Stop()
	return r
}

// count notes a refusal and reports whether it is the first for its reason.
func (r *refusals) count(code uint32) (first bool) {
	first = !r.seen[code]
	r.seen[code] = true
	if code < refusedMalformed || code > refusedEpoch {
		return first
	}
	r.untold[wire.TokenReasons[code-refusedMalformed]]++
	if !r.running {
		r.running = true
		r.tell.Reset(tellWithin)
	}
	return first
}

// tellRefusals gives the counts to the agent, or keeps them until there is one.
func (s *supervisor) tellRefusals() {
	s.refused.running = false
	if s.agent == nil || len(s.refused.untold) == 0 {
		return
	}
	_ = s.agent.SetWriteDeadline(time.Now().Add(writeTimeout))
	if jsonframe.Write(s.agent, wire.FromExecutor{Refused: &wire.Refused{Tokens: s.refused.untold}}) == nil {
		s.refused.untold = map[string]uint64{}
	}
}
