package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gleaner-hpc/gleaner/api"
	apiexec "github.com/gleaner-hpc/gleaner/api/executor"
	"github.com/gleaner-hpc/gleaner/api/gate"
	"github.com/gleaner-hpc/gleaner/api/launcher"
)

func TestLife(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready("7-1", 2, 256)
	s := n.sandbox("7-1")
	if s.Spec.MilliCPUs != 2000 || s.Spec.MemoryBytes != 256<<20 || s.Spec.UID != testUID {
		t.Errorf("sandbox %+v", s.Spec)
	}
	state := n.broker.await(t, "state", func(m *api.AgentMessage) bool { return m.GetState().GetLeased().GetCores() == 2 }).GetState()
	if state.GetFree().GetCores() != testCores-2 || !state.GetAdmitting() {
		t.Errorf("state %v", state)
	}
	n.broker.send(t, &api.BrokerMessage{Message: &api.BrokerMessage_Stop{Stop: &api.Stop{Id: "7-1", Reason: api.EndReason_RELEASED}}})
	if e := n.ended("7-1"); e.GetReason() != api.EndReason_RELEASED || e.GetStarted() == nil {
		t.Errorf("ended %v", e)
	}
	n.broker.await(t, "free state", func(m *api.AgentMessage) bool { return m.GetState().GetFree().GetCores() == testCores })
}

func TestReadyPaths(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ask(start("7-1", 1, 64))
	n.waitFor("sandbox", func() bool { return n.sandbox("7-1") != nil })
	b := n.dial("7-1")
	if _, err := b.hear(); err != nil {
		t.Fatal(err)
	}
	b.say(apiexec.FromExecutor{Ready: &apiexec.Ready{Address: "127.0.0.1:1", Local: "/run/gleaner/self/../../etc/passwd"}})
	r := n.broker.await(t, "ready", func(m *api.AgentMessage) bool { return m.GetReady() != nil }).GetReady()
	if r.GetLocal() != "" || r.GetStartup().AsDuration() <= 0 {
		t.Errorf("ready %v", r)
	}
}

func TestClaims(t *testing.T) {
	n := newNode(t)
	n.start()
	low := n.ready("7-1", 4, 1024) // cores 4-7
	n.ready("7-2", 2, 1024)
	// Room is left: nobody goes.
	if f := n.claim(100, "0-1", 1024, gate.Done); f.Evicted != 0 {
		t.Errorf("evicted %d", f.Evicted)
	}
	// Exactly the one on its cores goes, and the broker learns why.
	if f := n.claim(101, "5", 512, gate.Done); f.Evicted != 1 || n.sandbox("7-1") != nil || n.sandbox("7-2") == nil {
		t.Errorf("evicted %d; left %s", f.Evicted, n.describe())
	}
	if f, err := low.hear(); err == nil { // a job waits for its end
		t.Errorf("executor hears %+v", f)
	}
	c := n.broker.await(t, "claim", func(m *api.AgentMessage) bool { return m.GetClaim().GetJobId() == 101 })
	if c.GetRecord() == 0 || !c.GetClaim().GetComplete() || !slices.Equal(c.GetClaim().GetEvicted(), []string{"7-1"}) || c.GetClaim().GetMemoryBytes() != 1<<30 {
		t.Errorf("record %v", c)
	}
	if e := n.ended("7-1"); e.GetReason() != api.EndReason_EVICTED || e.GetDetail() != "evicted: job 101 needed cores 5 and 512 MiB" {
		t.Errorf("ended %v", e)
	}
	// Again: at once.
	if f := n.claim(101, "5", 512, gate.Done); f.Evicted != 0 {
		t.Errorf("repeated claim evicted %d", f.Evicted)
	}
	// Memory alone.
	if f := n.claim(102, "0", 2048, gate.Done); f.Evicted != 1 {
		t.Errorf("evicted %d for memory", f.Evicted)
	}
	for _, job := range []uint32{100, 101, 102} {
		n.gate(gate.Frame{Kind: gate.Release, Job: job}).hear(gate.Done)
		n.broker.await(t, "job's end", func(m *api.AgentMessage) bool { return m.GetJobEnded().GetJobId() == job })
	}
	n.gate(gate.Frame{Kind: gate.Ping}).hear(gate.Done)
	n.broker.await(t, "free node", func(m *api.AgentMessage) bool { return m.GetState().GetFree().GetCores() == testCores })
}

func TestBluntClaimTakesEverything(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready("7-1", 1, 64)
	n.ready("7-2", 1, 64)
	g := n.gate(gate.Frame{Kind: gate.Claim, Flags: gate.FlagBlunt, Job: 5, MiB: gate.MemoryUnknown})
	g.hear(gate.Ack)
	if f := g.hear(gate.Done); f.Evicted != 2 {
		t.Errorf("evicted %d", f.Evicted)
	}
	if c := n.broker.await(t, "claim", func(m *api.AgentMessage) bool { return m.GetClaim() != nil }).GetClaim(); c.GetPath() != "prolog" {
		t.Errorf("claim %v", c)
	}
	n.ask(start("7-3", 1, 64))
	if e := n.ended("7-3"); e.GetReason() != api.EndReason_REFUSED || e.GetStarted() != nil {
		t.Errorf("ended %v", e)
	}
}

func TestEndsByItself(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready("7-1", 1, 64)
	n.fake.Exit("7-1", 0, true)
	if e := n.ended("7-1"); e.GetReason() != api.EndReason_EXECUTOR_FAILED || e.GetDetail()[:17] != "killed for memory" {
		t.Errorf("ended %v", e)
	}
	n.fake.Refuse(errors.New("no such binary"))
	n.ask(start("7-2", 1, 64))
	if e := n.ended("7-2"); e.GetReason() != api.EndReason_EXECUTOR_FAILED || e.GetDetail() != "sandbox could not be started: no such binary" {
		t.Errorf("ended %v", e)
	}
	n.fake.Refuse(nil)
	n.ask(start("7-3", 1, 64))
	n.waitFor("sandbox", func() bool { return n.sandbox("7-3") != nil })
	b := n.dial("7-3")
	if _, err := b.hear(); err != nil {
		t.Fatal(err)
	}
	b.say(apiexec.FromExecutor{Failed: &apiexec.Failed{Error: "port taken"}})
	if e := n.ended("7-3"); e.GetDetail() != "executor cannot serve: port taken" {
		t.Errorf("ended %v", e)
	}
	bad := start("7-4", 1, 64)
	bad.Function.Digest = nil
	n.ask(bad)
	if e := n.ended("7-4"); e.GetReason() != api.EndReason_REFUSED {
		t.Errorf("ended %v", e)
	}
}

func TestRootRunsAsNobody(t *testing.T) {
	n := newNode(t)
	n.start()
	s := start("7-1", 1, 64)
	s.Uid, s.Gid = 0, 0
	n.ask(s)
	n.waitFor("sandbox", func() bool { return n.sandbox("7-1") != nil })
	if spec := n.sandbox("7-1").Spec; spec.UID != nobody || spec.GID != nobody {
		t.Errorf("spec %+v", spec)
	}
}

func TestWarning(t *testing.T) {
	n := newNode(t)
	n.cfg.WarnTimeout = 200 * time.Millisecond
	n.start()
	n.gate(gate.Frame{Kind: gate.Warn, Job: 9}).hear(gate.Ack)
	n.broker.await(t, "warned state", func(m *api.AgentMessage) bool { return m.GetState() != nil && !m.GetState().GetAdmitting() })
	n.admits() // once the warning has run out
}

func TestStrangers(t *testing.T) {
	n := newNode(t)
	n.start()
	if _, err := n.dial("9-9").hear(); !errors.Is(err, io.EOF) {
		t.Errorf("an unknown executor hears %v", err)
	}
	b := n.ready("7-1", 1, 64)
	other := n.dial("7-1") // replaces the first
	if f, err := other.hear(); err != nil || f.Assign == nil {
		t.Errorf("second connection hears %+v, %v", f, err)
	}
	if _, err := b.hear(); err == nil {
		t.Error("the first connection still speaks")
	}
	other.say(apiexec.FromExecutor{Hello: &apiexec.Hello{ID: "7-2"}})
	if _, err := other.hear(); err == nil {
		t.Error("an executor spoke for another")
	}
	for name, garbage := range map[string]string{
		"garbage": "GET / HTTP/1.0\r\n\r\n                                        ", "too short": "GLG1",
	} {
		conn, err := net.Dial("unix", n.cfg.Socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(garbage)); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if got, err := io.ReadAll(conn); len(got) > 0 {
			t.Errorf("%s is answered with %q, %v", name, got, err)
		}
		_ = conn.Close()
	}
	g := n.gate(gate.Frame{Kind: gate.Claim, Job: 1, Cores: "0", MiB: 1, Node: "n2"})
	if _, err := gate.Read(g.conn); err == nil {
		t.Error("another node's frame is answered")
	}
	n.waitFor("count of refusals", func() bool { return n.agent.gate.Refused() == 3 })
	n.gate(gate.Frame{Kind: gate.Ping}).hear(gate.Done)
}

// Claims of many jobs at once, some of which need kills, are all answered.
func TestManyClaims(t *testing.T) {
	n := newNode(t)
	n.start()
	for _, id := range []string{"7-1", "7-2", "7-3", "7-4"} {
		n.ready(id, 1, 64)
	}
	var open []*gateConn
	for job := range uint32(8) {
		open = append(open, n.gate(gate.Frame{Kind: gate.Claim, Job: job + 1, Cores: string('0' + rune(job)), MiB: 16}))
	}
	evicted := uint32(0)
	for _, g := range open {
		g.hear(gate.Ack)
		evicted += g.hear(gate.Done).Evicted
	}
	if evicted != 4 {
		t.Errorf("evicted %d", evicted)
	}
}

// slowLauncher holds starts back until it is told to go on.
type slowLauncher struct {
	Launcher
	asked, goOn chan struct{}
}

func (s *slowLauncher) Start(ctx context.Context, spec launcher.Spec) (int, error) {
	s.asked <- struct{}{}
	<-s.goOn
	return s.Launcher.Start(ctx, spec)
}

// A claim that meets an executor on its way up is answered only when that one has come up and gone.
func TestClaimMeetsStart(t *testing.T) {
	n := newNode(t)
	slow := &slowLauncher{n.fake, make(chan struct{}), make(chan struct{})}
	n.cfg.Launcher = slow
	n.start()
	n.ask(start("7-1", 1, 64))
	<-slow.asked
	g := n.gate(gate.Frame{Kind: gate.Claim, Job: 1, Cores: "7", MiB: 64})
	g.hear(gate.Ack)
	n.gate(gate.Frame{Kind: gate.Ping}).hear(gate.Done) // the claim has been worked on
	if kills := n.fake.Kills(); len(kills) > 0 {
		t.Errorf("killed %v before it was there", kills)
	}
	close(slow.goOn)
	if f := g.hear(gate.Done); f.Evicted != 1 || n.sandbox("7-1") != nil {
		t.Errorf("evicted %d; left %s", f.Evicted, n.describe())
	}
	if e := n.ended("7-1"); e.GetReason() != api.EndReason_EVICTED {
		t.Errorf("ended %v", e)
	}
}

// A stopped executor still holds its cores until it is gone: a claim waits for it, without evicting it again.
func TestClaimMeetsStop(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready("7-1", 1, 64)
	n.fake.Stick("7-1")
	n.broker.send(t, &api.BrokerMessage{Message: &api.BrokerMessage_Stop{Stop: &api.Stop{Id: "7-1", Reason: api.EndReason_EXPIRED}}})
	n.waitFor("kill", func() bool { return len(n.fake.Kills()) > 0 })
	n.fake.Unstick("7-1")
	g := n.gate(gate.Frame{Kind: gate.Claim, Job: 1, Cores: "7", MiB: 64})
	g.hear(gate.Ack)
	n.fake.Exit("7-1", 0, false)
	if f := g.hear(gate.Done); f.Evicted != 0 {
		t.Errorf("evicted %d", f.Evicted)
	}
	if e := n.ended("7-1"); e.GetReason() != api.EndReason_EXPIRED {
		t.Errorf("ended %v", e)
	}
}

// Where Slurm does not count memory a job names none: it has all of it, or where the site says so the share of its cores.
func TestJobThatNamesNoMemory(t *testing.T) {
	for name, test := range map[string]struct {
		byCores bool
		evicted uint32
	}{"counted": {false, 1}, "share": {true, 0}} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.cfg.MemoryByCores = test.byCores
			n.start()
			n.ready("7-1", 1, 64)
			g := n.gate(gate.Frame{Kind: gate.Claim, Job: 1, Cores: "0-1", MiB: gate.MemoryUnknown})
			g.hear(gate.Ack)
			if f := g.hear(gate.Done); f.Evicted != test.evicted {
				t.Errorf("evicted %d, want %d", f.Evicted, test.evicted)
			}
		})
	}
}

// A node that goes out of service is left; one that is only reserved is not.
func TestVacate(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready("7-1", 1, 64)
	n.broker.send(t, &api.BrokerMessage{Message: &api.BrokerMessage_SlurmJobs{SlurmJobs: &api.SlurmJobs{
		AsOf: timestamppb.Now(), WhyNot: "node is reserved",
	}}})
	n.broker.await(t, "node that admits nothing", func(m *api.AgentMessage) bool {
		return m.GetState().GetWhyNot() == "node is reserved" && m.GetState().GetLeased().GetCores() == 1
	})
	n.broker.send(t, &api.BrokerMessage{Message: &api.BrokerMessage_SlurmJobs{SlurmJobs: &api.SlurmJobs{
		AsOf: timestamppb.Now(), WhyNot: "node is being drained", Vacate: true,
	}}})
	if e := n.ended("7-1"); e.GetReason() != api.EndReason_EVICTED || e.GetDetail() != "evicted: node is being drained" {
		t.Errorf("ended %v", e)
	}
}

func BenchmarkClaimNothingToEvict(b *testing.B) {
	n := newNode(b)
	n.cfg.Log = slog.New(slog.DiscardHandler)
	n.start()
	for b.Loop() {
		n.claim(1, "0", 64, gate.Done)
	}
}
