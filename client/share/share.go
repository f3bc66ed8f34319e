package share

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/client"
)

const (
	helloTimeout = 10 * time.Second
	writeTimeout = 10 * time.Second // a peer that reads nothing for so long is hung up on
	maxBacklog   = 1 << 16          // frames that may wait for one peer
	maxPeers     = 1024
	refreshEvery = time.Second
)

// Holder is the lease as its holder sees it; *client.Lease is one.
type Holder interface {
	Refresh()
	Add(ok, failed, retried uint64)
}

// Server lends one lease. It is a client.Observer: hand it to client.Hold, then Run it.
type Server struct {
	function *client.Function
	library  *os.File // sealed

	mu        sync.Mutex
	numbers   map[string]uint64 // of executors that live
	next      uint64
	executors map[uint64]*api.Executor
	announced map[uint64][]byte // READY frame of each
	carriedAt string            // socket of the carrier, once Run has made it
	ended     []byte            // ENDED, once the lease is over
	peers     map[*peer]bool
	refreshed time.Time
}

// peer is one connected libgleaner.
type peer struct {
	conn    *net.UnixConn
	more    chan struct{} // holds one when backlog has grown
	backlog [][]byte      // guarded by the server's mu
}

// New makes a server for a lease of this function. Close it.
func New(f *client.Function) (*Server, error) {
	library, err := seal(f.Library)
	if err != nil {
		return nil, fmt.Errorf("share the lease: library into memory: %w", err)
	}
	return &Server{function: f, library: library, numbers: map[string]uint64{}, executors: map[uint64]*api.Executor{}, announced: map[uint64][]byte{}, peers: map[*peer]bool{}}, nil
}

// seal copies b into a memory file that nobody can change.
func seal(b []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("gleaner-library", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "gleaner-library")
	if _, err := f.Write(b); err != nil {
		_ = f.Close()
		return nil, err
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Close frees what New has made.
func (s *Server) Close() error { return s.library.Close() }

// Ready announces an executor to all peers. One whose address cannot be told is left out.
func (s *Server) Ready(e *api.Executor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	number, known := s.numbers[e.GetId()]
	if !known {
		s.next++
		number = s.next
	}
	frame := s.announce(number, e)
	if frame == nil {
		return
	}
	s.numbers[e.GetId()], s.executors[number] = number, e
	s.tell(frame)
}

// Gone takes an executor back from all peers.
func (s *Server) Gone(id string, reason api.EndReason, detail string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	number, known := s.numbers[id]
	if !known {
		return
	}
	delete(s.numbers, id)
	delete(s.announced, number)
	delete(s.executors, number)
	why := client.ReasonText(reason)
	if detail != "" {
		why += ": " + detail
	}
	s.tell(goneFrame(number, reason == api.EndReason_EXECUTOR_FAILED, why))
}

// End tells all peers, and those that come later, that the lease is over.
func (s *Server) End(reason api.EndReason, detail string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		return
	}
	why := client.ReasonText(reason)
	if detail != "" {
		why += ": " + detail
	}
	s.ended = endedFrame(reason, why)
	s.tell(s.ended)
}

// tell queues a frame for all peers. The caller holds mu.
func (s *Server) tell(frame []byte) {
	for p := range s.peers {
		if len(p.backlog) >= maxBacklog {
			_ = p.conn.Close()
			continue
		}
		p.backlog = append(p.backlog, frame)
		select {
		case p.more <- struct{}{}:
		default:
		}
	}
}

// Run serves peers that connect to the listener until ctx ends; then it closes the listener and all connections.
func (s *Server) Run(ctx context.Context, listener *net.UnixListener, terms Terms, holder Holder) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	carrier, err := s.carrier(listener)
	if err != nil {
		return err
	}
	serving.Go(func() { _ = accept(ctx, carrier, &serving, func(conn *net.UnixConn) { s.carry(ctx, conn) }) })
	return accept(ctx, listener, &serving, func(conn *net.UnixConn) { s.serve(conn, terms, holder) })
}

// accept has each connection served until ctx ends; then it closes the listener and all connections.
func accept(ctx context.Context, listener *net.UnixListener, serving *sync.WaitGroup, serve func(*net.UnixConn)) error {
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	for {
		conn, err := listener.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("share the lease: %w", err)
		case err != nil:
			time.Sleep(10 * time.Millisecond) // out of descriptors: others will be free again
			continue
		}
		serving.Go(func() {
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			defer conn.Close()
			serve(conn)
		})
	}
}

// serve talks to one peer until it leaves.
func (s *Server) serve(conn *net.UnixConn, terms Terms, holder Holder) {
	if !sameUser(conn) {
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(helloTimeout))
	in := bufio.NewReaderSize(conn, maxBody)
	if q, err := readRequest(in); err != nil || q.kind != typeHello {
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	frame := leaseFrame(terms, len(s.function.Library), s.function.Digest, s.function.Symbol)
	_ = conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, _, err := conn.WriteMsgUnix(frame, unix.UnixRights(int(s.library.Fd())), nil); err != nil {
		return
	}
	p := s.join(conn)
	if p == nil {
		return
	}
	defer s.leave(p)
	written := make(chan struct{})
	go func() {
		defer close(written)
		s.write(p)
	}()
	s.listen(in, holder)
	_ = conn.Close()
	s.leave(p)
	<-written
}

// sameUser says whether the peer is this process's user, or root.
func sameUser(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	var peer *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) { peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil || failed != nil {
		return false
	}
	return peer.Uid == uint32(os.Geteuid()) || peer.Uid == 0
}

// join subscribes a peer, beginning with what is so now.
func (s *Server) join(conn *net.UnixConn) *peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.peers) >= maxPeers {
		return nil
	}
	p := &peer{conn: conn, more: make(chan struct{}, 1)}
	for _, frame := range s.announced {
		p.backlog = append(p.backlog, frame)
	}
	if s.ended != nil {
		p.backlog = append(p.backlog, s.ended)
	}
	p.more <- struct{}{}
	s.peers[p] = true
	return p
}

// leave ends a peer's subscription; it may be repeated.
func (s *Server) leave(p *peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.peers[p] {
		delete(s.peers, p)
		close(p.more)
	}
}

// write sends what gathers for a peer until it leaves, and hangs up on one that reads nothing. One that has left may have said
// something before, to which listen comes.
func (s *Server) write(p *peer) {
	for range p.more {
		s.mu.Lock()
		frames := p.backlog
		p.backlog = nil
		s.mu.Unlock()
		_ = p.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		buffers := net.Buffers(frames)
		if _, err := buffers.WriteTo(p.conn); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				_ = p.conn.Close()
			}
			return
		}
	}
}

// listen follows a peer's requests until it leaves or breaks the protocol.
func (s *Server) listen(in *bufio.Reader, holder Holder) {
	for {
		q, err := readRequest(in)
		if err != nil {
			return
		}
		switch q.kind {
		case typeRefresh:
			if s.mayRefresh(time.Now()) {
				holder.Refresh()
			}
		case typeCounts:
			holder.Add(q.ok, q.failed, q.retried)
		default:
			return
		}
	}
}

// mayRefresh keeps peers from asking the broker too often: all executors get fresh tokens at once.
func (s *Server) mayRefresh(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.refreshed) < refreshEvery {
		return false
	}
	s.refreshed = now
	return true
}
