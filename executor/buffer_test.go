package executor_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/fabric"
)

// TestBorrow: arguments and results in place, over each carrier; a buffer is of no use after its release, and its memory outlives
// the connection until then.
func TestBorrow(t *testing.T) {
	for _, carrier := range carriers {
		t.Run(carrier, func(t *testing.T) {
			c := start(t, "functions.so").connect(fabric.Options{Carrier: carrier})
			b, err := c.Borrow(within(t), 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			for round := range 3 {
				for _, size := range []int{1, 64, 4097, 1 << 20} {
					args := b.Args()[:size]
					for i := range args {
						args[i] = byte(i + round)
					}
					args[0] = 'e'
					result, err := b.Invoke(within(t), size, size, time.Minute)
					if err != nil || !bytes.Equal(result, args) {
						t.Fatalf("%d bytes: %d returned, %v", size, len(result), err)
					}
				}
			}
			b.Args()[0] = 's'
			if _, err := b.Invoke(within(t), 1, 0, 0); fabricKind(err) != fabric.Crashed {
				t.Errorf("a crash: %v", err)
			}
			if _, err := b.Invoke(within(t), len(b.Args())+1, 0, 0); fabricKind(err) != fabric.BadRequest {
				t.Errorf("more than there is room for: %v", err)
			}
			c.Close()
			b.Args()[len(b.Args())-1] = 1 // still there
			if _, err := b.Invoke(within(t), 1, 1, 0); !errors.Is(err, fabric.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
			copied := b
			b.Release()
			b.Release()
			if _, err := copied.Invoke(within(t), 1, 1, 0); !errors.Is(err, fabric.ErrReleased) || copied.Args() != nil {
				t.Errorf("after Release: %v", err)
			}
			if _, err := c.Borrow(within(t), 1); !errors.Is(err, fabric.ErrClosed) {
				t.Errorf("borrowed from a closed connection: %v", err)
			}
		})
	}
}

// TestBorrowGivenUp: a call that its caller gives up takes the buffer along, and gives its slot back once it has ended.
func TestBorrowGivenUp(t *testing.T) {
	c := start(t, "functions.so").connect(fabric.Options{Carrier: "ring", Slots: 1})
	for range 3 {
		b, err := c.Borrow(within(t), 1)
		if err != nil {
			t.Fatal(err)
		}
		b.Args()[0] = 'w'
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := b.Invoke(ctx, 1, 1, 0); !errors.Is(err, context.Canceled) {
			t.Fatalf("given up: %v", err)
		}
		b.Release() // too late, and of no harm to the next borrower
	}
}

func fabricKind(err error) fabric.Kind {
	if f, ok := errors.AsType[*fabric.FunctionError](err); ok {
		return f.Kind
	}
	return 0
}
