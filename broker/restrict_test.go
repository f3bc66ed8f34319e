package broker

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/broker/audit"
	"github.com/gleaner-hpc/gleaner/broker/rules"
	"github.com/gleaner-hpc/gleaner/config"
)

func site(t *testing.T, c config.Broker) *rules.Set {
	t.Helper()
	set, err := rules.Compile(&c)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func auditLog(t *testing.T, path string) *audit.Log {
	t.Helper()
	l, err := audit.Open(path)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// audited returns the lines of an audit log, as "event executor reason".
func audited(t *testing.T, path string) []string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var lines []string
	for in := bufio.NewScanner(f); in.Scan(); {
		var e audit.Entry
		if err := json.Unmarshal(in.Bytes(), &e); err != nil {
			t.Fatalf("%q: %v", in.Text(), err)
		}
		if e.UID != alice || e.User != "alice" || e.Digest == "" || e.Cores == 0 {
			t.Errorf("%s does not say who leased what", in.Text())
		}
		lines = append(lines, strings.TrimSpace(strings.Join([]string{string(e.Event), e.Executor, e.Node, e.Reason}, " ")))
	}
	return lines
}

func denials(t *testing.T, r *prometheus.Registry, rule string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "gleaner_lease_denied_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == rule {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// A denial names its rule in the error, in explain, in the metrics and in the audit log.
func TestDeniedByName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	registry := prometheus.NewRegistry()
	w := newWorld(t, func(c *Config) {
		c.Rules = site(t, config.Broker{Deny: []config.Rule{{Name: "no-interns", Groups: []string{"interns"}}}})
		c.Groups = func(uid uint32) []string { return map[uint32][]string{alice: {"interns"}, bob: {"staff"}}[uid] }
		c.Audit, c.Metrics = auditLog(t, path), registry
	})
	_, err := w.user(alice).Acquire(w.ctx(), asked(1))
	if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "rule no-interns of this site denies it") {
		t.Errorf("got %v", err)
	}
	told, err := w.user(alice).Explain(w.ctx(), &api.ExplainRequest{})
	if err != nil || !strings.Contains(told.GetSummary(), "rule no-interns") || len(told.GetHistory()) != 1 || told.GetHistory()[0].GetWhat() != "denied by rule no-interns" {
		t.Errorf("got %v, %v", told, err)
	}
	if told, err = w.user(bob).Explain(w.ctx(), &api.ExplainRequest{}); err != nil || len(told.GetHistory()) != 0 {
		t.Errorf("bob reads %v, %v of alice's", told, err)
	}
	if got := denials(t, registry, "no-interns"); got != 1 {
		t.Errorf("counted %v", got)
	}
	if got := audited(t, path); !slices.Equal(got, []string{"lease_denied   no-interns"}) {
		t.Errorf("audit log: %q", got)
	}
	w.acquire(w.user(bob), asked(1))
}

func TestSystemUsersMayNotLease(t *testing.T) {
	for name, test := range map[string]struct {
		uid, first uint32
		allow, ok  bool
	}{
		"root": {0, 0, false, false}, "a daemon": {999, 0, false, false}, "an ordinary user": {1000, 0, false, true},
		"an ordinary user of another site": {999, 500, false, true}, "a daemon of another site": {1999, 2000, false, false}, "root where the site says so": {0, 0, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.FirstUID, c.AllowRoot = test.first, test.allow })
			_, err := w.user(test.uid).Acquire(w.ctx(), asked(1))
			if test.ok && err != nil || !test.ok && (status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "identity.allow_root")) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestLimitAndReload(t *testing.T) {
	limit := func(n int) *rules.Set {
		return site(t, config.Broker{Limit: []config.Limit{{Name: "fair", Per: "user", Executors: n}}})
	}
	w := newWorld(t, func(c *Config) { c.Rules = limit(2) })
	first := w.acquire(w.user(alice), asked(2))
	if _, err := w.user(alice).Acquire(w.ctx(), asked(1)); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "rule fair of this site limits user alice to 2 executors at a time") {
		t.Errorf("got %v", err)
	}
	w.acquire(w.user(bob), asked(2))
	if err := w.b.Reload(limit(3)); err != nil {
		t.Fatal(err)
	}
	w.acquire(w.user(alice), asked(1))
	if _, err := w.user(alice).Release(w.ctx(), &api.ReleaseRequest{LeaseId: first.Id}); err != nil {
		t.Fatal(err)
	}
	w.acquire(w.user(alice), asked(2))
}

// Executors run where the rules let them, and a lease that waits says which rule keeps it from the nodes that have room.
func TestPlaces(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.Rules = site(t, config.Broker{Allow: []config.Rule{{Name: "first-rack", Nodes: "n1"}}})
	})
	a, b := w.agent("n1", 2), w.agent("n2", 8)
	c := w.user(alice)
	q := asked(3)
	q.Ttl = durationpb.New(time.Hour)
	l := w.acquire(c, q)
	w.eventually("n1 is full", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.running) == 2 })
	w.eventually("the lease says why it waits", func() bool {
		w.clock.advance(time.Second)
		told, err := c.Explain(w.ctx(), &api.ExplainRequest{LeaseId: l.Id})
		return err == nil && strings.Contains(told.GetSummary(), "not where rule first-rack of this site allows it")
	})
	b.mu.Lock()
	if len(b.running) != 0 {
		t.Errorf("%d executors run on n2", len(b.running))
	}
	b.mu.Unlock()
	if err := w.b.Reload(nil); err != nil {
		t.Fatal(err)
	}
	w.eventually("without the rule n2 takes the third", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return len(b.running) == 1 })
}

func TestAuditTrail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	w := newWorld(t, func(c *Config) { c.Audit = auditLog(t, path) })
	a := w.agent("n1", 2)
	c := w.user(alice)
	l := w.acquire(c, asked(1))
	if got := audited(t, path); len(got) == 0 || got[0] != "lease_granted" {
		t.Errorf("the holder has its answer, and the log has %q", got)
	}
	w.eventually("it runs", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.running) == 1 })
	if got := audited(t, path); !slices.Contains(got, "executor_started 1-1 n1") {
		t.Errorf("the agent has been told to start, and the log has %q", got)
	}
	if _, err := c.Release(w.ctx(), &api.ReleaseRequest{LeaseId: l.Id}); err != nil {
		t.Fatal(err)
	}
	want := []string{"lease_granted", "executor_started 1-1 n1", "executor_ended 1-1 n1 released", "lease_ended   released"}
	if got := audited(t, path); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// While the log cannot be written nothing is leased, what is leased goes on and can be taken back.
func TestAuditLogIsFull(t *testing.T) {
	for name, goesOn := range map[string]bool{"refuse": false, "continue": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.Audit, c.AuditContinue = auditLog(t, "/dev/full"), goesOn })
			a := w.agent("n1", 2)
			c := w.user(alice)
			for range 2 { // the first finds out, the second knows
				l, err := c.Acquire(w.ctx(), asked(1))
				if goesOn != (err == nil) {
					t.Fatalf("got %v, %v", l, err)
				}
				if err != nil && !strings.Contains(err.Error(), "audit") {
					t.Errorf("got %v", err)
				}
			}
			if _, err := c.List(w.ctx(), &api.ListRequest{}); err != nil {
				t.Errorf("nothing else is answered: %v", err)
			}
			if goesOn {
				w.eventually("they run", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.running) == 2 })
			}
		})
	}
}

func TestAuditLogBreaks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	log := auditLog(t, path)
	w := newWorld(t, func(c *Config) { c.Audit = log })
	a := w.agent("n1", 4)
	c := w.user(alice)
	l := w.acquire(c, asked(2))
	w.eventually("both run", func() bool { return a.count() == 2 })
	if err := log.Close(); err != nil { // every write fails from here on
		t.Fatal(err)
	}
	a.claim(4)
	w.eventually("a job has all of its cores", func() bool { return a.count() == 0 })
	if _, err := c.Renew(w.ctx(), &api.RenewRequest{LeaseId: l.Id}); err != nil {
		t.Error(err)
	}
	a.claim(0)
	if _, err := c.Acquire(w.ctx(), asked(1)); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "audit.on_failure") {
		t.Errorf("got %v", err)
	}
	if err := w.b.Reload(nil); err != nil { // opens it again
		t.Fatal(err)
	}
	w.clock.advance(10 * time.Second)
	w.eventually("they run again", func() bool { return a.count() == 2 })
	got := strings.Join(audited(t, path), "\n")
	for _, want := range []string{"executor_ended 1-1 n1 evicted", "executor_ended 1-2 n1 evicted", "lease_denied   audit", "executor_started 1-3 n1"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// The agent of a node that has shown another node's certificate, or none where one is wanted, is turned away.
func TestNodeCertificates(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.NodeCertificates = true })
	stream, err := api.NewAgentsClient(w.dial(agentUID)).Session(w.ctx())
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.Send(&api.AgentMessage{Message: &api.AgentMessage_Register{Register: &api.Register{Node: "n1", BootId: "x", State: &api.NodeState{}}}})
	if _, err = stream.Recv(); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "tls.cert_file") {
		t.Errorf("got %v", err)
	}
}
