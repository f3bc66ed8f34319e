package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api/jsonframe"
	"github.com/gleaner-hpc/gleaner/api/launcher"
)

const (
	maxCalls     = 64              // under way at a time on one connection; more wait in the socket
	writeTimeout = 5 * time.Second // for an agent that does not read
	killTime     = time.Second     // where a Kill names no deadline
	longestKill  = time.Minute
	cleanUpTime  = time.Minute
)

// manager is what the server serves.
type manager interface {
	Start(ctx context.Context, spec launcher.Spec) (int, error)
	Resize(ctx context.Context, spec launcher.Spec) error
	Kill(ctx context.Context, ids ...string) ([]string, error)
	Freeze(ctx context.Context, ids ...string) error
	Thaw(ctx context.Context, ids ...string) error
	List(ctx context.Context) ([]launcher.Sandbox, error)
	Open(ctx context.Context, jobs ...uint32) ([]uint32, error)
	CleanUp(ctx context.Context) error
	Exited() <-chan launcher.Exited
}

// server answers the agent. A request goes on when its connection breaks: a Start that was asked for is found by List.
type server struct {
	manager manager
	uid     uint32
	log     *slog.Logger
	wg      sync.WaitGroup

	orphanTimeout time.Duration // without an agent, before all sandboxes are ended; 0 means never
	presence      chan struct{} // an agent has come or gone

	mu    sync.Mutex
	peers map[*peer]bool
}

// peer is one connection.
type peer struct {
	conn net.Conn
	mu   sync.Mutex // one frame at a time
}

func newServer(m manager, uid uint32, log *slog.Logger) *server {
	return &server{manager: m, uid: uid, log: log, peers: map[*peer]bool{}, presence: make(chan struct{}, 1)}
}

// serve answers until ctx ends. Calls under way are finished first.
func (s *server) serve(ctx context.Context, l net.Listener) error {
	s.wg.Go(func() { s.broadcast(ctx) })
	s.wg.Go(func() { s.deadMan(ctx) })
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer s.wg.Wait()
	defer s.hangUp()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		uid, err := peerUID(conn)
		if err != nil || uid != s.uid {
			s.log.Warn("refused a connection", "uid", uid, "error", err)
			_ = conn.Close()
			continue
		}
		p := &peer{conn: conn}
		s.mu.Lock()
		s.peers[p] = true
		s.mu.Unlock()
		s.noticed()
		s.wg.Go(func() { s.converse(ctx, p) })
	}
}

func peerUID(conn net.Conn) (uint32, error) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil {
		return 0, cerr
	}
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// hangUp closes every connection.
func (s *server) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.peers {
		_ = p.conn.Close()
	}
}

func (s *server) broadcast(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-s.manager.Exited():
			s.mu.Lock()
			peers := slices.Collect(maps.Keys(s.peers))
			s.mu.Unlock()
			for _, p := range peers {
				p.send(launcher.Reply{Exited: &e})
			}
		}
	}
}

// send writes one frame. A peer that cannot be written to is hung up on.
func (p *peer) send(reply launcher.Reply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if err := jsonframe.Write(p.conn, reply); err != nil {
		_ = p.conn.Close()
	}
}

func (s *server) converse(ctx context.Context, p *peer) {
	defer func() {
		s.mu.Lock()
		delete(s.peers, p)
		s.mu.Unlock()
		s.noticed()
		_ = p.conn.Close()
	}()
	slots := make(chan struct{}, maxCalls)
	for {
		var req launcher.Request
		if err := jsonframe.Read(p.conn, &req); err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				s.log.Warn("connection lost", "error", err)
			}
			return
		}
		slots <- struct{}{}
		s.wg.Go(func() {
			defer func() { <-slots }()
			p.send(s.answer(context.WithoutCancel(ctx), req))
		})
	}
}

func (s *server) answer(ctx context.Context, req launcher.Request) launcher.Reply {
	reply := launcher.Reply{ID: req.ID}
	var err error
	switch req.Verb {
	case launcher.Start:
		if req.Spec == nil {
			err = errors.New("start without a spec")
			break
		}
		reply.PID, err = s.manager.Start(ctx, *req.Spec)
	case launcher.Resize:
		if req.Spec == nil {
			err = errors.New("resize without a spec")
			break
		}
		err = s.manager.Resize(ctx, *req.Spec)
	case launcher.Kill:
		limit := killTime
		if req.Deadline > 0 {
			limit = min(req.Deadline, longestKill)
		}
		ctx, cancel := context.WithTimeout(ctx, limit)
		reply.Remaining, err = s.manager.Kill(ctx, req.IDs...)
		cancel()
	case launcher.Freeze:
		err = s.manager.Freeze(ctx, req.IDs...)
	case launcher.Thaw:
		err = s.manager.Thaw(ctx, req.IDs...)
	case launcher.List:
		reply.Sandboxes, err = s.manager.List(ctx)
	case launcher.Open:
		reply.Shut, err = s.manager.Open(ctx, req.Jobs...)
	case launcher.CleanUp:
		ctx, cancel := context.WithTimeout(ctx, cleanUpTime)
		err = s.manager.CleanUp(ctx)
		cancel()
	default:
		err = fmt.Errorf("unknown verb %q", req.Verb)
	}
	if err != nil {
		reply.Error = err.Error()
	}
	return reply
}
