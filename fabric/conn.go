package fabric

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// ErrClosed is the error of a connection that its owner has closed.
var ErrClosed = errors.New("connection closed")

const (
	dialTimeout = 30 * time.Second
	spinRound   = 100 * time.Microsecond // between looks at the context when spinning without end
	bulkBudgets = 20                     // so many more spins while a large payload arrives, at most
)

// The states of a slot whose caller waits in Invoke: either the harvester delivers or the caller abandons it.
const (
	waiting int32 = iota
	delivered
	abandoned
)

type slot struct {
	slotBuffers
	index uint32
	large bool
	state atomic.Int32
	done  chan completion // one place
	call  *Call           // set by Start
	loan  atomic.Uint64   // grows with each Buffer that is lent and given back: only one of this number may be used
}

// Conn is a connection to one executor. All methods are safe for concurrent use.
//
// Replies are harvested by one goroutine at a time, the holder of harvester: a caller of Invoke that finds it free spins for
// its own reply, and leaves the role to the keeper goroutine when it gives up or when other requests are in flight. While
// requests are in flight somebody holds the role.
type Conn struct {
	h       *handle
	spin    time.Duration
	carrier string
	slots   []slot
	small   chan uint32 // free slots
	big     chan uint32
	limit   int // slots with small buffers
	largest int

	inFlight  atomic.Int64
	harvester atomic.Bool
	keeping   atomic.Bool // the keeper holds the role

	users  sync.RWMutex // held for reading inside Invoke and Start; Close waits for it
	closed atomic.Bool
	once   sync.Once
	loans  loans
	gone   chan struct{}
	ended  chan struct{} // keeper has returned
}

// Dial connects to an executor, shows the token, uploads the library when the executor lacks it and sets up the carrier.
// It returns a *RefusedError, *FunctionError (the library does not load, or has no such symbol), *GoneError (not reachable),
// or the context's error. Without a deadline in ctx it gives up after 30 s.
func Dial(ctx context.Context, e Endpoint, code Code, o Options) (*Conn, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("dial executor: %w", err)
	}
	code, err := code.withDigest()
	if err != nil {
		return nil, fmt.Errorf("dial executor: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	cancel, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("dial executor: eventfd: %w", err)
	}
	event := os.NewFile(uintptr(cancel), "dial-cancel")
	defer func() { _ = event.Close() }()
	stop := context.AfterFunc(ctx, func() { _, _ = event.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0}) })
	defer stop()
	timeout := dialTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = time.Until(deadline)
	}
	e, release, err := reach(ctx, e, o, timeout)
	var h *handle
	if err == nil {
		h, err = dial(e, code, o, timeout, cancel)
		release()
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("dial executor at %s: %w", e.Address, ctx.Err())
		}
		return nil, err
	}
	return newConn(h, o), nil
}

func newConn(h *handle, o Options) *Conn {
	small, large := h.slots()
	c := &Conn{
		h: h, spin: o.Spin, carrier: "ofi", slots: make([]slot, small+large), small: make(chan uint32, small), big: make(chan uint32, max(large, 1)), limit: small,
		gone: make(chan struct{}), ended: make(chan struct{}),
	}
	if h.ring() {
		c.carrier = "ring"
	}
	for i := range c.slots {
		s := &c.slots[i]
		s.slotBuffers, s.index, s.large, s.done = h.buffers(i), uint32(i), i >= small, make(chan completion, 1)
		c.largest = max(c.largest, len(s.request))
		c.release(s)
	}
	go c.keep()
	return c
}

// Carrier is "ring" or "ofi".
func (c *Conn) Carrier() string { return c.carrier }

// Doorbell is how requests are announced on ofi at the moment: by "message" or by "write", as the trial at connect has shown. It
// is "" on the ring and after Close.
func (c *Conn) Doorbell() string {
	c.users.RLock()
	defer c.users.RUnlock()
	switch {
	case c.closed.Load() || c.carrier == "ring":
		return ""
	case c.h.bells():
		return "write"
	}
	return "message"
}

// Slots is how many requests may be in flight; of those with payloads above 64 KiB, two.
func (c *Conn) Slots() int { return c.limit }

// InFlight is how many requests have no reply yet.
func (c *Conn) InFlight() int { return int(c.inFlight.Load()) }

// Gone is closed when the executor is gone or the connection closed; Err then says why.
func (c *Conn) Gone() <-chan struct{} { return c.gone }

// Err is nil until Gone is closed, and then a *GoneError, or ErrClosed.
func (c *Conn) Err() error {
	select {
	case <-c.gone:
	default:
		return nil
	}
	c.users.RLock()
	defer c.users.RUnlock()
	if c.closed.Load() {
		return ErrClosed
	}
	return &GoneError{Reason: c.h.reason()}
}

// Close ends the connection. What is in flight ends with a GoneError. Memory of a Buffer stays until the Buffer is released.
func (c *Conn) Close() error {
	c.once.Do(func() {
		c.h.abort()
		c.h.kick()
		c.users.Lock()
		c.closed.Store(true)
		c.h.kick()
		<-c.ended
		if c.loans.end() {
			c.h.close()
		}
		c.users.Unlock()
	})
	return nil
}

// Invoke runs the function on input, waits for the result in result and returns its length. It waits for a free slot first.
// timeout bounds the function's run, 0 means none. When ctx ends Invoke returns at once; the function may still run.
// Errors: *FunctionError, *GoneError, ErrClosed, the context's.
func (c *Conn) Invoke(ctx context.Context, input, result []byte, timeout time.Duration) (int, error) {
	c.users.RLock()
	defer c.users.RUnlock()
	s, err := c.acquire(ctx, len(input), len(result))
	if err != nil {
		return 0, err
	}
	copy(s.request, input)
	done, err := c.roundTrip(ctx, s, len(input), len(result), timeout)
	if err != nil {
		return 0, err
	}
	return c.finish(s, done, result)
}

// roundTrip runs what lies in the slot. With an error, the context's, the slot is no longer the caller's: it is freed when the
// function has ended.
func (c *Conn) roundTrip(ctx context.Context, s *slot, size, capacity int, timeout time.Duration) (completion, error) {
	s.state.Store(waiting)
	c.inFlight.Add(1)
	if c.harvester.CompareAndSwap(false, true) {
		done, ok := c.spinFor(ctx, s, size, capacity, timeout)
		c.handOver()
		if ok {
			return done, nil
		}
	} else {
		c.h.submit(s.index, size, capacity, timeout)
	}
	select {
	case done := <-s.done:
		return done, nil
	case <-ctx.Done():
		if s.state.CompareAndSwap(waiting, abandoned) {
			return completion{}, ctx.Err()
		}
		return <-s.done, nil
	}
}

// spinFor submits and polls until the slot's reply is there or the budget is spent. The caller holds the harvester role.
func (c *Conn) spinFor(ctx context.Context, s *slot, size, capacity int, timeout time.Duration) (completion, bool) {
	round := c.spin
	if round < 0 {
		round = spinRound
	} else if s.large && c.carrier == "ofi" {
		round += min(time.Duration(max(size, capacity)), bulkBudgets*round) // at 1 GB/s: a payload comes in pieces, and each would wake
	}
	done := c.h.call(s.index, size, capacity, timeout, round)
	for {
		var own completion
		found := false
		for _, d := range done {
			if d.slot == s.index {
				own, found = d, true
				c.inFlight.Add(-1)
			} else {
				c.deliver(d)
			}
		}
		if found {
			return own, true
		}
		if len(done) == 0 && (c.spin >= 0 || ctx.Err() != nil) {
			return own, false
		}
		done = c.h.progress(round)
	}
}

// Call is a request that Start has sent.
type Call struct {
	result []byte
	err    error
	done   chan struct{}
}

// Done is closed when the result is there.
func (k *Call) Done() <-chan struct{} { return k.done }

// Result waits for the result.
func (k *Call) Result() ([]byte, error) {
	<-k.done
	return k.result, k.err
}

// Start sends a request and returns without waiting for its result, for which there is room of resultCap bytes. It waits for
// a free slot.
func (c *Conn) Start(input []byte, resultCap int, timeout time.Duration) (*Call, error) {
	c.users.RLock()
	defer c.users.RUnlock()
	s, err := c.acquire(context.Background(), len(input), resultCap)
	if err != nil {
		return nil, err
	}
	k := &Call{done: make(chan struct{}), result: make([]byte, 0, resultCap)}
	copy(s.request, input)
	s.call = k
	c.inFlight.Add(1)
	c.h.submit(s.index, len(input), resultCap, timeout)
	if c.harvester.CompareAndSwap(false, true) {
		c.handOver()
	}
	return k, nil
}

// acquire waits for a slot whose buffers hold both payloads.
func (c *Conn) acquire(ctx context.Context, size, capacity int) (*slot, error) {
	if c.closed.Load() {
		return nil, ErrClosed
	}
	need, free := max(size, capacity), c.small
	if need > c.largest {
		return nil, &FunctionError{Kind: BadRequest, Detail: fmt.Sprintf("%d bytes in, room for %d out; the connection's buffers hold %d", size, capacity, c.largest)}
	}
	if need > len(c.slots[0].request) {
		free = c.big
	}
	select {
	case i := <-free:
		return &c.slots[i], nil
	default:
	}
	select {
	case i := <-free:
		return &c.slots[i], nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *Conn) release(s *slot) {
	if s.large {
		c.big <- s.index
	} else {
		c.small <- s.index
	}
}

// finish reads the result out of the slot and frees it.
func (c *Conn) finish(s *slot, d completion, result []byte) (int, error) {
	defer c.release(s)
	if d.status != statusOK {
		return 0, c.failure(d)
	}
	return copy(result, s.result[:d.size]), nil
}

func (c *Conn) failure(d completion) error {
	switch d.status {
	case statusGone, statusGoneBegan:
		return &GoneError{Reason: c.h.reason(), Began: d.status == statusGoneBegan}
	}
	return &FunctionError{Kind: Kind(d.status), Signal: int(d.signal), Detail: c.h.detail(d.slot)}
}
