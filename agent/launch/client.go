package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

const (
	firstRetry = 10 * time.Millisecond
	lastRetry  = time.Second

	// maxStarts is how many starts the launcher is busy with at most. One can hang for as long as the start's user likes, and a kill must get through.
	maxStarts = launcher.MaxCalls * 3 / 4
)

var errClosed = errors.New("client is closed")

// Client keeps one connection to the launcher and dials again when it breaks. Its methods may be called from many goroutines;
// while there is no connection they fail at once with a DownError.
type Client struct {
	path   string
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	exited chan launcher.Exited
	up     chan bool

	mu      sync.Mutex
	conn    net.Conn // nil while down
	cause   error    // why it is down
	next    uint64
	pending map[uint64]pending // also of starts whose caller has given up
	queue   []launcher.Exited
	wake    chan struct{}
	writeMu sync.Mutex // one request at a time onto conn

	starts chan struct{} // holds one for each start that the launcher has not answered
}

// pending is a request that has not been answered.
type pending struct {
	answer chan launcher.Reply // closed without a reply when the connection breaks
	start  bool
}

// Dial returns a client of the launcher that listens at path. It tries to connect once before it returns and goes on trying in the background:
// a launcher that is not there yet is no error. Close ends it.
func Dial(path string) *Client {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Client{
		path: path, ctx: ctx, cancel: cancel,
		exited: make(chan launcher.Exited), up: make(chan bool, 1),
		pending: map[uint64]pending{}, wake: make(chan struct{}, 1), starts: make(chan struct{}, maxStarts),
	}
	conn, err := c.dial()
	c.connected(conn, err)
	c.wg.Add(2)
	go func() { defer c.wg.Done(); c.keep(conn) }()
	go func() { defer c.wg.Done(); c.deliver() }()
	return c
}

// Close ends the connection. Calls under way fail, and the channels fall silent.
func (c *Client) Close() {
	c.cancel()
	c.mu.Lock()
	if c.conn != nil {
		_ = c.conn.Close()
	}
	c.mu.Unlock()
	c.wg.Wait()
}

// Exited gives the ends of sandboxes, in order, none dropped while the connection lasts.
func (c *Client) Exited() <-chan launcher.Exited { return c.exited }

// Up gives true when a connection is made and false when it is lost. Only the latest state waits to be read. After a true the
// caller lists, because exits may have been missed.
func (c *Client) Up() <-chan bool { return c.up }

func (c *Client) dial() (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(c.ctx, "unix", c.path)
}

// keep reads from one connection after the other until Close.
func (c *Client) keep(conn net.Conn) {
	retry := firstRetry
	for {
		if conn != nil {
			err := c.read(conn)
			c.disconnected(conn, err)
			retry = firstRetry
		}
		select {
		case <-c.ctx.Done():
			return
		case <-time.After(retry):
		}
		retry = min(2*retry, lastRetry)
		var err error
		conn, err = c.dial()
		c.connected(conn, err)
	}
}

func (c *Client) read(conn net.Conn) error {
	for replies := json.NewDecoder(conn); ; {
		var reply launcher.Reply
		if err := replies.Decode(&reply); err != nil {
			if errors.Is(err, io.EOF) {
				return errors.New("it closed the connection")
			}
			return err
		}
		c.mu.Lock()
		if reply.Exited != nil {
			c.queue = append(c.queue, *reply.Exited)
			select {
			case c.wake <- struct{}{}:
			default:
			}
		} else if p, ok := c.pending[reply.ID]; ok {
			c.settle(reply.ID)
			p.answer <- reply
		}
		c.mu.Unlock()
	}
}

// deliver hands exits on at the pace of their reader, so that a slow one never holds up replies.
func (c *Client) deliver() {
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.wake:
		}
		c.mu.Lock()
		queue := c.queue
		c.queue = nil
		c.mu.Unlock()
		for _, e := range queue {
			select {
			case <-c.ctx.Done():
				return
			case c.exited <- e:
			}
		}
	}
}

func (c *Client) connected(conn net.Conn, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.cause = err
		return
	}
	c.conn, c.cause = conn, nil
	if c.ctx.Err() != nil { // Close came first and has closed no connection
		_ = conn.Close()
	}
	c.tell(true)
}

func (c *Client) disconnected(conn net.Conn, err error) {
	_ = conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn, c.cause = nil, err
	if c.ctx.Err() != nil {
		c.cause = errClosed
	}
	for id, p := range c.pending {
		c.settle(id)
		close(p.answer)
	}
	c.tell(false)
}

// tell replaces whatever state waits to be read. c.mu is held.
func (c *Client) tell(up bool) {
	select {
	case <-c.up:
	default:
	}
	c.up <- up
}

// settle forgets a request that the launcher is not busy with any more. c.mu is held.
func (c *Client) settle(id uint64) {
	if c.pending[id].start {
		<-c.starts
	}
	delete(c.pending, id)
}

func (c *Client) call(ctx context.Context, req launcher.Request) (launcher.Reply, error) {
	answer, start := make(chan launcher.Reply, 1), req.Verb == launcher.Start
	if start {
		select {
		case c.starts <- struct{}{}:
		case <-ctx.Done():
			return launcher.Reply{}, fmt.Errorf("%d other starts are under way in the launcher: %w", maxStarts, ctx.Err())
		}
	}
	c.mu.Lock()
	c.next++
	req.ID = c.next
	c.pending[req.ID] = pending{answer, start}
	conn, cause := c.conn, c.cause
	if conn == nil {
		c.settle(req.ID)
	}
	c.mu.Unlock()
	if conn == nil {
		return launcher.Reply{}, &DownError{Path: c.path, Err: cause}
	}
	if err := c.write(ctx, conn, req); err != nil {
		_ = conn.Close() // a line may be cut in two: the reader settles what is pending, and dials again
		return launcher.Reply{}, &DownError{Path: c.path, Err: err}
	}
	select {
	case <-ctx.Done():
		if !start {
			c.forget(req.ID)
		}
		return launcher.Reply{}, ctx.Err()
	case reply, ok := <-answer:
		switch {
		case !ok:
			return launcher.Reply{}, &DownError{Path: c.path, Err: errors.New("connection lost before the answer")}
		case reply.Error != "":
			return launcher.Reply{}, &RefusedError{Verb: req.Verb, Reason: reply.Error}
		}
		return reply, nil
	}
}

func (c *Client) forget(id uint64) {
	c.mu.Lock()
	delete(c.pending, id)
	c.mu.Unlock()
}

func (c *Client) write(ctx context.Context, conn net.Conn, req launcher.Request) error {
	line, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	if len(line) >= launcher.MaxRequest {
		return fmt.Errorf("request of %d bytes, at most %d", len(line), launcher.MaxRequest)
	}
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	at, ok := ctx.Deadline()
	if !ok {
		at = time.Now().Add(5 * time.Second)
	}
	if err := conn.SetWriteDeadline(at); err != nil {
		return err
	}
	_, err = conn.Write(append(line, '\n'))
	return err
}
