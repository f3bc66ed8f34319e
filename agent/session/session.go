// Package session keeps the agent's stream to the broker (Agents.Session): it dials, registers, passes messages both ways, and
// dials again with jittered backoff when the stream breaks. It decides nothing and remembers nothing between streams: at the start of
// each it asks the agent's event loop, by an Opened event, what to say first.
package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/gleaner-hpc/gleaner/api"
)

// Event is what happens on the session; exactly one field is set.
type Event struct {
	Opened  *Stream            // a stream is up: the loop sends its first messages, Register before all
	Message *api.BrokerMessage // from the broker
	Closed  error              // the stream is down, and why
}

// ErrSlow ends a stream whose broker does not read.
var ErrSlow = errors.New("broker does not read")

// Stream takes messages for the broker. Send never blocks.
type Stream struct {
	out  chan *api.AgentMessage
	slow context.CancelCauseFunc
}

// Send queues a message. When the queue is full the stream is ended; the next one starts from the loop's state.
func (s *Stream) Send(m *api.AgentMessage) {
	select {
	case s.out <- m:
	default:
		s.slow(ErrSlow)
	}
}

// NewStream returns a stream that nobody reads but the caller's test.
func NewStream(size int) (*Stream, <-chan *api.AgentMessage) {
	out := make(chan *api.AgentMessage, size)
	return &Stream{out, func(error) {}}, out
}

// Config says whom to dial.
type Config struct {
	Address     string
	Credentials credentials.PerRPCCredentials
	TLS         credentials.TransportCredentials // nil: none
	Events      chan<- Event                     // the event loop's
	Log         *slog.Logger
	FirstRetry  time.Duration     // 0 means 100 ms
	LastRetry   time.Duration     // 0 means 10 s
	Options     []grpc.DialOption // for tests
}

// Session is one agent's.
type Session struct {
	cfg Config
}

// New fills in defaults.
func New(cfg Config) *Session {
	if cfg.FirstRetry == 0 {
		cfg.FirstRetry = 100 * time.Millisecond
	}
	if cfg.LastRetry == 0 {
		cfg.LastRetry = 10 * time.Second
	}
	if cfg.TLS == nil {
		cfg.TLS = insecure.NewCredentials()
	}
	return &Session{cfg}
}

// queue bounds messages that wait for the network: records of a full outbox fit.
const queue = maxRecords + 1024

// Run keeps a session until ctx ends.
func (s *Session) Run(ctx context.Context) error {
	options := append([]grpc.DialOption{
		grpc.WithTransportCredentials(s.cfg.TLS),
		grpc.WithPerRPCCredentials(s.cfg.Credentials),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithReadBufferSize(8 << 10), grpc.WithWriteBufferSize(8 << 10),
	}, s.cfg.Options...)
	conn, err := grpc.NewClient(s.cfg.Address, options...)
	if err != nil {
		return fmt.Errorf("broker %s: %w", s.cfg.Address, err)
	}
	defer func() { _ = conn.Close() }()
	retry := s.cfg.FirstRetry
	for ctx.Err() == nil {
		welcomed, err := s.stream(ctx, conn)
		if ctx.Err() != nil {
			break
		}
		if welcomed {
			retry = s.cfg.FirstRetry
		}
		if !s.tell(ctx, Event{Closed: err}) {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry/2 + rand.N(retry)):
		}
		retry = min(2*retry, s.cfg.LastRetry)
		conn.ResetConnectBackoff()
	}
	return nil
}

func (s *Session) tell(ctx context.Context, e Event) bool {
	select {
	case s.cfg.Events <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

// stream serves one stream until it breaks. It reports whether the broker has said anything.
func (s *Session) stream(ctx context.Context, conn *grpc.ClientConn) (welcomed bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	rpc, err := api.NewAgentsClient(conn).Session(ctx)
	if err != nil {
		return false, fmt.Errorf("open session with broker %s: %w", s.cfg.Address, err)
	}
	out := make(chan *api.AgentMessage, queue)
	if !s.tell(ctx, Event{Opened: &Stream{out, cancel}}) {
		return false, ctx.Err()
	}
	var sender sync.WaitGroup
	sender.Go(func() { send(ctx, rpc, out) })
	defer sender.Wait()
	defer cancel(nil)
	for {
		m, err := rpc.Recv()
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return welcomed, fmt.Errorf("session with broker %s: %w", s.cfg.Address, err)
		}
		welcomed = true
		if !s.tell(ctx, Event{Message: m}) {
			return welcomed, context.Cause(ctx)
		}
	}
}

// send passes messages on until the stream breaks; Recv says why it did.
func send(ctx context.Context, rpc grpc.BidiStreamingClient[api.AgentMessage, api.BrokerMessage], out <-chan *api.AgentMessage) {
	for {
		select {
		case m := <-out:
			if rpc.Send(m) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}
