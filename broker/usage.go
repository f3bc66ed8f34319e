package broker

import (
	"time"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/broker/lease"
)

// usage notes what running executors have polled so far. It is added to their lease's record when they have ended.
func (s *state) usage(n *node, u *api.Usage) {
	for _, x := range u.GetExecutors() {
		if b := n.booked[x.GetId()]; b != nil {
			b.spin = time.Duration(x.GetSpinNanoseconds())
		}
	}
}

// spun adds what an executor polled in its life to its lease, which may have ended meanwhile.
func (s *state) spun(executor string, spin time.Duration) {
	id, err := leaseOf(executor)
	if err != nil || spin <= 0 {
		return
	}
	if l := s.lookup(id); l != nil {
		l.Spin += spin
		s.change.Leases = merge(s.change.Leases, map[uint64]*lease.Lease{id: l})
	}
}

// spinOf is what a lease's executors have polled, those that run included.
func (s *state) spinOf(l *lease.Lease) time.Duration {
	spin := l.Spin
	for id, x := range l.Executors {
		if n := s.nodes[x.Node]; n != nil && n.booked[id] != nil {
			spin += n.booked[id].spin
		}
	}
	return spin
}
