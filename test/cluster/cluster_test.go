package cluster

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/config"
)

// upHere brings a cluster up in a folder of the test, or skips.
func upHere(t *testing.T, o Options) *Cluster {
	t.Helper()
	if err := Available(); err != nil {
		t.Skip(err)
	}
	o.Dir = filepath.Join(t.TempDir(), "c")
	t.Cleanup(func() {
		if err := Clean(o.Dir); err != nil {
			t.Error(err)
		}
		if traces := Traces(o.Dir); len(traces) > 0 {
			t.Errorf("left behind: %s", strings.Join(traces, "\n"))
		}
	})
	c, err := Up(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// bare leaves out what Gleaner adds: these tests are about the harness.
var bare = []string{"brokerd", "launch", "agentd", "gate", "hook"}

func TestWithoutUnknown(t *testing.T) {
	for role, known := range map[string]bool{"agentd": true, "agentd/n1": true, "slurmrestd": true, "agent": false, "slurmctld": false} {
		if _, err := newSpec(Options{Dir: t.TempDir(), Without: []string{role}}); (err == nil) != known {
			t.Errorf("without %s: %v", role, err)
		}
	}
}

func TestUpRunDown(t *testing.T) {
	c := upHere(t, Options{Nodes: 2, Without: bare})
	out, err := c.Command(t.Context(), "srun", "-N2", "-n2", "sh", "-c", "echo $SLURMD_NODENAME").CombinedOutput()
	if err != nil {
		t.Fatalf("srun: %v\n%s", err, out)
	}
	got := strings.Fields(string(out))
	slices.Sort(got)
	if !slices.Equal(got, c.NodeNames()) {
		t.Errorf("tasks ran on %v, want %v", got, c.NodeNames())
	}
	if err := c.Down(); err != nil {
		t.Error(err)
	}
	if traces := Traces(c.Dir); len(traces) > 0 {
		t.Errorf("after Down: %v", traces)
	}
	if err := c.Down(); err != nil {
		t.Errorf("second Down: %v", err)
	}
}

func TestCgroupMode(t *testing.T) {
	c := upHere(t, Options{Nodes: 1, Mode: Cgroup, Without: bare})
	out, err := c.Command(t.Context(), "srun", "-n1", "grep", "Cpus_allowed_list", "/proc/self/status").CombinedOutput()
	if err != nil {
		t.Fatalf("srun: %v\n%s", err, out)
	}
	if list := strings.Fields(string(out)); len(list) != 2 || strings.ContainsAny(list[1], ",-") {
		t.Errorf("a job of one core may use %q", out)
	}
}

// TestRest asks slurmrestd as the broker does: over its Unix socket, as root.
func TestRest(t *testing.T) {
	c := upHere(t, Options{Nodes: 2, Without: bare})
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", c.RestSocket())
		},
	}}
	defer client.CloseIdleConnections()
	answer, err := client.Get("http://localhost/slurm/v0.0.38/nodes")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var nodes struct {
		Nodes []struct{ Name string }
	}
	if err := json.NewDecoder(answer.Body).Decode(&nodes); err != nil {
		t.Fatalf("status %s: %v", answer.Status, err)
	}
	if len(nodes.Nodes) != 2 || nodes.Nodes[0].Name != c.NodeNames()[0] {
		t.Errorf("slurmrestd sees %+v, want %v", nodes.Nodes, c.NodeNames())
	}
}

// TestKillAnything kills each daemon with SIGKILL while a job runs, and after each the cluster still goes down without a trace and
// comes up again in the same folder.
func TestKillAnything(t *testing.T) {
	killEach(t, Options{Nodes: 1, Without: bare}, nil)
}

// TestKillAnythingOfOurs does the same to Gleaner's daemons.
func TestKillAnythingOfOurs(t *testing.T) {
	killEach(t, Options{Nodes: 1}, []string{"brokerd", "launch", "agentd"})
}

// killEach kills the roles of the given kinds, or every one.
func killEach(t *testing.T, o Options, kinds []string) {
	c := upHere(t, o)
	o.Dir = c.Dir
	for _, role := range c.Roles() {
		if kinds != nil && !slices.Contains(kinds, kind(role)) {
			continue
		}
		if out, err := c.Command(t.Context(), "sbatch", "-o", "/dev/null", "--wrap", "trap '' TERM; sleep 600 & wait; sleep 600").CombinedOutput(); err != nil {
			t.Fatalf("sbatch: %v\n%s", err, out)
		}
		if err := until(t.Context(), 10*time.Second, func() bool { return len(jobProcesses(c)) > 0 }); err != nil {
			t.Fatalf("the job does not start: %v", err)
		}
		if err := c.Kill(role, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		again, err := Up(t.Context(), o) // takes the rest down first
		if err != nil {
			t.Fatalf("up after kill -9 of %s: %v", role, err)
		}
		c = again
		if left := jobProcesses(c); len(left) > 0 {
			t.Errorf("after kill -9 of %s the old job still runs: %v", role, left)
		}
	}
}

func jobProcesses(c *Cluster) []int {
	var pids []int
	for _, top := range cgroupsOf(c.Name) {
		pids = append(pids, pidsBelow(top)...)
	}
	return pids
}

// TestLostRecords takes a cluster down whose records and folder are gone: only the marks and names are left to find it by.
func TestLostRecords(t *testing.T) {
	c := upHere(t, Options{Nodes: 1, Without: bare})
	if err := os.RemoveAll(c.Dir); err != nil {
		t.Fatal(err)
	}
	if err := Clean(c.Dir); err != nil {
		t.Fatal(err)
	}
	if traces := Traces(c.Dir); len(traces) > 0 {
		t.Errorf("left behind: %v", traces)
	}
}

func TestRestart(t *testing.T) {
	c := upHere(t, Options{Nodes: 1, Without: bare})
	role := "slurmd/" + c.NodeNames()[0]
	before := c.PID(role)
	if err := c.Restart(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	if after := c.PID(role); after == 0 || after == before {
		t.Errorf("process %d before, %d after Restart", before, after)
	}
	if out, err := c.Command(t.Context(), "srun", "true").CombinedOutput(); err != nil {
		t.Errorf("srun after the restart: %v\n%s", err, out)
	}
}

// TestForeignFolder refuses a folder that holds other things, and removes nothing from it.
func TestForeignFolder(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "gleaner")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	file := filepath.Join(dir, "thesis.tex")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := claim(dir); err == nil {
		t.Error("claim accepts a folder with other things")
	}
	if err := Clean(dir); err == nil {
		t.Error("Clean accepts a folder without a cluster")
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestOptions(t *testing.T) {
	tests := map[string]struct {
		o    Options
		want string // "" for none
	}{
		"defaults":   {Options{Dir: "/tmp/x"}, ""},
		"no folder":  {Options{}, "want a path"},
		"spaces":     {Options{Dir: "/tmp/a b"}, "slurm.conf"},
		"many nodes": {Options{Dir: "/tmp/x", Nodes: 1000}, "nodes"},
		"mode":       {Options{Dir: "/tmp/x", Mode: "plain"}, "mode"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := newSpec(test.o)
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got %v, want an error about %q", err, test.want)
			}
		})
	}
}

// TestConfigurations holds the files of our daemons against the strict loader that they use.
func TestConfigurations(t *testing.T) {
	s, err := newSpec(Options{Dir: "/tmp/x"})
	if err != nil {
		t.Fatal(err)
	}
	s.Port = 20000
	c := &Cluster{spec: *s}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("GLEANER_BROKER", "")
	if _, err := config.LoadBroker(write("broker.toml", c.brokerConf())); err != nil {
		t.Error(err)
	}
	node := c.NodeNames()[0]
	agent, err := config.LoadAgent(write("agent.toml", c.agentConf(node)), "")
	if err != nil {
		t.Fatal(err)
	}
	if agent.Node.Name != node || agent.Broker.Address != c.Broker() {
		t.Errorf("agent is %s at %s, want %s at %s", agent.Node.Name, agent.Broker.Address, node, c.Broker())
	}
}

func TestRecordAlive(t *testing.T) {
	self, err := readStat(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if r := (record{PID: os.Getpid(), Ticks: self.ticks}); !r.alive() {
		t.Error("this process counts as dead")
	}
	if r := (record{PID: os.Getpid(), Ticks: self.ticks + 1}); r.alive() {
		t.Error("another process with the same number counts as ours")
	}
}

func TestPortsAreFree(t *testing.T) {
	s, err := newSpec(Options{Dir: "/tmp/x", Nodes: 3})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.choosePorts(); err != nil {
		t.Fatal(err)
	}
	first := s.Port
	l, err := net.Listen("tcp", ":"+strconv.Itoa(first+1))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := s.choosePorts(); err != nil || s.Port == first {
		t.Errorf("port %d chosen again (%v) although a neighbour is taken", s.Port, err)
	}
}

func TestLocate(t *testing.T) {
	closed := t.TempDir() // its parent is ours alone
	tests := map[string]struct {
		dir, want string
	}{
		"open":   {"/tmp/x", "/tmp/x"},
		"long":   {"/tmp/" + strings.Repeat("x", maxDir), "/tmp/gleaner-"},
		"closed": {closed, "/tmp/gleaner-"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := locate(test.dir)
			if err != nil || !strings.HasPrefix(got, test.want) {
				t.Errorf("locate(%s) = %s, %v, want %s…", test.dir, got, err, test.want)
			}
			if again, _ := locate(got); again != got {
				t.Errorf("located twice: %s, then %s", got, again)
			}
		})
	}
}
