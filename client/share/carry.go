package share

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/fabric/channel"
)

const carryTimeout = 30 * time.Second

// carrier opens the socket at which libgleaner finds executors of other nodes: it says an executor's number, and what follows goes
// through the protected connection to that executor, which this process opens.
func (s *Server) carrier(listener *net.UnixListener) (*net.UnixListener, error) {
	path := listener.Addr().String()
	if path == "" || path[0] == '@' {
		return nil, fmt.Errorf("share the lease: socket %q has no folder", path)
	}
	path = filepath.Join(filepath.Dir(path), "x")
	carrier, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("share the lease: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.carriedAt = path
	for number, e := range s.executors {
		s.announce(number, e) // they came before there was a way
	}
	return carrier, nil
}

// way is an executor's address as package fabric's C side takes it.
func (s *Server) way(number uint64, address string) string {
	if s.carriedAt == "" {
		return ""
	}
	return fmt.Sprintf("unix:%s|%s|%d", s.carriedAt, facing(channel.HostPort(address)), number)
}

// facing is the address of this node from which it reaches another. No packet is sent.
func facing(hostPort string) string {
	if host, _, err := net.SplitHostPort(hostPort); err != nil || net.ParseIP(host) == nil {
		return ""
	}
	conn, err := net.Dial("udp", hostPort)
	if err != nil {
		return ""
	}
	defer func() { _ = conn.Close() }()
	host, _, _ := net.SplitHostPort(conn.LocalAddr().String())
	return host
}

// carry serves one connection of libgleaner's to an executor, until either end leaves.
func (s *Server) carry(life context.Context, conn *net.UnixConn) {
	if !sameUser(conn) {
		return
	}
	ctx, cancel := context.WithTimeout(life, carryTimeout)
	defer cancel()
	_ = conn.SetReadDeadline(time.Now().Add(helloTimeout))
	var number [8]byte
	if _, err := io.ReadFull(conn, number[:]); err != nil {
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	s.mu.Lock()
	e := s.executors[binary.LittleEndian.Uint64(number[:])]
	s.mu.Unlock()
	if e == nil {
		return
	}
	secure, err := channel.Open(ctx, e.GetAddress())
	if err != nil {
		return
	}
	stop := context.AfterFunc(life, func() { _ = secure.Close() })
	defer stop()
	channel.Join(conn, secure)
}

// announce makes an executor's READY; one whose address cannot be told has none. The caller holds mu.
func (s *Server) announce(number uint64, e *api.Executor) []byte {
	frame, err := readyFrame(number, e, s.way(number, e.GetAddress()))
	if err != nil {
		delete(s.announced, number)
		return nil
	}
	s.announced[number] = frame
	return frame
}
