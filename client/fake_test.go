package client

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/gleaner-hpc/gleaner/api"
)

// world is a broker with one lease and its executors, all in this process. Executors run f and can be taken away at any moment.
type world struct {
	api.UnimplementedLeasesServer
	f func(input []byte) ([]byte, error)

	mu       sync.Mutex
	lease    *api.Lease
	next     int
	live     map[string]*fakeConn // by executor id; nil until connected
	watchers map[chan *api.LeaseEvent]bool
	reports  []*api.ReportTasksRequest
	renewals int
	refuse   error // answer to Acquire
	silent   bool  // losses are not told through Watch
	away     bool  // Watch answers that the broker is not there
	dead     int   // answers to Release that the broker is not there
	released int   // times that Release was called
	refused  int   // connections to executors that are gone
	path     Path  // of the latest connection
}

func newWorld(t *testing.T, f func([]byte) ([]byte, error)) (*world, *Client) {
	w := &world{f: f, live: map[string]*fakeConn{}, watchers: map[chan *api.LeaseEvent]bool{}}
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	api.RegisterLeasesServer(server, w)
	serving := make(chan error, 1)
	go func() { serving <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///world",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		server.Stop()
		<-serving
	})
	return w, &Client{conn: conn, leases: api.NewLeasesClient(conn), cluster: api.NewClusterClient(conn), connect: w.connect}
}

func (w *world) Acquire(_ context.Context, r *api.AcquireRequest) (*api.Lease, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		return nil, w.refuse
	}
	request := proto.Clone(r).(*api.AcquireRequest)
	if request.Ttl == nil {
		request.Ttl = durationpb.New(30 * time.Second)
	}
	if request.BufferBytes == 0 {
		request.BufferBytes = 1 << 20
	}
	w.lease = &api.Lease{Id: 42, State: api.LeaseState_PENDING, Request: request}
	return proto.Clone(w.lease).(*api.Lease), nil
}

func (w *world) Renew(context.Context, *api.RenewRequest) (*api.Lease, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.renewals++
	if w.lease.State == api.LeaseState_ENDED {
		return nil, status.Error(codes.FailedPrecondition, "lease 42 has ended: "+w.lease.Detail)
	}
	return proto.Clone(w.lease).(*api.Lease), nil
}

func (w *world) Release(context.Context, *api.ReleaseRequest) (*api.Lease, error) {
	w.mu.Lock()
	w.released++
	dead := w.released <= w.dead
	w.mu.Unlock()
	if dead {
		return nil, status.Error(codes.Unavailable, "broker restarts")
	}
	w.end(api.EndReason_RELEASED, "")
	return w.lease, nil
}

func (w *world) ReportTasks(_ context.Context, r *api.ReportTasksRequest) (*api.ReportTasksResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reports = append(w.reports, r)
	return &api.ReportTasksResponse{}, nil
}

func (w *world) Watch(_ *api.WatchRequest, stream grpc.ServerStreamingServer[api.LeaseEvent]) error {
	events := make(chan *api.LeaseEvent, 4096)
	w.mu.Lock()
	if w.away {
		w.mu.Unlock()
		return status.Error(codes.Unavailable, "broker restarts")
	}
	first := &api.LeaseEvent{Kind: api.LeaseEvent_LEASE, Lease: proto.Clone(w.lease).(*api.Lease), Snapshot: true}
	for id := range w.live {
		first.Lease.Executors = append(first.Lease.Executors, &api.Executor{Id: id})
	}
	events <- first
	for id := range w.live {
		events <- ready(id)
	}
	w.watchers[events] = true
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		delete(w.watchers, events)
		w.mu.Unlock()
	}()
	for {
		select {
		case e := <-events:
			if e == nil {
				return status.Error(codes.Unavailable, "broker restarts")
			}
			if err := stream.Send(e); err != nil {
				return err
			}
			if e.GetLease().GetState() == api.LeaseState_ENDED {
				return nil
			}
		case <-stream.Context().Done():
			return nil
		}
	}
}

func ready(id string) *api.LeaseEvent {
	return &api.LeaseEvent{Kind: api.LeaseEvent_EXECUTOR_READY, Executor: &api.Executor{Id: id, Node: "n1"}}
}

// publish sends an event to all watchers; nil breaks their streams. The caller holds mu.
func (w *world) publish(e *api.LeaseEvent) {
	for events := range w.watchers {
		events <- e
	}
}

func (w *world) end(reason api.EndReason, detail string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lease.State == api.LeaseState_ENDED {
		return
	}
	w.lease.State, w.lease.EndReason, w.lease.Detail = api.LeaseState_ENDED, reason, detail
	w.publish(&api.LeaseEvent{Kind: api.LeaseEvent_LEASE, Lease: proto.Clone(w.lease).(*api.Lease)})
	for _, conn := range w.live {
		conn.kill("lease over")
	}
}

// arrive starts an executor.
func (w *world) arrive() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	id := fmt.Sprintf("42-%d", w.next)
	w.next++
	w.live[id] = nil
	w.publish(ready(id))
	return id
}

// remove takes an executor away: the connection breaks, the broker tells.
func (w *world) remove(id string, reason api.EndReason, words string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	conn, ok := w.live[id]
	if !ok {
		return
	}
	delete(w.live, id)
	conn.kill(words)
	if !w.silent {
		w.publish(&api.LeaseEvent{Kind: api.LeaseEvent_EXECUTOR_GONE, Executor: &api.Executor{Id: id}, Reason: reason, Detail: words})
	}
}

func (w *world) anyExecutor() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.live {
		return id
	}
	return ""
}

func (w *world) connect(_ context.Context, e *api.Executor, _ *Function, p Path) (Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.live[e.GetId()]; !ok {
		w.refused++
		return nil, &GoneError{Reason: "connection refused"}
	}
	conn := &fakeConn{f: w.f, gone: make(chan struct{})}
	w.path = p
	w.live[e.GetId()] = conn
	return conn, nil
}

// fakeConn runs one invocation at a time, as an executor does.
type fakeConn struct {
	f      func([]byte) ([]byte, error)
	busy   sync.Mutex
	once   sync.Once
	gone   chan struct{}
	reason string
}

func (c *fakeConn) kill(reason string) {
	if c != nil {
		c.once.Do(func() { c.reason = reason; close(c.gone) })
	}
}

func (c *fakeConn) Invoke(ctx context.Context, input, result []byte, _ time.Duration) (int, error) {
	type answer struct {
		output []byte
		err    error
	}
	done := make(chan answer, 1)
	began := make(chan struct{})
	copied := append([]byte(nil), input...)
	go func() {
		c.busy.Lock()
		defer c.busy.Unlock()
		select {
		case <-c.gone:
			return
		default:
		}
		close(began)
		output, err := c.f(copied)
		done <- answer{output, err}
	}()
	select {
	case a := <-done:
		return copy(result, a.output), a.err
	case <-c.gone:
		select {
		case <-began:
			return 0, &GoneError{Reason: c.reason, Began: true}
		default:
			return 0, &GoneError{Reason: c.reason}
		}
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (c *fakeConn) Slots() int            { return 4 }
func (c *fakeConn) Gone() <-chan struct{} { return c.gone }
func (c *fakeConn) Err() error            { return &GoneError{Reason: c.reason} }
func (c *fakeConn) Close() error          { c.kill("closed"); return nil }

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 5 s: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
