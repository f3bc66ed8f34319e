package broker

import (
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/broker/lease"
	"github.com/gleaner-hpc/gleaner/broker/store"
	"github.com/gleaner-hpc/gleaner/identity"
	"github.com/gleaner-hpc/gleaner/policies"
)

func encoded(f *testing.F, m proto.Message) {
	b, err := proto.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
}

// FuzzAgentMessage: whatever an agent says, the broker's loop goes on and can store what came of it.
func FuzzAgentMessage(f *testing.F) {
	for _, m := range []*api.AgentMessage{
		{Message: &api.AgentMessage_State{State: &api.NodeState{Total: &api.Resources{Cores: 4}, Free: &api.Resources{Cores: 4}, Admitting: true}}},
		{Message: &api.AgentMessage_Ready{Ready: &api.ExecutorReady{Id: "1-1", Address: "n1:1#x", Local: "/run/x", Startup: durationpb.New(time.Second)}}},
		{Record: 1, Message: &api.AgentMessage_Ended{Ended: &api.ExecutorEnded{Id: "1-1", Reason: api.EndReason_EVICTED, Started: timestamppb.Now(), Ended: timestamppb.Now()}}},
		{Record: 2, Message: &api.AgentMessage_Claim{Claim: &api.Claim{JobId: 7, Path: "gate", Evicted: []string{"1-1"}}}},
		{Record: 3, Message: &api.AgentMessage_JobEnded{JobEnded: &api.JobEnded{JobId: 7}}},
		{Message: &api.AgentMessage_Usage{Usage: &api.Usage{Executors: []*api.Usage_Executor{{Id: "1-1"}}}}},
		{Message: &api.AgentMessage_Register{Register: &api.Register{Node: "n1"}}},
	} {
		encoded(f, m)
	}
	db, err := store.Open(filepath.Join(f.TempDir(), "broker.db"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = db.Close() })
	now := time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, b []byte) {
		var m api.AgentMessage
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		broker, err := New(Config{Store: db, Now: func() time.Time { return now }, UserName: func(uint32) string { return "alice" }})
		if err != nil {
			t.Fatal(err)
		}
		s := broker.state
		n := s.node(now, "n1")
		n.session = &session{out: make(chan *api.BrokerMessage, maxOutbox), cancel: func(error) {}}
		l := s.table.Acquire(now, lease.Request{UID: 1000, Executors: 1, Each: policies.Resources{Cores: 1, MemoryBytes: 1 << 30}, TTL: time.Minute})
		n.book(s.table.Place(now, l.ID, "n1").ID, l.Request.Each)
		s.receive(now, n, &m)
		s.tick(now.Add(time.Second))
		s.place(now.Add(time.Second))
		s.collect(now)
	})
}

// FuzzAcquire: what passes is within its bounds.
func FuzzAcquire(f *testing.F) {
	encoded(f, asked(1))
	encoded(f, &api.AcquireRequest{Executors: 4096, Cores: 1024, MemoryBytes: 16 << 40, Gpus: 1024, BufferBytes: 4 << 40, Account: "\x1b[2J"})
	cfg := Config{}
	cfg.setDefaults()
	f.Fuzz(func(t *testing.T, b []byte) {
		var q api.AcquireRequest
		if proto.Unmarshal(b, &q) != nil {
			return
		}
		r, no := cfg.request(identity.Caller{UID: 1000}, &q)
		if no != nil {
			return
		}
		if r.Executors < 1 || r.Executors > 4096 || r.Each.Cores < 1 || r.TTL < 2*time.Second || r.TTL > time.Hour || len(r.Function.Digest) != 32 || !printable(r.Account) || r.BufferBytes > r.Each.MemoryBytes {
			t.Errorf("%+v passes as %+v", &q, r)
		}
	})
}
