package channel

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo serves one certificate's connections and sends back what comes.
func echo(t *testing.T) (c *Certificate, hostPort string) {
	t.Helper()
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := c.Listen(tcp)
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(conn, conn)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-served })
	return c, tcp.Addr().String()
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestCarry(t *testing.T) {
	c, at := echo(t)
	secure, err := Open(within(t), c.Address(at))
	if err != nil {
		t.Fatal(err)
	}
	near, err := Carry(secure)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := near.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(near, got); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
	_ = near.Close()
}

// What the other side says last is heard before its end.
func TestCarryToTheEnd(t *testing.T) {
	a, b := net.Pipe()
	near, err := Carry(a)
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	go func() { _, _ = b.Write([]byte("revoked")); _ = b.Close() }()
	if got, err := io.ReadAll(near); err != nil || string(got) != "revoked" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	_, at := echo(t)
	other, err := New()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		address string
		want    error
	}{
		"an impostor":         {other.Address(at), ErrImpostor},
		"no fingerprint":      {at, ErrAddress},
		"half a fingerprint":  {strings.TrimSuffix(other.Address(at), other.Address("")[10:]), ErrAddress},
		"no such fingerprint": {at + "#" + strings.Repeat("!", 43), ErrAddress},
	} {
		if conn, err := Open(within(t), test.address); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, %v, want %v", name, conn, err, test.want)
		}
	}
}

// Whoever listens in on the way sees neither what the client says nor what it hears.
func TestNothingIsOverheard(t *testing.T) {
	c, at := echo(t)
	wire, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer wire.Close()
	heard := make(chan string, 1)
	go func() {
		client, err := wire.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", at)
		if err != nil {
			return
		}
		var log strings.Builder
		Join(tapped{client, &log}, server)
		heard <- log.String()
	}()
	secure, err := Open(within(t), c.Address(wire.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	const token = "the token of the lease"
	_, _ = secure.Write([]byte(token))
	got := make([]byte, len(token))
	if _, err := io.ReadFull(secure, got); err != nil || string(got) != token {
		t.Fatalf("got %q, %v", got, err)
	}
	_ = secure.Close()
	if log := <-heard; len(log) == 0 || strings.Contains(log, token) {
		t.Errorf("of %d bytes on the wire the token is some", len(log))
	}
}

// tapped notes what is read from a connection.
type tapped struct {
	net.Conn
	log *strings.Builder
}

func (c tapped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.log.Write(b[:n])
	return n, err
}

func FuzzSplit(f *testing.F) {
	c, err := New()
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{c.Address("h:1"), "h:1", "#", "h:1#", "h:1#" + strings.Repeat("A", 43), "h:1#A#B"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, address string) {
		hostPort, fingerprint, err := split(address)
		if err == nil && (len(fingerprint) != 32 || !strings.HasPrefix(address, hostPort+"#")) {
			t.Errorf("%q: %q, %x", address, hostPort, fingerprint)
		}
		if err != nil && !errors.Is(err, ErrAddress) {
			t.Errorf("%q: %v", address, err)
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	c, err := New()
	if err != nil {
		b.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer tcp.Close()
	l := c.Listen(tcp)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = conn.Read(make([]byte, 1)); _ = conn.Close() }()
		}
	}()
	for b.Loop() {
		secure, err := Open(context.Background(), c.Address(tcp.Addr().String()))
		if err != nil {
			b.Fatal(err)
		}
		_ = secure.Close()
	}
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		if _, err := New(); err != nil {
			b.Fatal(err)
		}
	}
}
