// Package gatesock serves the Unix socket on which gate and hook ask (package api/gate): it accepts, checks who calls, reads one
// frame with a deadline, and hands it to the agent's event loop. It decides nothing: Ack goes out when the loop has taken the
// frame, the answer when the loop gives it, and a loop that takes nothing gives no Ack, upon which the gate uses force.
package gatesock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gleaner-hpc/gleaner/agent/peer"
	"github.com/gleaner-hpc/gleaner/api/gate"
)

const (
	readDeadline  = 100 * time.Millisecond
	writeDeadline = 100 * time.Millisecond
	// answerDeadline ends a conversation that the loop never answers.
	answerDeadline = 10 * time.Second
	// maxConversations bounds how many are open at once; a caller beyond it waits in the listen queue.
	maxConversations = 256
)

// Call is one frame on its way to the event loop. The loop calls Accept once it has entered it in its books, and Answer, once, before or
// after that; neither blocks.
type Call struct {
	Frame    gate.Frame
	Received time.Time
	// Order numbers the connections as they came. Frames reach the loop in about that order only: after a pause all that waited come at once.
	Order uint64

	accepted chan uint16 // flags of the Ack
	answer   chan answer
}

type answer struct {
	kind    gate.Kind
	flags   uint16
	evicted uint32
}

// NewCall returns a call that no socket waits for, for the loop's own use and for tests.
func NewCall(f gate.Frame, received time.Time) *Call {
	return &Call{Frame: f, Received: received, accepted: make(chan uint16, 1), answer: make(chan answer, 1)}
}

// Accept says that the loop turns and has taken the call; flags are the Ack's.
func (c *Call) Accept(flags uint16) { c.accepted <- flags }

// Answer gives the last word: Done or Failed, with the number of executors evicted.
func (c *Call) Answer(kind gate.Kind, evicted int) {
	select {
	case c.answer <- answer{kind: kind, evicted: uint32(evicted)}:
	default:
	}
}

// Answered waits for the answer; for tests.
func (c *Call) Answered(ctx context.Context) (gate.Kind, int, error) {
	select {
	case a := <-c.answer:
		return a.kind, int(a.evicted), nil
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
}

// Config says where to listen and whom to hand calls to.
type Config struct {
	Path  string
	Node  string       // frames for another node are refused; frames that name none are taken
	Calls chan<- *Call // the event loop's
	Log   *slog.Logger
}

// Server listens on one socket.
type Server struct {
	cfg     Config
	l       *peer.Listener
	refused atomic.Uint64
}

// Listen makes the socket, mode 0600, in place of one that a predecessor left.
func Listen(cfg Config) (*Server, error) {
	l, err := peer.Keep(cfg.Path, 0o600)
	if err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, l: l}, nil
}

// Refused counts callers that were not root, frames that were malformed or for another node.
func (s *Server) Refused() uint64 { return s.refused.Load() }

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxConversations)
	order := uint64(0)
	return s.l.Serve(ctx, s.cfg.Log, func(conn *net.UnixConn) {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			_ = conn.Close()
			return
		}
		order++
		number := order
		wg.Go(func() {
			defer func() { <-slots; _ = conn.Close() }()
			if err := s.converse(ctx, conn, number); err != nil {
				s.refused.Add(1)
				s.cfg.Log.Warn("gate's frame refused", "error", err)
			}
		})
	})
}

// converse serves one connection. An error means that the caller is at fault.
func (s *Server) converse(ctx context.Context, conn *net.UnixConn, order uint64) error {
	cred, err := peer.Credentials(conn)
	if err != nil {
		return err
	}
	if cred.Uid != 0 && cred.Uid != uint32(os.Geteuid()) {
		return fmt.Errorf("caller is uid %d (pid %d); only root and the agent's own user may ask", cred.Uid, cred.Pid)
	}
	_ = conn.SetReadDeadline(time.Now().Add(readDeadline))
	f, err := gate.Read(conn)
	if errors.Is(err, io.EOF) && !errors.Is(err, gate.ErrFrame) {
		return nil // it only looked whether anybody listens
	}
	if err != nil {
		return fmt.Errorf("read frame of pid %d: %w", cred.Pid, err)
	}
	received := time.Now()
	if f.Node != "" && f.Node != s.cfg.Node {
		return fmt.Errorf("frame is for node %.64q, this is %q; check socket= in plugstack.conf", f.Node, s.cfg.Node)
	}
	switch f.Kind {
	case gate.Claim, gate.Warn, gate.Release, gate.Ping:
	default:
		return fmt.Errorf("%w: kind %d asks nothing", gate.ErrFrame, f.Kind)
	}
	call := NewCall(*f, received)
	call.Order = order
	s.serve(ctx, conn, call)
	return nil
}

// serve takes a call to the loop and its answers back. A caller that has gone away is no error: it has used force.
func (s *Server) serve(ctx context.Context, conn *net.UnixConn, c *Call) {
	timeout := time.NewTimer(answerDeadline)
	defer timeout.Stop()
	select {
	case s.cfg.Calls <- c:
	case <-timeout.C:
		return
	case <-ctx.Done():
		return
	}
	var flags uint16
	select {
	case flags = <-c.accepted:
	case <-timeout.C:
		return
	case <-ctx.Done():
		return
	}
	if c.Frame.Kind == gate.Claim || c.Frame.Kind == gate.Warn {
		if !s.write(conn, c, answer{kind: gate.Ack, flags: flags}) || c.Frame.Kind == gate.Warn {
			return
		}
	}
	select {
	case a := <-c.answer:
		s.write(conn, c, a)
	case <-timeout.C:
	case <-ctx.Done():
	}
}

func (s *Server) write(conn *net.UnixConn, c *Call, a answer) bool {
	f := gate.Frame{
		Kind: a.kind, Flags: a.flags, Job: c.Frame.Job, Step: c.Frame.Step, UID: c.Frame.UID,
		Nanos: uint64(time.Since(c.Received)), Evicted: a.evicted,
	}
	b, err := f.Append(nil)
	if err != nil {
		return false
	}
	_ = conn.SetWriteDeadline(time.Now().Add(writeDeadline))
	_, err = conn.Write(b)
	return err == nil
}

// Close ends a server that is not run.
func (s *Server) Close() error { return s.l.Close() }
