package session

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func jobEnded(job uint32) *api.AgentMessage {
	return &api.AgentMessage{Message: &api.AgentMessage_JobEnded{JobEnded: &api.JobEnded{JobId: job}}}
}

func TestOutbox(t *testing.T) {
	o := &Outbox{BootID: "b"}
	for job := range uint32(5) {
		o.Add(jobEnded(job))
	}
	if !o.Ack(2) || o.Ack(2) || o.Ack(1) {
		t.Error("acknowledging twice")
	}
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var again Outbox
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	if again.BootID != "b" || again.Last != 5 || len(again.Pending()) != 3 {
		t.Fatalf("read back %+v", again)
	}
	for i, m := range again.Pending() {
		if want := o.Pending()[i]; !proto.Equal(m, want) {
			t.Errorf("record %d: %v, want %v", i, m, want)
		}
	}
	if m := again.Add(jobEnded(9)); m.GetRecord() != 6 {
		t.Errorf("next record has number %d", m.GetRecord())
	}
	if !again.Ack(1<<40) || len(again.Pending()) != 0 {
		t.Error("an acknowledgement of everything leaves something")
	}
}

func TestOutboxIsBounded(t *testing.T) {
	o := &Outbox{}
	for range maxRecords + 3 {
		o.Add(jobEnded(1))
	}
	if pending := o.Pending(); len(pending) != maxRecords || pending[0].GetRecord() != 4 || o.Dropped != 3 {
		t.Errorf("%d records from %d on, %d dropped", len(pending), pending[0].GetRecord(), o.Dropped)
	}
	if err := json.Unmarshal([]byte(`{"records":["AAAA"]}`), &Outbox{}); err == nil {
		t.Error("garbage is no record")
	}
}

// flaky ends its first streams at once.
type flaky struct {
	api.UnimplementedAgentsServer
	failures int
	got      chan *api.AgentMessage
}

func (f *flaky) Session(s grpc.BidiStreamingServer[api.AgentMessage, api.BrokerMessage]) error {
	if f.failures > 0 {
		f.failures--
		return errors.New("not now")
	}
	for {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		f.got <- m
		if err := s.Send(&api.BrokerMessage{Message: &api.BrokerMessage_Ack{Ack: &api.Ack{Record: m.GetRecord()}}}); err != nil {
			return err
		}
	}
}

func TestSessionDialsAgain(t *testing.T) {
	pipe := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	broker := &flaky{failures: 3, got: make(chan *api.AgentMessage, 16)}
	api.RegisterAgentsServer(server, broker)
	go func() { _ = server.Serve(pipe) }()
	defer server.Stop()
	events := make(chan Event)
	s := New(Config{
		Address: "passthrough:///b", Credentials: identity.PerRPC{Method: identity.None{}}, Events: events,
		Log: slog.New(slog.DiscardHandler), FirstRetry: time.Millisecond,
		Options: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pipe.DialContext(ctx) })},
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	closed := 0
	for acknowledged := false; !acknowledged; {
		select {
		case e := <-events:
			switch {
			case e.Opened != nil:
				m := jobEnded(1)
				m.Record = 8
				e.Opened.Send(m)
			case e.Closed != nil:
				closed++
			case e.Message != nil:
				acknowledged = e.Message.GetAck().GetRecord() == 8
			}
		case <-ctx.Done():
			t.Fatal("no session came up")
		}
	}
	if closed != 3 {
		t.Errorf("%d streams broke, want 3", closed)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestStreamNeverBlocks(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	s := &Stream{make(chan *api.AgentMessage, 1), cancel}
	s.Send(jobEnded(1))
	s.Send(jobEnded(2))
	if !errors.Is(context.Cause(ctx), ErrSlow) {
		t.Errorf("a full stream ends with %v", context.Cause(ctx))
	}
}
