package share

import (
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/fabric/channel"
)

// listening is an executor's protected listener that answers each connection with what it was sent first.
func listening(t *testing.T) string {
	t.Helper()
	certificate, err := channel.New()
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := certificate.Listen(tcp)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.CopyN(conn, conn, 5)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return certificate.Address(tcp.Addr().String())
}

func TestCarry(t *testing.T) {
	s, _, socket := serve(t)
	s.Ready(&api.Executor{Id: "42-1", Address: listening(t)})
	s.Ready(&api.Executor{Id: "42-2", Address: "127.0.0.1:1#" + strings.Repeat("A", 43)})
	dial(t, socket).join() // Run runs
	for name, test := range map[string]struct {
		number uint64
		want   string
	}{
		"an executor": {1, "hello"}, "one that is gone": {2, ""}, "one that never was": {3, ""},
	} {
		conn, err := net.Dial("unix", filepath.Join(filepath.Dir(socket), "x"))
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		_, _ = conn.Write(append(binary.LittleEndian.AppendUint64(nil, test.number), "hello"...))
		if got, _ := io.ReadAll(conn); string(got) != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
		_ = conn.Close()
	}
	if way := s.way(1, "127.0.0.1:5#x"); way != "unix:"+filepath.Join(filepath.Dir(socket), "x")+"|127.0.0.1|1" {
		t.Errorf("got %q", way)
	}
}
