package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

const (
	writeTimeout = 5 * time.Second // for an agent that does not read
	longestCall  = time.Minute
	healEvery    = time.Second // how often it is seen whether the socket is still there
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
	Exited() <-chan launcher.Exited
}

// server answers the agent. A request goes on when its connection breaks: a Start that was asked for is found by List.
type server struct {
	manager manager
	uid     uint32
	log     *slog.Logger
	wg      sync.WaitGroup

	orphanTimeout time.Duration // without an agent, before all sandboxes are ended; 0 means never

	mu      sync.Mutex
	peers   map[*net.UnixConn]bool
	orphans *time.Timer // runs while there is no peer
}

// serve answers at path until ctx ends. Calls under way are finished first.
func (s *server) serve(ctx context.Context, path string) error {
	s.peers = map[*net.UnixConn]bool{}
	defer s.wg.Wait()
	s.wg.Go(func() { s.broadcast(ctx) })
	s.orphans = time.AfterFunc(s.orphanTimeout, func() { s.endOrphans(ctx) })
	defer s.orphans.Stop()
	for ctx.Err() == nil {
		l, err := listen(path, int(s.uid))
		if err != nil {
			return err
		}
		if err := s.accept(ctx, l, path); err != nil && ctx.Err() == nil {
			s.log.Warn("listening anew", "path", path, "error", err)
		}
	}
	return nil
}

// listen makes the socket, for one user alone. Only one launcher comes here: the run directory is locked.
func listen(path string, uid int) (*net.UnixListener, error) {
	_ = os.Remove(path)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(path, 0o600), os.Chown(path, uid, -1)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// accept takes connections until ctx ends or the socket's file is gone, as after a cleaner of old files.
func (s *server) accept(ctx context.Context, l *net.UnixListener, path string) error {
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	for {
		_ = l.SetDeadline(time.Now().Add(healEvery))
		conn, err := l.AcceptUnix()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if _, err = os.Lstat(path); err == nil {
				continue
			}
		}
		if err != nil {
			return errors.Join(err, l.Close())
		}
		s.admit(ctx, conn)
	}
}

// admit serves a connection if it is the agent's: by what the kernel noted of who connected.
func (s *server) admit(ctx context.Context, conn *net.UnixConn) {
	uid := ^uint32(0)
	if raw, err := conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
				uid = cred.Uid
			}
		})
	}
	if uid != s.uid {
		s.log.Warn("refused a connection", "uid", uid)
		_ = conn.Close()
		return
	}
	s.wg.Go(func() { s.converse(ctx, conn) })
}

// endOrphans ends every sandbox when no agent has been connected for longer than the orphan timeout. Executors end themselves then; this is
// for those that do not, because what runs in them has seen to that.
func (s *server) endOrphans(ctx context.Context) {
	s.mu.Lock()
	attended := len(s.peers) > 0
	s.mu.Unlock()
	if attended || s.orphanTimeout <= 0 || ctx.Err() != nil {
		return
	}
	defer s.orphans.Reset(s.orphanTimeout) // for what has not ended
	ctx, cancel := context.WithTimeout(ctx, longestCall)
	defer cancel()
	all, _ := s.manager.List(ctx)
	if len(all) == 0 {
		return
	}
	var ids []string
	for _, box := range all {
		ids = append(ids, box.ID)
	}
	remaining, err := s.manager.Kill(ctx, ids...)
	s.log.Warn("no agent for longer than the orphan timeout; its sandboxes are ended", "timeout", s.orphanTimeout,
		"sandboxes", ids, "remaining", remaining, "error", err)
}

func (s *server) broadcast(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-s.manager.Exited():
			s.mu.Lock()
			for conn := range s.peers {
				send(conn, launcher.Reply{Exited: &e})
			}
			s.mu.Unlock()
		}
	}
}

// send writes one reply, with a single call, so that those of many goroutines do not mix. Who cannot be written to is hung up on.
func send(conn *net.UnixConn, reply launcher.Reply) {
	_ = conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if err := json.NewEncoder(conn).Encode(reply); err != nil {
		_ = conn.Close()
	}
}

// converse answers one connection until it breaks or ctx ends.
func (s *server) converse(ctx context.Context, conn *net.UnixConn) {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	s.mu.Lock()
	s.peers[conn] = true
	s.orphans.Stop()
	s.mu.Unlock()
	slots := make(chan struct{}, launcher.MaxCalls)
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, launcher.MaxRequest)
	err := error(nil)
	for err == nil && lines.Scan() {
		var req launcher.Request
		if err = json.Unmarshal(lines.Bytes(), &req); err == nil {
			slots <- struct{}{}
			s.wg.Go(func() {
				defer func() { <-slots }()
				send(conn, s.answer(context.WithoutCancel(ctx), req))
			})
		}
	}
	if err = cmp.Or(err, lines.Err()); err != nil && ctx.Err() == nil {
		s.log.Warn("connection lost", "error", err)
	}
	_ = conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.peers, conn); len(s.peers) == 0 && ctx.Err() == nil {
		s.orphans.Reset(s.orphanTimeout)
	}
}

func (s *server) answer(ctx context.Context, req launcher.Request) launcher.Reply {
	ctx, cancel := context.WithTimeout(ctx, min(cmp.Or(req.Deadline, longestCall), longestCall))
	defer cancel()
	reply := launcher.Reply{ID: req.ID}
	var err error
	switch req.Verb {
	case launcher.Start:
		reply.PID, err = s.manager.Start(ctx, req.Spec)
	case launcher.Resize:
		err = s.manager.Resize(ctx, req.Spec)
	case launcher.Kill:
		reply.Remaining, err = s.manager.Kill(ctx, req.IDs...)
	case launcher.Freeze:
		err = s.manager.Freeze(ctx, req.IDs...)
	case launcher.Thaw:
		err = s.manager.Thaw(ctx, req.IDs...)
	case launcher.List:
		reply.Sandboxes, err = s.manager.List(ctx)
	case launcher.Open:
		reply.Shut, err = s.manager.Open(ctx, req.Jobs...)
	default:
		err = fmt.Errorf("unknown verb %q", req.Verb)
	}
	if err != nil {
		reply.Error = err.Error()
	}
	return reply
}
