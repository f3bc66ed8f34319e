package share

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var code = []byte("\x7fELF, more or less")

// holder notes what it is asked for.
type holder struct {
	refresh   func() // done when it is asked for tokens, unless nil
	mu        sync.Mutex
	refreshes int
	counts    [3]uint64
}

func (h *holder) Refresh() {
	if h.refresh != nil {
		h.refresh()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refreshes++
}

func (h *holder) Add(ok, failed, retried uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts = [3]uint64{h.counts[0] + ok, h.counts[1] + failed, h.counts[2] + retried}
}

func (h *holder) seen() (int, [3]uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.refreshes, h.counts
}

// serve runs a server until the test ends and returns its socket.
func serve(t *testing.T) (*Server, *holder, string) {
	t.Helper()
	s, err := New(&client.Function{Symbol: "f", Library: code, Digest: sha256.Sum256(code)})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	h := &holder{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- s.Run(ctx, listener, Terms{Lease: 42, Buffer: 1 << 20, Timeout: time.Second, Executors: 3}, h)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, h, listener.Addr().String()
}

// guest plays libgleaner.
type guest struct {
	t    *testing.T
	conn *net.UnixConn
	in   *bufio.Reader
}

func dial(t *testing.T, socket string) *guest {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return &guest{t, conn, bufio.NewReader(conn)}
}

func hello() []byte {
	return finish(le.AppendUint32(le.AppendUint32(begin(typeHello), magic), version))
}

func (g *guest) say(frame []byte) {
	g.t.Helper()
	if _, err := g.conn.Write(frame); err != nil {
		g.t.Fatal(err)
	}
}

// join says HELLO and takes the lease, with the library by its descriptor.
func (g *guest) join() (frame, library []byte) {
	g.t.Helper()
	g.say(hello())
	b, oob := make([]byte, 4096), make([]byte, 256)
	n, m, _, _, err := g.conn.ReadMsgUnix(b, oob)
	if err != nil {
		g.t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:m])
	if err != nil || len(messages) != 1 {
		g.t.Fatalf("LEASE came with %d control messages, %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		g.t.Fatalf("LEASE came with descriptors %v, %v", fds, err)
	}
	defer func() { _ = unix.Close(fds[0]) }()
	if seals, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GET_SEALS, 0); err != nil || seals&unix.F_SEAL_WRITE == 0 {
		g.t.Errorf("seals of the library: %x, %v", seals, err)
	}
	library = make([]byte, 1024)
	size, err := unix.Pread(fds[0], library, 0)
	if err != nil {
		g.t.Fatal(err)
	}
	size0 := headBytes + int(le.Uint32(b))
	g.in = bufio.NewReader(io.MultiReader(bytes.NewReader(b[size0:n]), g.conn))
	return b[:size0], library[:size]
}

// subscribed waits until the server has so many peers, which then hear of everything.
func subscribed(t *testing.T, s *Server, peers int) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; {
		s.mu.Lock()
		n := len(s.peers)
		s.mu.Unlock()
		if n == peers {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d peers, want %d", n, peers)
		}
	}
}

// next reads one frame.
func (g *guest) next() (kind uint16, body []byte) {
	g.t.Helper()
	head := make([]byte, headBytes)
	if _, err := io.ReadFull(g.in, head); err != nil {
		g.t.Fatalf("read frame: %v", err)
	}
	body = make([]byte, le.Uint32(head))
	if _, err := io.ReadFull(g.in, body); err != nil {
		g.t.Fatal(err)
	}
	return le.Uint16(head[4:]), body
}

func executor(id string) *api.Executor {
	return &api.Executor{Id: id, Node: "n1", Address: "n1:4711", Local: "/run/x", Token: []byte("token of " + id)}
}

func TestLeaseAndLibraryAreHandedOver(t *testing.T) {
	_, _, socket := serve(t)
	frame, library := dial(t, socket).join()
	if diff := cmp.Diff(leaseFrame(Terms{42, 1 << 20, time.Second, 3}, len(code), sha256.Sum256(code), "f"), frame); diff != "" {
		t.Error(diff)
	}
	if !bytes.Equal(library, code) {
		t.Errorf("library %q, want %q", library, code)
	}
}

// Whoever comes later hears of those that live, and of nobody else.
func TestExecutorsComeAndGo(t *testing.T) {
	s, _, socket := serve(t)
	early := dial(t, socket)
	early.join()
	subscribed(t, s, 1)
	s.Ready(executor("42-1"))
	s.Ready(executor("42-2"))
	s.Gone("42-1", api.EndReason_EVICTED, "job 12 needed cores 0-3")
	s.Gone("42-2", api.EndReason_EXECUTOR_FAILED, "")
	s.Gone("42-9", api.EndReason_EVICTED, "nobody knows it")
	s.Ready(executor("42-3"))
	s.Ready(executor("42-3")) // a fresh token
	for n, want := range [][]byte{announced(t, s, 1, "42-1"), announced(t, s, 2, "42-2"), goneFrame(1, false, "evicted: job 12 needed cores 0-3"),
		goneFrame(2, true, "executor failed"), announced(t, s, 3, "42-3"), announced(t, s, 3, "42-3")} {
		early.expect(n, want)
	}
	late := dial(t, socket)
	late.join()
	late.expect(0, announced(t, s, 3, "42-3"))
	s.End(api.EndReason_JOB_ENDED, "")
	s.End(api.EndReason_EXPIRED, "only once")
	for _, g := range []*guest{early, late} {
		g.expect(1, endedFrame(api.EndReason_JOB_ENDED, "job ended"))
	}
}

func announced(t *testing.T, s *Server, number uint64, id string) []byte {
	t.Helper()
	frame, err := readyFrame(number, executor(id), s.way(number, executor(id).GetAddress()))
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

func (g *guest) expect(n int, want []byte) {
	g.t.Helper()
	kind, body := g.next()
	if kind != le.Uint16(want[4:]) || !bytes.Equal(body, want[headBytes:]) {
		g.t.Errorf("frame %d: type %d %q, want type %d %q", n, kind, body, le.Uint16(want[4:]), want[headBytes:])
	}
}

func TestRequestsReachTheHolder(t *testing.T) {
	_, h, socket := serve(t)
	g := dial(t, socket)
	g.join()
	counts := le.AppendUint64(le.AppendUint64(le.AppendUint64(begin(typeCounts), 5), 1), 2)
	g.say(slices.Concat(finish(counts), finish(le.AppendUint64(begin(typeRefresh), 1)), finish(le.AppendUint64(begin(typeRefresh), 2)), finish(counts)))
	deadline := time.Now().Add(5 * time.Second)
	for {
		refreshes, got := h.seen()
		if got == [3]uint64{10, 2, 4} {
			if refreshes != 1 {
				t.Errorf("%d refreshes, want 1: one brings all tokens", refreshes)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("counts %v", got)
		}
	}
}

// What a peer says before it leaves is heard, though nothing can be written to it any more.
func TestLastWordsAreHeard(t *testing.T) {
	s, h, socket := serve(t)
	g := dial(t, socket)
	asked, left := make(chan bool), make(chan bool)
	h.refresh = func() {
		close(asked)
		<-left
		s.Ready(executor("1-1"))
		time.Sleep(50 * time.Millisecond) // for the writer to fail
	}
	g.join()
	subscribed(t, s, 1)
	g.say(finish(le.AppendUint64(begin(typeRefresh), 1)))
	<-asked
	g.say(finish(le.AppendUint64(le.AppendUint64(le.AppendUint64(begin(typeCounts), 1), 5), 2)))
	_ = g.conn.Close()
	close(left)
	subscribed(t, s, 0)
	if _, counts := h.seen(); counts != [3]uint64{1, 5, 2} {
		t.Errorf("heard %v", counts)
	}
}

func TestWhoBreaksTheProtocolIsHungUpOn(t *testing.T) {
	_, _, socket := serve(t)
	for name, frame := range map[string][]byte{
		"no hello":        finish(le.AppendUint64(begin(typeRefresh), 1)),
		"other magic":     finish(le.AppendUint64(begin(typeHello), 7)),
		"other version":   finish(le.AppendUint32(le.AppendUint32(begin(typeHello), magic), version+1)),
		"too long":        append([]byte{255, 255, 255, 255, typeHello, 0, 0, 0}, hello()...),
		"second hello":    slices.Concat(hello(), hello()),
		"of our own kind": slices.Concat(hello(), endedFrame(1, "no")),
	} {
		t.Run(name, func(t *testing.T) {
			g := dial(t, socket)
			g.say(frame)
			if _, err := io.Copy(io.Discard, g.conn); err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("not hung up on: %v", err)
			}
		})
	}
	dial(t, socket).join() // others are served
}

func TestTextsAndAddressesAreBounded(t *testing.T) {
	s, _, socket := serve(t)
	g := dial(t, socket)
	g.join()
	subscribed(t, s, 1)
	long := executor("42-1")
	long.Local = strings.Repeat("x", 256)
	s.Ready(long)
	s.Ready(executor("42-2"))
	s.Gone("42-2", api.EndReason_EVICTED, strings.Repeat("y\x00", 4000))
	g.expect(0, announced(t, s, 1+1, "42-2"))
	kind, body := g.next()
	if kind != typeGone || len(body) != 12+2+maxText || bytes.IndexByte(body[14:], 0) >= 0 {
		t.Errorf("type %d with %d bytes", kind, len(body))
	}
}

func FuzzReadRequest(f *testing.F) {
	f.Add(hello())
	f.Add(finish(le.AppendUint64(begin(typeRefresh), 1)))
	f.Add([]byte{24, 0, 0, 0, typeCounts, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		q, err := readRequest(r)
		if err != nil {
			return
		}
		if used := len(b) - r.Len(); used != headBytes+int(binary.LittleEndian.Uint32(b)) || q.kind < typeHello || q.kind > typeCounts {
			t.Errorf("took %d bytes of %x for %+v", used, b, q)
		}
	})
}
