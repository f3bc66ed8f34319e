package executor_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	wire "github.com/gleaner-hpc/gleaner/api/executor"
	"github.com/gleaner-hpc/gleaner/api/jsonframe"
	"github.com/gleaner-hpc/gleaner/fabric"
)

// TestHostile: clients that go on calling through a revocation, with payloads that are written into the worker's memory, hold up
// nothing, and each of their calls ends with a GoneError within its own deadline. What becomes of the memory is
// fabric/ctest/revoke_test.c's.
func TestHostile(t *testing.T) {
	const callers, deadline = 4, 5 * time.Second
	for _, carrier := range carriers {
		t.Run(carrier, func(t *testing.T) {
			b := start(t, "functions.so")
			conns := []*fabric.Conn{b.connect(fabric.Options{Carrier: carrier}), b.connect(fabric.Options{Carrier: carrier})}
			pid := make([]byte, 16)
			n, err := conns[0].Invoke(within(t), []byte("p"), pid, 0)
			if err != nil {
				t.Fatal(err)
			}
			stop, begun := make(chan struct{}), make(chan struct{}, callers)
			var group sync.WaitGroup
			for i := range callers {
				group.Go(func() { harass(t, conns[i%2], deadline, begun, stop) })
			}
			for range callers {
				<-begun
			}
			sent := time.Now()
			if err := jsonframe.Write(b.agent, wire.FromAgent{Revoke: &wire.Revoke{Reason: "evicted"}}); err != nil {
				t.Error(err)
			}
			select {
			case <-b.exited:
				t.Logf("executor ended %v after its revocation", time.Since(sent))
			case <-time.After(5 * time.Second):
				t.Error("clients hold the executor up")
			}
			worker, _ := strconv.Atoi(string(pid[:n]))
			if err := syscall.Kill(worker, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("the worker lives on: %v", err)
			}
			for _, c := range conns {
				<-c.Gone()
			}
			close(stop)
			group.Wait()
		})
	}
}

// harass calls until stop; from the first failure on every call fails, and for the same reason.
func harass(t *testing.T, c *fabric.Conn, deadline time.Duration, begun chan<- struct{}, stop <-chan struct{}) {
	input, result := make([]byte, 1<<20), make([]byte, 1<<20)
	input[0] = 'e'
	gone, calls, first := 0, 0, true
	for last := false; !last; {
		select {
		case <-stop:
			last = true // one more, when all is over
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		begin := time.Now()
		calls++
		_, err := c.Invoke(ctx, input, result, 0)
		cancel()
		var reason *fabric.GoneError
		switch took := time.Since(begin); {
		case took > deadline+time.Second:
			t.Errorf("a call took %v", took)
		case err == nil && gone > 0:
			t.Error("a call succeeded after the revocation")
		case err != nil && !errors.As(err, &reason):
			t.Errorf("call %d gave %v after %v", calls, err, took)
		}
		if err != nil {
			gone++
		}
		if first {
			first = false
			begun <- struct{}{}
		}
	}
	if gone == 0 {
		t.Error("no call failed")
	}
}
