package executor

import (
	"time"

	wire "github.com/gleaner-hpc/gleaner/api/executor"
	"github.com/gleaner-hpc/gleaner/api/jsonframe"
)

// usageEvery is how often the agent hears of what workers did, while they have clients and once after.
const usageEvery = time.Second

// usage sums up what workers say of themselves, from the state pages that they write.
type usage struct {
	past wire.Usage // of workers that have ended
	told wire.Usage
	tell *time.Timer // runs while there may be something to tell
}

func newUsage() usage {
	u := usage{tell: time.NewTimer(time.Hour)}
	u.tell.Stop()
	return u
}

// said reads a worker's page.
func (p *page) said() wire.Usage {
	return wire.Usage{SpinNS: p.spinNS.Load(), BusyNS: p.busyNS.Load(), Invocations: p.invocations.Load()}
}

func plus(a, b wire.Usage) wire.Usage {
	return wire.Usage{SpinNS: a.SpinNS + b.SpinNS, BusyNS: a.BusyNS + b.BusyNS, Invocations: a.Invocations + b.Invocations}
}

// tellUsage gives the sums to the agent when they have grown.
func (s *supervisor) tellUsage() {
	if len(s.clients) > 0 {
		s.usage.tell.Reset(usageEvery)
	}
	now := s.usage.past
	if s.worker != nil {
		now = plus(now, s.worker.state.said())
	}
	if s.agent == nil || now == s.usage.told {
		return
	}
	_ = s.agent.SetWriteDeadline(time.Now().Add(writeTimeout))
	if jsonframe.Write(s.agent, wire.FromExecutor{Usage: &now}) == nil {
		s.usage.told = now
	}
}
