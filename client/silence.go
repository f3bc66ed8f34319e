package client

import (
	"context"
	"errors"
	"time"
)

// ErrSilent is why a run counts as lost whose executor has neither answered nor ended well after the task's timeout: it is stopped, or
// its node is out of reach. The task runs again elsewhere.
var ErrSilent = errors.New("executor does not answer")

const (
	// silence is how long after its timeout, which the executor itself watches, the end of a run is waited for.
	silence = 5 * time.Second
	// brokerSilence is after how much of it a broker is asked whether it is there, and brokerAnswer how long that may take, as may the
	// connection to one. Calls to a broker that hangs or has vanished thus end after 15 s at most, with ErrUnreachable.
	brokerSilence = 10 * time.Second
	brokerAnswer  = 5 * time.Second
)

// watchSilence cancels a run that lasts longer than it can, when tasks have a timeout. The caller stops the watch.
func (p *pool) watchSilence(cancel context.CancelCauseFunc) (stop func()) {
	if p.options.Timeout <= 0 {
		return func() {}
	}
	// Those before it at the same executor take their time too.
	depth := max(p.options.Depth, 2)
	timer := time.AfterFunc(time.Duration(depth)*p.options.Timeout+p.slack, func() { cancel(ErrSilent) })
	return func() { timer.Stop() }
}
