package broker

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gleaner-hpc/gleaner/api"
)

// fakeAgent keeps a ledger of one node, as the real one does, and starts executors at once.
type fakeAgent struct {
	w      *world
	name   string
	boot   string
	stream api.Agents_SessionClient
	cancel context.CancelFunc
	done   chan struct{}
	met    chan struct{} // closed by Welcome

	mu      sync.Mutex
	total   int
	slurm   int
	running map[string]*api.Start
	most    int // cores leased at the same time
	record  uint64
	acked   uint64
	keep    []string
	pushed  []*api.SlurmJobs
	refuse  bool
	gpus    *uint32 // offered until the first is asked for; nil: none
	hold    bool    // starts are taken but not made ready
	unacked []*api.AgentMessage
	polled  map[string]uint64 // by executor, said when it ends
	stalls  *api.Stalls       // said with each state
	order   []string          // of eviction, as told
}

func (w *world) agent(name string, cores int) *fakeAgent {
	a := &fakeAgent{w: w, name: name, boot: "boot-" + name, total: cores, running: map[string]*api.Start{}}
	a.connect()
	w.t.Cleanup(a.disconnect)
	return a
}

func (a *fakeAgent) connect() {
	a.w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := api.NewAgentsClient(a.w.dial(agentUID)).Session(ctx)
	if err != nil {
		a.w.t.Fatal(err)
	}
	a.mu.Lock()
	a.stream, a.cancel, a.done, a.met = stream, cancel, make(chan struct{}), make(chan struct{})
	r := &api.Register{Node: a.name, Version: "1", BootId: a.boot, State: a.state()}
	for id, s := range a.running {
		r.Executors = append(r.Executors, &api.RunningExecutor{Id: id, LeaseId: s.LeaseId, Ready: a.readiness(id)})
	}
	a.sendLocked(&api.AgentMessage{Message: &api.AgentMessage_Register{Register: r}})
	for _, m := range a.unacked {
		a.sendLocked(m)
	}
	a.mu.Unlock()
	go a.serve()
	select {
	case <-a.met:
	case <-a.done:
		a.w.t.Fatalf("%s is not welcome", a.name)
	}
}

func (a *fakeAgent) disconnect() {
	a.cancel()
	<-a.done
}

func (a *fakeAgent) sendLocked(m *api.AgentMessage) { _ = a.stream.Send(m) }

func (a *fakeAgent) recordLocked(m *api.AgentMessage) {
	a.record++
	m.Record = a.record
	a.unacked = append(a.unacked, m)
	a.sendLocked(m)
}

func (a *fakeAgent) readiness(id string) *api.ExecutorReady {
	return &api.ExecutorReady{Id: id, Address: a.name + ":5000", Local: "/run/" + id, Startup: durationpb.New(20 * time.Millisecond)}
}

func (a *fakeAgent) leased() int {
	n := 0
	for _, s := range a.running {
		n += int(s.Cores)
	}
	return n
}

func (a *fakeAgent) state() *api.NodeState {
	amount := func(cores int) *api.Resources {
		return &api.Resources{Cores: uint32(max(0, cores)), MemoryBytes: uint64(max(0, cores)) << 30}
	}
	st := &api.NodeState{
		Total: amount(a.total), Slurm: amount(a.slurm), Leased: amount(a.leased()), Free: amount(a.total - a.slurm - a.leased()), Admitting: true,
	}
	if a.gpus != nil {
		st.Total.Gpus, st.Free.Gpus, st.Note = *a.gpus, *a.gpus, "the launcher gives none"
	}
	st.Stalls = a.stalls
	if a.slurm > 0 {
		st.Jobs = []*api.JobHold{{JobId: 77, CoreCount: uint32(a.slurm)}}
	}
	return st
}

func (a *fakeAgent) sendState() {
	a.sendLocked(&api.AgentMessage{Message: &api.AgentMessage_State{State: a.state()}})
}

func (a *fakeAgent) serve() {
	defer close(a.done)
	for {
		m, err := a.stream.Recv()
		if err != nil {
			return
		}
		a.mu.Lock()
		a.handle(m)
		a.mu.Unlock()
	}
}

func (a *fakeAgent) handle(m *api.BrokerMessage) {
	switch v := m.Message.(type) {
	case *api.BrokerMessage_Welcome:
		a.keep = v.Welcome.Keep
		close(a.met)
		for id := range a.running {
			if !slices.Contains(a.keep, id) {
				a.end(id, api.EndReason_STOPPED, "the broker forgot it")
			}
		}
	case *api.BrokerMessage_Start:
		s := v.Start
		if a.gpus != nil && s.Gpus > 0 {
			*a.gpus = 0
			a.sendState()
			a.recordLocked(ended(s.Id, api.EndReason_REFUSED, "the launcher does not give it", false))
			return
		}
		if a.refuse || a.leased()+int(s.Cores) > a.total-a.slurm {
			a.recordLocked(ended(s.Id, api.EndReason_REFUSED, "no room", false))
			return
		}
		a.running[s.Id] = s
		a.most = max(a.most, a.leased())
		if !a.hold {
			a.sendLocked(&api.AgentMessage{Message: &api.AgentMessage_Ready{Ready: a.readiness(s.Id)}})
		}
		a.sendState()
	case *api.BrokerMessage_Stop:
		if a.running[v.Stop.Id] != nil {
			a.end(v.Stop.Id, v.Stop.Reason, "stopped")
		}
	case *api.BrokerMessage_SlurmJobs:
		a.pushed = append(a.pushed, v.SlurmJobs)
	case *api.BrokerMessage_Order:
		a.order = v.Order.Ids
	case *api.BrokerMessage_Ack:
		a.acked = v.Ack.Record
		for len(a.unacked) > 0 && a.unacked[0].Record <= a.acked {
			a.unacked = a.unacked[1:]
		}
	}
}

func (a *fakeAgent) end(id string, reason api.EndReason, detail string) {
	delete(a.running, id)
	m := ended(id, reason, detail, true)
	m.GetEnded().SpinNanoseconds = a.polled[id]
	a.recordLocked(m)
	a.sendState()
}

// claim takes cores for a job and evicts what is in the way.
func (a *fakeAgent) claim(cores int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.slurm = cores
	var evicted []string
	for id := range a.running {
		if a.leased() > a.total-a.slurm {
			evicted = append(evicted, id)
			delete(a.running, id)
			a.recordLocked(ended(id, api.EndReason_EVICTED, "job 77 needed the cores", true))
		}
	}
	a.recordLocked(&api.AgentMessage{Message: &api.AgentMessage_Claim{Claim: &api.Claim{
		JobId: 77, Path: "gate", Time: timestamppb.Now(), Duration: durationpb.New(3 * time.Millisecond), Evicted: evicted, Complete: true,
	}}})
	a.sendState()
}

func (a *fakeAgent) get(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

func (a *fakeAgent) count() (n int) {
	a.get(func() { n = len(a.running) })
	return n
}

func ended(id string, reason api.EndReason, detail string, ran bool) *api.AgentMessage {
	e := &api.ExecutorEnded{Id: id, Reason: reason, Detail: detail}
	if ran {
		e.Started, e.Ended, e.CpuNanoseconds = timestamppb.New(time.Now().Add(-time.Second)), timestamppb.Now(), 5e8
	}
	return &api.AgentMessage{Message: &api.AgentMessage_Ended{Ended: e}}
}
