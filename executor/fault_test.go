package executor_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	wire "github.com/gleaner-hpc/gleaner/api/executor"
	"github.com/gleaner-hpc/gleaner/api/jsonframe"
	"github.com/gleaner-hpc/gleaner/fabric"
	"github.com/gleaner-hpc/gleaner/fabric/channel"
)

// TestStorm mixes good requests with all that can go wrong: each call has exactly the outcome of its own request.
func TestStorm(t *testing.T) {
	rounds := map[string]int{"ring": 40, "ofi": 4}
	for _, carrier := range carriers {
		t.Run(carrier, func(t *testing.T) {
			b := start(t, "functions.so")
			conns := []*fabric.Conn{b.connect(fabric.Options{Carrier: carrier}), b.connect(fabric.Options{Carrier: carrier})}
			var group sync.WaitGroup
			for g := range 8 {
				random := rand.New(rand.NewPCG(1, uint64(g)))
				group.Go(func() {
					for i := range rounds[carrier] {
						storm(t, conns[g%2], random, fmt.Sprintf("e%d-%d", g, i))
					}
				})
			}
			group.Wait()
			for _, c := range conns {
				if c.InFlight() != 0 {
					t.Errorf("%d in flight at the end", c.InFlight())
				}
			}
		})
	}
}

// storm sends one request that may end badly and a good one, small or large.
func storm(t *testing.T, c *fabric.Conn, random *rand.Rand, text string) {
	bad := []struct {
		input string
		kind  fabric.Kind
	}{{"s", fabric.Crashed}, {"x", fabric.Exited}, {"b", fabric.ResultTooLarge}, {"o", fabric.ResultTooLarge}, {"l", fabric.DeadlineExceeded}}
	if pick := random.IntN(4 * len(bad)); pick < len(bad) {
		_, err := c.Invoke(within(t), []byte(bad[pick].input), make([]byte, 8), 20*time.Millisecond)
		if !errors.Is(err, &fabric.FunctionError{Kind: bad[pick].kind}) {
			t.Errorf("%q gave %v, want %v", bad[pick].input, err, bad[pick].kind)
		}
	}
	size := []int{len(text), 5000, 100000}[random.IntN(3)]
	input := make([]byte, size)
	copy(input, text)
	result := make([]byte, size)
	n, err := c.Invoke(within(t), input, result, 5*time.Second)
	if err != nil || n != size || string(result[:len(text)]) != text {
		t.Errorf("%s of %d bytes: %q, %v", text, size, result[:len(text)], err)
	}
}

// TestAgentComesBack: the executor serves without its agent, finds it again and says Ready again; it ends without one.
// TestOverwrittenState: a function that writes over what its worker shares with the supervisor gets an error that says so, and the
// executor serves the next client.
func TestOverwrittenState(t *testing.T) {
	for _, carrier := range carriers {
		t.Run(carrier, func(t *testing.T) {
			b := start(t, "functions.so")
			c := b.connect(fabric.Options{Carrier: carrier})
			_, err := c.Invoke(within(t), []byte("fgleaner-state\x00"), make([]byte, 64), time.Second)
			if !errors.Is(err, &fabric.FunctionError{Kind: fabric.Crashed}) {
				t.Errorf("got %v, want that it crashed", err)
			}
			again := b.connect(fabric.Options{Carrier: carrier})
			echo(t, again, 100)
			result := make([]byte, 64)
			if n, err := again.Invoke(within(t), []byte("t"), result, time.Second); err != nil || string(result[:n]) != "0" {
				t.Errorf("the function cut %q of its files short, %v", result[:n], err)
			}
			echo(t, again, 100)
		})
	}
}

// TestHalfOpen: connections that say nothing keep nobody out.
func TestHalfOpen(t *testing.T) {
	b := start(t, "functions.so")
	for range 200 {
		silent, err := net.Dial("tcp", channel.HostPort(b.ready.Address))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = silent.Close() }()
	}
	echo(t, b.connect(fabric.Options{Carrier: "ofi"}), 100)
}

func TestAgentComesBack(t *testing.T) {
	b := start(t, "functions.so", func(a *wire.Assign) { a.OrphanTimeout = 300 * time.Millisecond })
	c := b.connect(fabric.Options{})
	socket := filepath.Join(filepath.Dir(b.ready.Local), "agent.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	_ = b.agent.Close()
	echo(t, c, 10)
	before := b.ready
	b.greet(listener)
	if b.ready != before {
		t.Errorf("ready %+v, before %+v", b.ready, before)
	}
	_ = listener.Close()
	_ = b.agent.Close()
	select {
	case <-b.exited:
	case <-time.After(5 * time.Second):
		t.Fatal("an orphan lives on")
	}
	<-c.Gone()
}

// TestSecondAssignment: an executor serves one lease in its life.
func TestSecondAssignment(t *testing.T) {
	b := start(t, "functions.so")
	other := b.assign
	other.Lease = 8
	if err := jsonframe.Write(b.agent, wire.FromAgent{Assign: &other}); err != nil {
		t.Fatal(err)
	}
	var frame wire.FromExecutor
	if err := jsonframe.Read(b.agent, &frame); err != nil || frame.Failed == nil {
		t.Fatalf("got %+v, %v; want Failed", frame, err)
	}
	<-b.exited
}

// TestDescriptors: connections, also refused ones, leave no descriptor and no mapping behind on either side.
func TestDescriptors(t *testing.T) {
	for _, carrier := range carriers {
		t.Run(carrier, func(t *testing.T) {
			b := start(t, "functions.so")
			round := func() {
				c, err := b.dial(fabric.Options{Carrier: carrier})
				if err != nil {
					t.Fatal(err)
				}
				echo(t, c, 100)
				closeQuietly(c)
			}
			round() // what is opened once stays open
			awaitDescriptors(t, b, -1)
			here, there := descriptors(t, "self"), descriptors(t, b.process.Process.Pid)
			for range 5 {
				round()
			}
			awaitDescriptors(t, b, there)
			if now := descriptors(t, "self"); now > here {
				t.Errorf("client: %d descriptors, before %d", now, here)
			}
		})
	}
}
