package executor_test

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	wire "github.com/gleaner-hpc/gleaner/api/executor"
	"github.com/gleaner-hpc/gleaner/fabric"
)

// TestSealed: with its library a worker, outside of any sandbox too, loses the calls that lead out of it; a lease with the network keeps
// its sockets and no more.
func TestSealed(t *testing.T) {
	const refused = int(unix.EPERM)
	network := map[string]int{"socket": 0, "local": 0, "netlink": 0, "connect": int(unix.EBADF), "bind": int(unix.EBADF), "listen": int(unix.EBADF), "thread": 0}
	for _, carrier := range carriers {
		for _, open := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s network=%t", carrier, open), func(t *testing.T) {
				c := start(t, "calls.so", func(a *wire.Assign) { a.Network = open }).connect(fabric.Options{Carrier: carrier})
				result := make([]byte, 4096)
				n, err := c.Invoke(within(t), []byte("?"), result, 0)
				if err != nil {
					t.Fatal(err)
				}
				lines := strings.Fields(string(result[:n]))
				if len(lines) != 24 {
					t.Errorf("%d calls are told of", len(lines))
				}
				for _, line := range lines {
					var got int
					name, value, _ := strings.Cut(line, "=")
					_, _ = fmt.Sscan(value, &got)
					want, ok := network[name]
					switch {
					case name == "socketpair":
						want = 0
					case !ok || !open:
						want = refused
					}
					if got != want {
						t.Errorf("%s ends with errno %d, want %d", name, got, want)
					}
				}
			})
		}
	}
}

// TestSecondCarrier: a worker that was sealed without an endpoint gives way to one that has it, as soon as a client of another node comes,
// and the first client's calls are all answered.
func TestSecondCarrier(t *testing.T) {
	b := start(t, "functions.so")
	near := b.connect(fabric.Options{Carrier: "ring"})
	echo := func(c *fabric.Conn, text string) {
		t.Helper()
		result := make([]byte, 64)
		if n, err := c.Invoke(within(t), []byte(text), result, 0); err != nil || string(result[:n]) != text {
			t.Errorf("%s: %q, %v", text, result[:n], err)
		}
	}
	echo(near, "e near")
	var calls []*fabric.Call
	for range 8 {
		call, err := near.Start([]byte("w"), 64, 0)
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, call)
	}
	far := b.connect(fabric.Options{Carrier: "ofi"})
	echo(far, "e far")
	for i, call := range calls {
		if out, err := call.Result(); err != nil || string(out) != "w" {
			t.Errorf("call %d: %q, %v", i, out, err)
		}
	}
	echo(near, "e near again")
}
