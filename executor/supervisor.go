package executor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	wire "github.com/gleaner-hpc/gleaner/api/executor"
	"github.com/gleaner-hpc/gleaner/api/jsonframe"
	"github.com/gleaner-hpc/gleaner/fabric/channel"
	"github.com/gleaner-hpc/gleaner/fabric/control"
)

// ErrOrphaned ends an executor whose agent has been gone for too long.
var ErrOrphaned = errors.New("no agent for longer than the orphan timeout")

// maxIdleCrashes bounds restarts of a worker that dies without a request to blame.
const maxIdleCrashes = 5

// supervisor is the state of a running executor; run's goroutine owns it.
type supervisor struct {
	cfg    Config
	ctx    context.Context //nolint:containedctx // of run, for the goroutines that it starts
	events chan any
	exits  chan exit
	forked chan struct{} // tells the reaper that there is a child
	group  sync.WaitGroup

	agent     net.Conn // nil while there is none
	orphan    *time.Timer
	leaving   leaving
	assign    *wire.Assign
	codeLimit atomic.Uint64
	epoch     uint64
	ready     *wire.Ready
	listeners []net.Listener

	clients  map[uint32]*client
	nextID   uint32
	arrivals uint64
	code     *os.File
	worker   *worker
	station  station
	refused  refusals
	usage    usage
	idle     int // crashes in a row without a request to blame

	ticker   *time.Timer // runs while a request with a deadline may run, or a library loads
	quiet    int         // ticks without a deadline
	loadEnds time.Time
}

// Run serves until the lease is revoked (nil), the agent has been gone for too long (ErrOrphaned), the assignment cannot be
// served, or ctx ends. It stays on one thread, whose end would end the worker.
func Run(ctx context.Context, cfg Config) error {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, cancel := context.WithCancel(ctx)
	s := &supervisor{
		cfg: cfg, ctx: ctx, events: make(chan any, 64), exits: make(chan exit), forked: make(chan struct{}, 1),
		refused: newRefusals(), usage: newUsage(), clients: map[uint32]*client{}, orphan: time.NewTimer(defaultOrphan), ticker: time.NewTimer(time.Hour),
		leaving: leaving{tick: time.NewTimer(time.Hour)},
	}
	s.codeLimit.Store(defaultCodeBytes)
	spareThreads()
	s.ticker.Stop()
	s.group.Go(func() { followAgent(ctx, cfg.Agent, cfg.ID, s.post) })
	s.group.Go(func() { reap(s.forked, s.exits, ctx.Done()) })
	err := s.run()
	cancel()
	s.cleanUp()
	s.group.Wait()
	return err
}

// post hands an event to run, unless it has ended.
func (s *supervisor) post(event any) {
	select {
	case s.events <- event:
	case <-s.ctx.Done():
	}
}

func (s *supervisor) run() error {
	own, calm := ownProgram(), time.NewTimer(calmTime)
	defer calm.Stop()
	for {
		var err error
		var done bool
		select {
		case <-calm.C:
			own.lighten()
			continue
		case event := <-s.events:
			done, err = s.handle(event)
		case e := <-s.exits:
			s.exited(e)
		case <-s.ticker.C:
			s.watch()
		case <-s.leaving.tick.C:
			if s.graceOver() {
				s.revoke(s.leaving.reason)
				return nil
			}
		case <-s.refused.tell.C:
			s.tellRefusals()
		case <-s.usage.tell.C:
			s.tellUsage()
		case <-s.orphan.C:
			if s.agent == nil {
				return ErrOrphaned
			}
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
		if done || err != nil {
			return err
		}
		calm.Reset(calmTime)
	}
}

func (s *supervisor) handle(event any) (done bool, err error) {
	switch e := event.(type) {
	case agentUp:
		s.agent = e.conn
		s.orphan.Stop()
		s.sayReady()
		s.tellRefusals()
		s.usage.told = wire.Usage{} // the agent may be another
		s.tellUsage()
	case agentDown:
		s.agent = nil
		s.orphan.Reset(s.orphanTimeout())
	case *wire.Prepare:
		s.prepare(e)
	case *wire.Assign:
		return false, s.assigned(e)
	case *wire.Revoke:
		return s.revoked(e), nil
	case net.Conn:
		s.admitConnection(e)
	case helloEvent:
		s.hello(e)
	case codeEvent:
		s.uploaded(e)
	case attachEvent:
		s.attach(e.client, e.attachment)
	case goneEvent:
		s.forget(e.client)
	case workerEvent:
		if s.worker == e.worker {
			s.workerSays(e.command)
		}
	}
	return false, nil
}

func (s *supervisor) orphanTimeout() time.Duration {
	if s.assign != nil && s.assign.OrphanTimeout > 0 {
		return s.assign.OrphanTimeout
	}
	return defaultOrphan
}

// assigned takes the lease; a repeated assignment only asks for Ready again.
func (s *supervisor) assigned(a *wire.Assign) error {
	if s.assign != nil {
		if a.Executor != s.assign.Executor || a.Lease != s.assign.Lease {
			return s.unfit(fmt.Errorf("assigned to lease %d while serving %d", a.Lease, s.assign.Lease))
		}
		s.sayReady()
		return nil
	}
	if a.Symbol == "" || len(a.Digest) != 32 {
		return s.unfit(errors.New("assignment without symbol or digest"))
	}
	at := stationOf(a.ListenHost, a.Provider)
	if s.worker != nil && s.station != at {
		return s.unfit(fmt.Errorf("assigned to %+v while prepared for %+v", at, s.station))
	}
	s.station = at
	ready, err := s.listen(a.ListenHost)
	if err != nil {
		return s.unfit(err)
	}
	s.assign, s.ready, s.epoch = a, ready, a.Epoch
	if a.CodeBytes > 0 {
		s.codeLimit.Store(a.CodeBytes)
	}
	if err := s.ensureWorker(); err != nil {
		return s.unfit(err)
	}
	s.cfg.Log.Info("serving", "lease", a.Lease, "executor", a.Executor, "address", ready.Address)
	s.sayReady()
	return nil
}

// prepare starts the worker of a parked executor and opens the fabric's endpoint in it.
func (s *supervisor) prepare(p *wire.Prepare) {
	if s.assign != nil || s.worker != nil {
		return
	}
	s.station = stationOf(p.ListenHost, p.Provider)
	if err := s.ensureWorker(); err != nil {
		s.cfg.Log.Warn("worker not started ahead of its lease", "error", err)
		return
	}
	if p.Provider == "none" {
		s.sayPrepared()
		return
	}
	s.worker.openFabric()
}

func (s *supervisor) sayPrepared() {
	if s.agent == nil || s.assign != nil {
		return
	}
	_ = s.agent.SetWriteDeadline(time.Now().Add(writeTimeout))
	_ = jsonframe.Write(s.agent, wire.FromExecutor{Prepared: &wire.Prepared{}})
}

// unfit tells the agent that the assignment cannot be served.
func (s *supervisor) unfit(err error) error {
	if s.agent != nil {
		_ = s.agent.SetWriteDeadline(time.Now().Add(writeTimeout))
		_ = jsonframe.Write(s.agent, wire.FromExecutor{Failed: &wire.Failed{Error: err.Error()}})
	}
	return err
}

func (s *supervisor) sayReady() {
	if s.agent == nil || s.ready == nil {
		return
	}
	_ = s.agent.SetWriteDeadline(time.Now().Add(writeTimeout))
	_ = jsonframe.Write(s.agent, wire.FromExecutor{Ready: s.ready})
}

// listen opens the control sockets. Without the Unix socket there is no ring, and the executor serves all the same.
func (s *supervisor) listen(host string) (*wire.Ready, error) {
	tcp, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", host, err)
	}
	certificate, err := channel.New()
	if err != nil {
		_ = tcp.Close()
		return nil, err
	}
	s.accept(certificate.Listen(tcp))
	ready := &wire.Ready{Address: certificate.Address(tcp.Addr().String())}
	_ = os.Remove(s.cfg.socket())
	local, err := net.Listen("unix", s.cfg.socket())
	if err != nil {
		s.cfg.Log.Warn("no local socket: clients on this node use the fabric", "error", err)
		return ready, nil
	}
	s.accept(local)
	ready.Local = s.cfg.socket()
	return ready, nil
}

func (s *supervisor) accept(l net.Listener) {
	s.listeners = append(s.listeners, l)
	s.group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.post(conn)
		}
	})
}

// revoke tells every client at once; the sandbox is killed from outside meanwhile.
func (s *supervisor) revoke(reason string) {
	s.cfg.Log.Info("revoked", "reason", reason)
	defer s.tellUsage()
	for _, c := range s.clients {
		var begun uint64
		if s.worker != nil && c.admitted {
			begun = s.worker.state.begun[c.id].Load()
		}
		c.send(control.Revoked(begun, reason))
	}
}

// cleanUp ends what run has started.
func (s *supervisor) cleanUp() {
	for _, l := range s.listeners {
		_ = l.Close()
	}
	if s.worker != nil {
		s.worker.kill()
		s.worker.close()
	}
	for _, c := range s.clients {
		close(c.out)
		if c.attach != nil {
			c.attach.close()
		}
	}
	if s.code != nil {
		_ = s.code.Close()
	}
	if s.ready != nil && s.ready.Local != "" {
		_ = os.Remove(s.ready.Local)
	}
}
