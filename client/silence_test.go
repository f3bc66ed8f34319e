package client

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/identity"
)

// An executor that neither answers nor ends loses its tasks to others, once their timeout is long over.
func TestSilentExecutor(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	var ran atomic.Bool
	w, c := newWorld(t, func(input []byte) ([]byte, error) {
		if !ran.Swap(true) {
			<-hang
		}
		return reverse(input)
	})
	l := acquire(t, c, Request{Tasks: TaskOptions{Timeout: 20 * time.Millisecond}})
	l.pool.slack = 100 * time.Millisecond
	w.arrive()
	call := l.Start(t.Context(), Bytes("", []byte("abc")))
	eventually(t, "the task runs on an executor that hangs", func() bool { return l.Counts().Waiting == 0 })
	w.arrive()
	if output, err := call.Result(); err != nil || string(output) != "cba" {
		t.Fatalf("got %q, %v", output, err)
	}
	if runs := call.Outcome().Attempts; len(runs) != 2 || !errors.Is(runs[0].Err, ErrSilent) {
		t.Errorf("runs: %+v, want a silent one and one that worked", runs)
	}
}

// relay stands between client and broker. Once frozen it takes what comes and passes nothing on, as a broker that is stopped does, or
// a network that drops.
func relay(t *testing.T, to string) (address string, freeze func()) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	frozen, done := make(chan struct{}), make(chan struct{})
	pass := func(from, to net.Conn) {
		b := make([]byte, 4096)
		for {
			n, err := from.Read(b)
			select {
			case <-frozen:
				_, _ = io.Copy(io.Discard, from)
				return
			default:
			}
			if err != nil || to == nil {
				return
			}
			_, _ = to.Write(b[:n])
		}
	}
	var open []net.Conn
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			other, _ := net.Dial("tcp", to)
			open = append(open, conn, other)
			go pass(conn, other)
			go pass(other, conn)
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
		for _, c := range open {
			if c != nil {
				_ = c.Close()
			}
		}
	})
	return listener.Addr().String(), func() { close(frozen) }
}

// Calls without a deadline of their own end when the broker hangs: before it has ever answered, and afterwards.
func TestSilentBroker(t *testing.T) {
	const within = 60 * time.Second // 15 s, where nothing else runs
	server := grpc.NewServer()
	api.RegisterLeasesServer(server, &world{live: map[string]*fakeConn{}, watchers: map[chan *api.LeaseEvent]bool{}})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	for name, answered := range map[string]bool{"from the beginning": false, "after a call": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, freeze := relay(t, listener.Addr().String())
			c, err := Dial(Config{Broker: address, Identity: identity.None{}})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if answered {
				if _, err := c.Leases().Acquire(t.Context(), &api.AcquireRequest{}); err != nil {
					t.Fatal(err)
				}
			}
			freeze()
			began := time.Now()
			_, err = c.Attach(context.Background(), 42, anyFunction, TaskOptions{})
			if took := time.Since(began); !errors.Is(err, ErrUnreachable) || took > within {
				t.Errorf("got %v after %v", err, took)
			}
		})
	}
}
