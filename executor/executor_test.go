package executor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	wire "github.com/gleaner-hpc/gleaner/api/executor"
	"github.com/gleaner-hpc/gleaner/api/jsonframe"
	"github.com/gleaner-hpc/gleaner/api/token"
	"github.com/gleaner-hpc/gleaner/fabric"
)

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func echo(t testing.TB, c *fabric.Conn, size int) {
	t.Helper()
	input, result := bytes.Repeat([]byte{'e', 'c', byte(size)}, size/3+1)[:size], make([]byte, size)
	n, err := c.Invoke(within(t), input, result, time.Minute)
	if err != nil || n != size || !bytes.Equal(result, input) {
		t.Fatalf("echo of %d bytes: %d bytes, equal %v, %v", size, n, bytes.Equal(result, input), err)
	}
}

func TestPayloads(t *testing.T) {
	for _, carrier := range carriers {
		t.Run(carrier, func(t *testing.T) {
			c := start(t, "functions.so").connect(fabric.Options{Carrier: carrier})
			if c.Carrier() != carrier {
				t.Fatalf("carrier %s", c.Carrier())
			}
			for _, size := range []int{0, 1, 64, 4095, 4096, 4097, 65536, 65537, 1 << 20, 8 << 20} {
				echo(t, c, size)
			}
		})
	}
}

func TestErrorsByName(t *testing.T) {
	cases := map[string]struct {
		input   string
		timeout time.Duration
		kind    fabric.Kind
		signal  syscall.Signal
	}{
		"bad pointer":      {"s", 0, fabric.Crashed, syscall.SIGSEGV},
		"abort":            {"a", 0, fabric.Crashed, syscall.SIGABRT},
		"exit":             {"x", 0, fabric.Exited, 0},
		"endless":          {"l", 50 * time.Millisecond, fabric.DeadlineExceeded, 0},
		"behind result":    {"o", 0, fabric.ResultTooLarge, 0},
		"size above room":  {"b", 0, fabric.ResultTooLarge, 0},
		"one byte too big": {"ee", 0, fabric.ResultTooLarge, 0},
	}
	for _, carrier := range carriers {
		b := start(t, "functions.so")
		c := b.connect(fabric.Options{Carrier: carrier})
		for name, test := range cases {
			t.Run(carrier+"/"+name, func(t *testing.T) {
				_, err := c.Invoke(within(t), []byte(test.input), make([]byte, 1), test.timeout)
				var f *fabric.FunctionError
				if !errors.As(err, &f) || f.Kind != test.kind || f.Signal != int(test.signal) {
					t.Fatalf("got %v, want %v", err, test.kind)
				}
				echo(t, c, 100)
			})
		}
	}
}

func TestLoading(t *testing.T) {
	cases := map[string]struct {
		library string
		change  change
		kind    fabric.Kind
		detail  string
	}{
		"unknown symbol":      {"functions.so", func(a *wire.Assign) { a.Symbol = "nothing" }, fabric.UnknownSymbol, "no symbol nothing"},
		"not a library":       {"executor", func(*wire.Assign) {}, fabric.LoadFailed, "no shared library"},
		"hanging constructor": {"hang.so", func(*wire.Assign) {}, fabric.LoadFailed, ""},
		"unresolved":          {"unresolved.so", func(a *wire.Assign) { a.Name = "libmine$1.so" }, fabric.LoadFailed, "libmine$1.so: undefined symbol: nobody_has_this"},
		"nameless":            {"unresolved.so", func(*wire.Assign) {}, fabric.LoadFailed, "the library: undefined symbol: nobody_has_this"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := start(t, test.library, test.change).dial(fabric.Options{})
			var f *fabric.FunctionError
			if !errors.As(err, &f) || f.Kind != test.kind || f.Detail == "" || !strings.Contains(f.Detail, test.detail) {
				t.Fatalf("got %v, want %v with a detail: %s", err, test.kind, test.detail)
			}
		})
	}
}

// TestEnvironment: a function finds what the user guide says, and nothing else of ours. One process runs the tasks of many callers:
// which task it is stands nowhere.
func TestEnvironment(t *testing.T) {
	c := start(t, "environment.so").connect(fabric.Options{})
	result := make([]byte, 4096)
	n, err := c.Invoke(within(t), []byte("x"), result, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for line := range strings.Lines(string(result[:n])) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		found[name] = value
	}
	if want := map[string]string{"GLEANER_LEASE_ID": "7", "GLEANER_JOB_ID": "42", "GLEANER_INSTANCE_ID": "7-1"}; !maps.Equal(found, want) {
		t.Errorf("found %v, want %v", found, want)
	}
	guide, err := os.ReadFile("../docs/user-guide.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range found {
		if !strings.Contains(string(guide), "`"+name+"`") {
			t.Errorf("the user guide does not name %s", name)
		}
	}
}

func TestRefusals(t *testing.T) {
	b := start(t, "functions.so")
	fresh := b.claims()
	fresh.Epoch = 9
	c, err := fabric.Dial(within(t), b.endpoint(fresh), fabric.Code{Symbol: "run", Library: b.library}, fabric.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer closeQuietly(c)
	cases := map[string]struct {
		change func(*token.Claims)
		code   fabric.RefusalCode
	}{
		"expired":         {func(c *token.Claims) { c.Expiry = time.Now().Add(-time.Second) }, fabric.RefusedExpired},
		"other executor":  {func(c *token.Claims) { c.Executor = "7-2" }, fabric.RefusedForeign},
		"other lease":     {func(c *token.Claims) { c.Lease = 8 }, fabric.RefusedForeign},
		"other function":  {func(c *token.Claims) { c.Digest[0]++ }, fabric.RefusedForeign},
		"an older epoch":  {func(c *token.Claims) { c.Epoch = 8 }, fabric.RefusedEpoch},
		"forged by a bit": {nil, fabric.RefusedForged},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			claims := fresh
			if test.change != nil {
				test.change(&claims)
			}
			e := b.endpoint(claims)
			if test.change == nil {
				e.Token[len(e.Token)-1] ^= 1
			}
			_, err := fabric.Dial(within(t), e, fabric.Code{Symbol: "run", Library: b.library}, fabric.Options{})
			if !errors.Is(err, &fabric.RefusedError{Code: test.code}) {
				t.Fatalf("got %v, want code %d", err, test.code)
			}
		})
	}
	heard := map[string]uint64{}
	for len(heard) < 4 {
		var frame wire.FromExecutor
		if err := jsonframe.Read(b.agent, &frame); err != nil {
			t.Fatalf("agent hears of %v, %v", heard, err)
		}
		if frame.Refused != nil {
			for reason, n := range frame.Refused.Tokens {
				heard[reason] += n
			}
		}
	}
	if want := map[string]uint64{"expired": 1, "foreign": 3, "epoch": 1, "forged": 1}; !maps.Equal(heard, want) {
		t.Errorf("agent hears of %v, want %v", heard, want)
	}
}

func TestOthersSurviveACrash(t *testing.T) {
	for _, carrier := range carriers {
		t.Run(carrier, func(t *testing.T) {
			c := start(t, "functions.so").connect(fabric.Options{Carrier: carrier})
			var calls []*fabric.Call
			for i := range 12 {
				input := []byte("w")
				if i == 4 {
					input = []byte("s")
				}
				call, err := c.Start(input, 64, time.Second)
				if err != nil {
					t.Fatal(err)
				}
				calls = append(calls, call)
			}
			for i, call := range calls {
				out, err := call.Result()
				if i == 4 && !errors.Is(err, &fabric.FunctionError{Kind: fabric.Crashed}) {
					t.Errorf("the crash gave %v", err)
				}
				if i != 4 && (err != nil || string(out) != "w") {
					t.Errorf("call %d: %q, %v", i, out, err)
				}
			}
		})
	}
}

func TestConcurrent(t *testing.T) {
	for _, carrier := range carriers {
		t.Run(carrier, func(t *testing.T) {
			c := start(t, "functions.so").connect(fabric.Options{Carrier: carrier})
			var group sync.WaitGroup
			for g := range 64 {
				group.Go(func() {
					for i := range 50 {
						input := fmt.Appendf(nil, "e%d-%d", g, i)
						result := make([]byte, 64)
						n, err := c.Invoke(within(t), input, result, time.Minute)
						if err != nil || string(result[:n]) != string(input) {
							t.Errorf("%s came back as %q, %v", input, result[:n], err)
							return
						}
					}
				})
			}
			group.Wait()
		})
	}
}

func TestTwoClientsOneLeaves(t *testing.T) {
	for _, carrier := range carriers {
		t.Run(carrier, func(t *testing.T) {
			b := start(t, "functions.so")
			one, two := b.connect(fabric.Options{Carrier: carrier}), b.connect(fabric.Options{Carrier: "ring"})
			call, err := one.Start([]byte("l"), 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			waiting, err := two.Start([]byte("e"), 1, 0)
			if err != nil {
				t.Fatal(err)
			}
			closeQuietly(one)
			var gone *fabric.GoneError
			if _, err := call.Result(); !errors.As(err, &gone) {
				t.Errorf("the closed connection's call gave %v", err)
			}
			if out, err := waiting.Result(); err != nil || string(out) != "e" {
				t.Errorf("the other's call gave %q, %v", out, err)
			}
		})
	}
}

func TestKilled(t *testing.T) {
	for _, carrier := range carriers {
		t.Run(carrier, func(t *testing.T) {
			b := start(t, "functions.so")
			c := b.connect(fabric.Options{Carrier: carrier})
			echo(t, c, 10)
			call, err := c.Start([]byte("l"), 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			_ = b.process.Process.Kill()
			_, err = call.Result()
			var gone *fabric.GoneError
			if took := time.Since(begin); !errors.As(err, &gone) || took > 100*time.Millisecond {
				t.Errorf("got %v after %v", err, took)
			}
			<-c.Gone()
			if _, err := c.Invoke(within(t), []byte("e"), make([]byte, 1), 0); !errors.As(err, &gone) || gone.Began {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

// What runs may finish within its grace, and no longer.
func TestRevokedWithGrace(t *testing.T) {
	for name, c := range map[string]struct {
		input    string
		grace    time.Duration
		finishes bool
	}{
		"finishes":       {"w", 5 * time.Second, true},
		"takes too long": {"l", 30 * time.Millisecond, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, "functions.so")
			conn := b.connect(fabric.Options{})
			pid := make([]byte, 16)
			n, err := conn.Invoke(within(t), []byte("p"), pid, 0)
			if err != nil {
				t.Fatal(err)
			}
			running, _ := conn.Start([]byte(c.input), 1, 0)
			if c.finishes {
				waitAsleep(t, string(pid[:n]))
			} else {
				waitBegun(t, string(pid[:n]))
			}
			begin := time.Now()
			if err := jsonframe.Write(b.agent, wire.FromAgent{Revoke: &wire.Revoke{Reason: "evicted", Grace: c.grace}}); err != nil {
				t.Fatal(err)
			}
			var gone *fabric.GoneError
			if _, err := running.Result(); (err == nil) != c.finishes || err != nil && !errors.As(err, &gone) {
				t.Errorf("running: %v", err)
			}
			select {
			case <-b.exited:
			case <-time.After(5 * time.Second):
				t.Fatal("the executor lives on")
			}
			if took := time.Since(begin); !c.finishes && took < c.grace || took > 4*time.Second {
				t.Errorf("ended after %v of %v", took, c.grace)
			}
		})
	}
}

func TestRevoked(t *testing.T) {
	for _, carrier := range carriers {
		t.Run(carrier, func(t *testing.T) {
			b := start(t, "functions.so")
			c := b.connect(fabric.Options{Carrier: carrier})
			pid := make([]byte, 16)
			n, err := c.Invoke(within(t), []byte("p"), pid, 0)
			if err != nil {
				t.Fatal(err)
			}
			running, _ := c.Start([]byte("l"), 0, 0)
			queued, _ := c.Start([]byte("e"), 1, 0)
			waitBegun(t, string(pid[:n]))
			const reason = "evicted: job 12 needed cores 0-3"
			if err := jsonframe.Write(b.agent, wire.FromAgent{Revoke: &wire.Revoke{Reason: reason}}); err != nil {
				t.Fatal(err)
			}
			var gone *fabric.GoneError
			if _, err := running.Result(); !errors.As(err, &gone) || gone.Reason != reason || !gone.Began {
				t.Errorf("running: %#v", err)
			}
			if _, err := queued.Result(); !errors.As(err, &gone) || gone.Began {
				t.Errorf("queued: %#v", err)
			}
			select {
			case <-b.exited:
			case <-time.After(5 * time.Second):
				t.Fatal("the executor lives on")
			}
			worker, _ := strconv.Atoi(string(pid[:n]))
			if err := syscall.Kill(worker, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("the worker lives on: %v", err)
			}
		})
	}
}

// TestFootprint reports what an executor costs a lease before its function needs anything.
func TestFootprint(t *testing.T) {
	for _, carrier := range carriers {
		t.Run(carrier, func(t *testing.T) {
			b := start(t, "functions.so")
			c := b.connect(fabric.Options{Carrier: carrier})
			out := make([]byte, 16)
			n, err := c.Invoke(within(t), []byte("m"), out, 0)
			if err != nil {
				t.Fatal(err)
			}
			worker, _ := strconv.Atoi(string(out[:n]))
			supervisor := residentKiB(t, b.process.Process.Pid)
			t.Logf("resident: worker %d KiB, supervisor %d KiB", worker, supervisor)
			if worker > 64<<10 || supervisor > 24<<10 {
				t.Errorf("worker %d KiB, supervisor %d KiB", worker, supervisor)
			}
		})
	}
}
