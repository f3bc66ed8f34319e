package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/broker/placement"
	"github.com/gleaner-hpc/gleaner/identity"
	"github.com/gleaner-hpc/gleaner/identity/certs"
)

var (
	errSlowAgent = status.Error(codes.ResourceExhausted, "the agent does not read what the broker sends; connect again")
	errReplaced  = status.Error(codes.Aborted, "another session of the same node has replaced this one; is a second agent running with this node's name?")
	nodeName     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)
)

// Session serves one agent.
func (b *Broker) Session(stream api.Agents_SessionServer) error {
	caller, ok := identity.From(stream.Context())
	if !ok || !slices.Contains(b.cfg.Agents, caller.UID) {
		return status.Errorf(codes.PermissionDenied, "uid %d may not speak as an agent: rule identity.agents in broker.toml", caller.UID)
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	r := first.GetRegister()
	switch {
	case r == nil:
		return status.Error(codes.InvalidArgument, "the first message of a session must be register")
	case !nodeName.MatchString(r.GetNode()):
		return status.Errorf(codes.InvalidArgument, "register.node: %q is no node name", r.GetNode())
	case r.GetBootId() == "" || r.GetState() == nil:
		return status.Error(codes.InvalidArgument, "register.boot_id and register.state: missing")
	}
	if names := certs.Names(stream.Context()); (b.cfg.NodeCertificates || names != nil) && !slices.Contains(names, r.GetNode()) {
		return status.Errorf(codes.PermissionDenied, "the agent of %s has shown a certificate for %q: it needs one with its node's name (tls.cert_file in agent.toml; rule tls.agent_certificates in broker.toml)", r.GetNode(), names)
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	ses := &session{out: make(chan *api.BrokerMessage, maxOutbox), cancel: cancel}
	err = b.call(ctx, func(s *state, now time.Time) error {
		if ctx.Err() != nil { // the agent has hung up, and may have come back already
			return status.FromContextError(ctx.Err()).Err()
		}
		s.register(now, ses, r)
		return nil
	})
	if err != nil {
		return err
	}
	defer b.post(func(s *state, now time.Time) error { return s.sessionEnded(now, r.GetNode(), ses) })
	go b.receive(stream, r.GetNode(), ses)
	return b.send(ctx, stream, ses)
}

// send passes on what is queued. It returns the reason for which the session ends.
func (b *Broker) send(ctx context.Context, stream api.Agents_SessionServer, ses *session) error {
	for {
		select {
		case m := <-ses.out:
			if err := stream.Send(m); err != nil {
				return err
			}
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, io.EOF) {
				return cause
			}
			return nil
		case <-b.stopped:
			return errStopping
		}
	}
}

// receive hands each message to the loop, in order. It ends with the stream.
func (b *Broker) receive(stream api.Agents_SessionServer, name string, ses *session) {
	for {
		m, err := stream.Recv()
		if err != nil {
			ses.cancel(err)
			return
		}
		b.post(func(s *state, now time.Time) error {
			if n := s.nodes[name]; n != nil && n.session == ses {
				s.receive(now, n, m)
			}
			return nil
		})
	}
}

// register takes a session in the place of whatever was there for its node.
func (s *state) register(now time.Time, ses *session, r *api.Register) {
	n := s.node(now, r.Node)
	if n.session != nil {
		n.session.cancel(errReplaced)
	}
	if n.boot != r.BootId {
		n.boot, n.received, n.stored = r.BootId, 0, 0
	}
	n.received = n.stored // the agent sends again what is not acknowledged
	n.session, n.version, n.lost, n.pushed = ses, r.Version, false, nil
	listed := map[string]bool{}
	var keep []string
	for _, x := range r.Executors {
		listed[x.Id] = true
		known := s.table.Executor(x.Id)
		if known == nil || known.Node != n.name {
			if n.booked[x.Id] == nil {
				n.booked[x.Id] = &booking{stopped: now} // its size is in the agent's report
			}
			continue
		}
		keep = append(keep, x.Id)
		if b := n.booked[x.Id]; b != nil {
			b.missing = time.Time{}
		} else {
			n.book(x.Id, s.table.Get(known.Lease).Request.Each)
		}
		if x.Ready != nil {
			s.ready(now, n, x.Ready)
		}
	}
	for id, b := range n.booked {
		switch {
		case listed[id]:
		case s.table.Executor(id) == nil:
			delete(n.booked, id)
		default:
			b.missing = now
		}
	}
	n.send(&api.BrokerMessage{Message: &api.BrokerMessage_Welcome{Welcome: &api.Welcome{
		PublicKey: s.publicKey(), Keep: keep, Watch: s.watched(),
	}}})
	s.nodeState(now, n, r.State)
	s.cfg.Log.Info("agent connected", "node", n.name, "version", n.version, "executors", len(r.Executors), "kept", len(keep))
}

func (s *state) sessionEnded(now time.Time, name string, ses *session) error {
	if n := s.nodes[name]; n != nil && n.session == ses {
		n.session, n.away = nil, now
		s.dirty = true
		s.cfg.Log.Warn("agent away", "node", name)
	}
	return nil
}

func (s *state) receive(now time.Time, n *node, m *api.AgentMessage) {
	switch v := m.Message.(type) {
	case *api.AgentMessage_State:
		s.nodeState(now, n, v.State)
	case *api.AgentMessage_Ready:
		s.ready(now, n, v.Ready)
	case *api.AgentMessage_Ended:
		s.numbered(n, m.Record, func() any { return s.ended(now, n, v.Ended) })
	case *api.AgentMessage_Claim:
		s.numbered(n, m.Record, func() any { return s.claim(n, v.Claim) })
	case *api.AgentMessage_JobEnded:
		s.numbered(n, m.Record, func() any {
			n.over[v.JobEnded.JobId] = now
			s.table.JobEnded(now, v.JobEnded.JobId)
			s.measure(now, n)
			s.dirty = true
			return nil
		})
	case *api.AgentMessage_Usage:
		s.usage(n, v.Usage)
	}
}

// numbered takes a record once. The agent hears of it when what do returns is stored.
func (s *state) numbered(n *node, number uint64, do func() any) {
	if number != 0 && number <= n.received {
		if number <= n.stored {
			n.send(&api.BrokerMessage{Message: &api.BrokerMessage_Ack{Ack: &api.Ack{Record: n.stored}}})
		}
		return
	}
	if s.rec.add(record{what: do(), node: n.name, boot: n.boot, n: number}) && number != 0 {
		n.received = number
	}
}

func (s *state) ready(now time.Time, n *node, r *api.ExecutorReady) {
	if b := n.booked[r.Id]; b != nil {
		b.startup = r.Startup.AsDuration()
	}
	s.table.Found(r.Id, r.ImageDigest)
	s.table.Ready(now, r.Id, n.name, r.Address, r.Local)
}

// ended takes the end of an executor and returns its record for the report; nil when it never ran.
func (s *state) ended(now time.Time, n *node, e *api.ExecutorEnded) any {
	record := s.executorRecord(n, e)
	s.spun(e.Id, time.Duration(e.SpinNanoseconds))
	s.gone(now, n, e.Id, e.Reason, e.Detail)
	delete(n.booked, e.Id)
	s.dirty = true
	if record == nil {
		return nil
	}
	return *record
}

// gone takes an executor out of its lease and gives the node a rest when it did not keep it.
func (s *state) gone(now time.Time, n *node, id string, reason api.EndReason, detail string) {
	x := s.table.Executor(id)
	if x != nil && reason == api.EndReason_EXECUTOR_FAILED && !x.Ready {
		defer s.giveUp(now, x.Lease, detail)
	}
	if x != nil && reason == api.EndReason_REFUSED {
		defer s.abandon(now, x.Lease)
	}
	if !s.table.Gone(now, id, n.name, reason, detail) {
		return
	}
	if reason == api.EndReason_EVICTED {
		n.evictions = append(n.evictions, now)
	}
	if cause, rests := causes[reason]; rests {
		s.backoff.Note(now, x.Lease, n.name, cause)
	}
}

// imageTries is how many executors may fail for a lease's image before the lease does.
const imageTries = 3

// giveUp ends a lease whose image no node could use: that it is unknown or corrupt is news for its holder, who would wait in vain.
func (s *state) giveUp(now time.Time, id uint64, detail string) {
	l := s.table.Get(id)
	if l == nil || l.Request.Image == "" || l.ImageDigest != "" || !strings.HasPrefix(detail, "image ") {
		return
	}
	if l.Last >= imageTries || l.Last >= uint64(len(s.nodes)) {
		s.table.End(now, id, api.EndReason_EXECUTOR_FAILED, detail)
	}
}

// abandon ends a lease that a node has refused when no node could ever hold it any more: an agent has found out that the launcher does
// not give its GPUs.
func (s *state) abandon(now time.Time, id uint64) {
	l := s.table.Get(id)
	if l == nil || len(l.Executors) > 0 {
		return
	}
	if ok, why := placement.Feasible(s.totals(), l.Request.Each); !ok {
		s.table.End(now, id, api.EndReason_REFUSED, why)
	}
}

// leaseOf reads the lease's id out of an executor's.
func leaseOf(executor string) (uint64, error) {
	text, _, ok := strings.Cut(executor, "-")
	id, err := strconv.ParseUint(text, 10, 64)
	if !ok || err != nil {
		return 0, fmt.Errorf("executor id %q: want <lease>-<n>", executor)
	}
	return id, nil
}
