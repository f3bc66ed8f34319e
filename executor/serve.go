package executor

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/fabric/control"
)

// admitConnection gives a new connection an id and its reader and writer.
func (s *supervisor) admitConnection(conn net.Conn) {
	id, ok := s.freeID()
	if !ok && s.dropSilent() {
		id, ok = s.freeID()
	}
	if !ok {
		s.group.Go(func() { // a stranger may take his time over the handshake
			_ = conn.SetDeadline(time.Now().Add(writeTimeout))
			_, _ = conn.Write(control.Refused(refusedConnections, "this executor has as many connections as it takes"))
			_ = conn.Close()
		})
		return
	}
	_, local := conn.(*net.UnixConn)
	s.arrivals++
	c := &client{conn: conn, local: local, id: id, arrival: s.arrivals, out: make(chan []byte, noticeQueue)}
	s.clients[id] = c
	s.group.Go(c.write)
	s.group.Go(func() { c.read(s.codeLimit.Load, s.post) })
}

// dropSilent lets the longest-standing connection go that has shown no token yet, so that strangers who connect and say nothing
// keep nobody out.
func (s *supervisor) dropSilent() bool {
	var oldest *client
	for _, c := range s.clients {
		if !c.admitted && (oldest == nil || c.arrival < oldest.arrival) {
			oldest = c
		}
	}
	if oldest != nil {
		s.drop(oldest)
	}
	return oldest != nil
}

// freeID gives out ids in turn, so that one is used again late, and never the one whose request is running.
func (s *supervisor) freeID() (uint32, bool) {
	for range maxConnections {
		id := s.nextID % maxConnections
		s.nextID++
		if _, taken := s.clients[id]; taken {
			continue
		}
		if s.worker != nil {
			if r, _, _, running := s.worker.state.running(); running && r.connection == id {
				continue
			}
		}
		return id, true
	}
	return 0, false
}

func (s *supervisor) refuse(c *client, r refusal) {
	if s.refused.count(r.code) {
		s.cfg.Log.Info("client refused", "from", c.conn.RemoteAddr().String(), "reason", r.text)
	}
	c.send(control.Refused(r.code, r.text))
	s.drop(c)
}

// drop ends a connection after what is queued for it has been sent.
func (s *supervisor) drop(c *client) {
	if s.clients[c.id] != c {
		return
	}
	delete(s.clients, c.id)
	close(c.out)
	if c.attach != nil {
		c.attach.close()
		c.attach = nil
	}
	if c.attached && s.worker != nil {
		_ = s.worker.send(command{op: opDetach, connection: c.id}, nil)
	}
}

// forget follows a client that went away. Nobody waits for the request of its that runs: the worker is stopped for the others.
func (s *supervisor) forget(c *client) {
	s.drop(c)
	if c.attached {
		s.tellUsage()
		s.usage.tell.Reset(usageEvery) // what was in progress is counted by then
	}
	if !c.attached || s.worker == nil || !s.worker.serving {
		return
	}
	if r, _, generation, ok := s.worker.state.running(); ok && r.connection == c.id {
		s.condemn(r, generation, ending{kind: kindCrashed, text: "its client went away"})
	}
}

func (s *supervisor) hello(e helloEvent) {
	c := e.client
	if s.clients[c.id] != c {
		return
	}
	if e.err != nil {
		s.refuse(c, refusal{refusedProtocol, e.err.Error()})
		return
	}
	epoch, no := admit(s.assign, s.epoch, e.hello, time.Now())
	if no != nil {
		s.refuse(c, *no)
		return
	}
	s.epoch = max(s.epoch, epoch)
	accept, no := terms(s.assign, e.hello, c.local)
	if no != nil {
		s.refuse(c, *no)
		return
	}
	var cookie [8]byte
	_, _ = rand.Read(cookie[:])
	accept.Cookie = binary.LittleEndian.Uint64(cookie[:])
	accept.Connection = c.id
	accept.NeedCode = s.code == nil
	c.accept, c.spinNS, c.admitted = accept, e.hello.SpinNS, true
	c.send(accept.Encode())
	if s.worker != nil && accept.Carrier == control.CarrierOFI {
		s.worker.openFabric() // while the client sends its library and opens its own
	}
}

func (s *supervisor) uploaded(e codeEvent) {
	c := e.client
	switch {
	case s.clients[c.id] != c || !c.admitted || s.code != nil:
		_ = e.file.Close()
	case !sameDigest(e.digest, s.assign.Digest):
		_ = e.file.Close()
		s.refuse(c, refusal{refusedDigest, "the library that was sent is not the one that the lease names"})
	default:
		if err := soundLibrary(e.file); err != nil {
			_ = e.file.Close()
			s.fail(ending{kind: kindLoadFailed, text: err.Error()})
			return
		}
		s.code = e.file
		s.start()
	}
}

func (s *supervisor) attach(c *client, a *attachment) {
	if s.clients[c.id] != c || !c.admitted {
		a.close()
		return
	}
	if c.attach != nil {
		c.attach.close()
	}
	c.attach = a
	if s.code != nil {
		s.start()
	}
	if s.worker != nil && s.worker.serving {
		s.passOn(c)
	}
}

// passOn gives a client's attachment to the worker.
func (s *supervisor) passOn(c *client) {
	a := c.attach
	c.attach = nil
	defer a.close()
	s.worker.state.begun[c.id].Store(0)
	c.attached = true
	s.usage.tell.Reset(usageEvery)
	err := s.worker.send(command{
		op: opAttach, connection: c.id, carrier: uint32(c.accept.Carrier), slots: c.accept.Slots, bufferBytes: c.accept.BufferBytes,
		cookie: c.accept.Cookie, spinNS: c.spinNS, key: a.Key, base: a.Base, address: a.Address,
	}, a.files)
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return // the worker has just died: the client is asked again when the next one serves
	}
	if err != nil {
		s.refuse(c, refusal{refusedAttach, err.Error()})
	}
}

// everyone is the clients in the order of their ids.
func (s *supervisor) everyone() []*client {
	all := make([]*client, 0, len(s.clients))
	for _, c := range s.clients {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *client) int { return int(a.id) - int(b.id) })
	return all
}
