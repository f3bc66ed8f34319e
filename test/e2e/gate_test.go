package e2e

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/api/gate"
	"github.com/gleaner-hpc/gleaner/test/cluster"
)

// fakeAgent stands behind a node's agent socket and answers as it is told. It shares no code with the real one.
type fakeAgent struct {
	mu     sync.Mutex
	frames []gate.Frame
}

// answers of a fakeAgent to a claim. A kind of 0 says nothing and keeps the connection; garbage is no frame.
var temper = map[string][]gate.Kind{
	"done":     {gate.Ack, gate.Done},
	"silent":   {0},
	"half way": {gate.Ack, 0},
	"failed":   {gate.Ack, gate.Failed},
	"garbage":  {99},
	"hangs up": {},
}

// pretend puts a fake agent in the place of the node's, for the rest of the test.
func pretend(t *testing.T, c *cluster.Cluster, node string, answers []gate.Kind) *fakeAgent {
	t.Helper()
	path := c.AgentSocket(node)
	_ = os.Remove(path)
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	a := &fakeAgent{}
	over := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { a.serve(conn, answers, over) })
		}
	})
	t.Cleanup(func() {
		close(over)
		_ = listener.Close()
		all.Wait()
	})
	return a
}

func (a *fakeAgent) serve(conn net.Conn, answers []gate.Kind, over <-chan struct{}) {
	defer conn.Close()
	frame, err := gate.Read(conn)
	if err != nil {
		return
	}
	a.mu.Lock()
	a.frames = append(a.frames, *frame)
	a.mu.Unlock()
	if frame.Kind == gate.Release {
		answers = []gate.Kind{gate.Done}
	}
	for _, kind := range answers {
		if kind == 0 {
			gone := make(chan struct{})
			go func() { _, _ = conn.Read(make([]byte, 1)); close(gone) }()
			select {
			case <-over:
			case <-gone:
			}
			return
		}
		answer, err := (&gate.Frame{Kind: kind}).Append(nil)
		if err != nil {
			return
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

// of returns the frames of one kind so far.
func (a *fakeAgent) of(kind gate.Kind) []gate.Frame {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(a.frames), func(f gate.Frame) bool { return f.Kind != kind })
}

// TestGateTellsTheJob: the extern step's claim, which comes before any process of the user, names job, cores, memory and node; the
// Prolog warned before, and the Epilog releases. A user who sets SLURMD_NODENAME leads nobody to another node's agent.
func TestGateTellsTheJob(t *testing.T) {
	c := theCluster(t, "gate", "hook")
	stopped(t, c, "agentd")
	node := c.NodeNames()[0]
	agent := pretend(t, c, node, temper["done"])
	job := srun(t, c, "-Q", "-w", node, "-n1", "-c2", "--mem=64", "--export=ALL,SLURMD_NODENAME=other", "sh", "-c", "echo $SLURM_JOB_ID")
	claims := agent.of(gate.Claim)
	if len(claims) < 2 || claims[0].Step != 0xfffffffc || claims[1].Step != 0 {
		t.Fatalf("claims %+v: want the extern step's and step 0's", claims)
	}
	for _, claim := range claims {
		if fmt.Sprint(claim.Job) != job || claim.MiB != 64 || claim.Node != node || claim.UID != uint32(os.Getuid()) || claim.Cores == "" {
			t.Errorf("claim %+v, want job %s, 64 MiB, node %s and cores", claim, job, node)
		}
		if age := time.Since(time.Unix(0, int64(claim.Nanos))); age < 0 || age > time.Minute {
			t.Errorf("claim is %v old", age)
		}
	}
	if warns := agent.of(gate.Warn); len(warns) != 1 || fmt.Sprint(warns[0].Job) != job || warns[0].Node != node {
		t.Errorf("warnings %+v", warns)
	}
	eventually(t, 10*time.Second, "the Epilog releases", func() bool { return len(agent.of(gate.Release)) == 1 })
}

// TestGateAndEveryAgent: whatever the agent does, the job runs, its user sees nothing, it starts within the deadlines, nothing
// harvested is left on its node when its first process starts, and no node drains. Only an agent that says done is believed.
func TestGateAndEveryAgent(t *testing.T) {
	c := theCluster(t, "gate")
	stopped(t, c, "agentd")
	node := c.NodeNames()[3]
	for name, answers := range temper {
		t.Run(name, func(t *testing.T) {
			pretend(t, c, node, answers)
			victim := harvest(t, c, node, "victim-0")
			began := time.Now()
			out := srun(t, c, "-Q", "-w", node, "sh", "-c", lookFor(c, node))
			took := time.Since(began)
			t.Logf("srun took %v", took.Round(time.Millisecond))
			found := strings.Fields(out)
			if name == "done" {
				if !slices.Contains(found, fmt.Sprint(victim.Process.Pid)) {
					t.Errorf("the gate used force although the agent said done: the task saw %q", out)
				}
			} else if len(found) > 0 {
				t.Errorf("the job's first process found %q on its node", out)
			}
			if limit := 10 * time.Second; took > limit {
				t.Errorf("srun took %v", took)
			}
		})
	}
}

// lookFor is a shell command that prints the pids in the node's harvested cgroups, and nothing else.
func lookFor(c *cluster.Cluster, node string) string {
	top := c.CgroupParent() + "/" + node
	return "cat /sys/fs/cgroup/" + top + "/*/cgroup.procs /sys/fs/cgroup/*/" + top + "/*/cgroup.procs 2>/dev/null | sort -u"
}
