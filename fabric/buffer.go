package fabric

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrReleased is the error of a Buffer that has been given back.
var ErrReleased = errors.New("buffer used after its release: borrow another")

// Buffer is a request slot lent to its caller, who writes arguments and reads results where the carrier moves them, without a
// copy. While it is lent nobody else has the slot: borrow few, and for short.
//
// It is a value of no use after Release, or after an Invoke whose context has ended: its methods then return nil or ErrReleased,
// also those of copies. Slices got from it must not be used any longer, because the memory goes to the next borrower. Until its
// release they stay valid, even when the connection is closed. One goroutine at a time may use it.
type Buffer struct {
	conn *Conn
	slot *slot
	loan uint64
}

// loans count what is lent, so that memory outlives the connection until all is back.
type loans struct {
	mu    sync.Mutex
	lent  int
	ended bool
}

func (l *loans) begin() {
	l.mu.Lock()
	l.lent++
	l.mu.Unlock()
}

// back says whether the memory is to be freed now.
func (l *loans) back() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lent--
	return l.ended && l.lent == 0
}

// end lends nothing more, and says whether the memory is to be freed now.
func (l *loans) end() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	return l.lent == 0
}

// Borrow waits for a free slot with room for so many bytes each way.
func (c *Conn) Borrow(ctx context.Context, bytes int) (Buffer, error) {
	c.users.RLock()
	defer c.users.RUnlock()
	s, err := c.acquire(ctx, bytes, 0)
	if err != nil {
		return Buffer{}, err
	}
	c.loans.begin()
	return Buffer{conn: c, slot: s, loan: s.loan.Add(1)}, nil
}

func (b Buffer) valid() bool { return b.conn != nil && b.slot.loan.Load() == b.loan }

// Args is the memory for arguments, with whatever an earlier request has left there.
func (b Buffer) Args() []byte {
	if !b.valid() {
		return nil
	}
	return b.slot.request
}

// Invoke runs the function on the first size bytes of Args. The result, of at most capacity bytes, lies in the buffer until the
// next Invoke or Release. Otherwise it does as Conn.Invoke; after the context's error the buffer is released.
func (b Buffer) Invoke(ctx context.Context, size, capacity int, timeout time.Duration) ([]byte, error) {
	if !b.valid() {
		return nil, ErrReleased
	}
	c, s := b.conn, b.slot
	c.users.RLock()
	defer c.users.RUnlock()
	switch {
	case c.closed.Load():
		return nil, ErrClosed
	case size < 0 || capacity < 0 || max(size, capacity) > len(s.request):
		return nil, &FunctionError{Kind: BadRequest, Detail: fmt.Sprintf("%d bytes in, room for %d out; the buffer holds %d", size, capacity, len(s.request))}
	}
	done, err := c.roundTrip(ctx, s, size, capacity, timeout)
	switch {
	case err != nil:
		s.loan.CompareAndSwap(b.loan, b.loan+1) // unless the slot has found its next borrower already
		c.loans.back()                          // the connection is open: its users are locked
		return nil, err
	case done.status != statusOK:
		return nil, c.failure(done)
	}
	return s.result[:done.size], nil
}

// Release gives the slot back. Only the first call counts.
func (b Buffer) Release() {
	if b.conn == nil || !b.slot.loan.CompareAndSwap(b.loan, b.loan+1) {
		return
	}
	b.conn.release(b.slot)
	if b.conn.loans.back() {
		b.conn.h.close()
	}
}
