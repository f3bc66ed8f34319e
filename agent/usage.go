package agent

import (
	"time"

	"github.com/gleaner-hpc/gleaner/api"
	apiexec "github.com/gleaner-hpc/gleaner/api/executor"
)

// used notes what an executor says that its worker did. Its word is that of a process of the lease's user: polling never shrinks,
// and is at most the time that the executor has run.
func (l *loop) used(e *executor, u *apiexec.Usage, now time.Time) {
	since := e.running
	if since.IsZero() {
		since = e.asked
	}
	most := max(0, now.Sub(since))
	spin := most
	if u.SpinNS < uint64(most) {
		spin = time.Duration(u.SpinNS)
	}
	if spin > e.spin {
		e.spin, e.spun = spin, true
	}
}

// sendUsage tells the broker of polling since the last time.
func (l *loop) sendUsage() {
	usage := &api.Usage{}
	for _, e := range l.executors {
		if !e.spun || l.stream == nil {
			continue
		}
		e.spun = false
		usage.Executors = append(usage.Executors, &api.Usage_Executor{Id: e.id, CpuNanoseconds: e.cpu, SpinNanoseconds: uint64(e.spin)})
	}
	if len(usage.Executors) > 0 {
		l.send(&api.AgentMessage{Message: &api.AgentMessage_Usage{Usage: usage}})
	}
}
