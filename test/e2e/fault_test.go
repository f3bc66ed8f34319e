package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/test/cluster"
)

// killed sends SIGKILL to a role and starts it again when the function that it returns is called.
func killed(t *testing.T, c *cluster.Cluster, role string) (restart func()) {
	t.Helper()
	if err := c.Kill(role, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, role+" is gone", func() bool { return c.PID(role) == 0 })
	return func() {
		t.Helper()
		if err := c.Start(context.Background(), role); err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever of ours is killed under a map, it ends with every result right, and nothing is left.
func TestMapSurvivesTheDeathOf(t *testing.T) {
	kinds := map[string]func(t *testing.T, c *cluster.Cluster, nodes []string){
		"a broker": func(t *testing.T, c *cluster.Cluster, _ []string) { killed(t, c, "brokerd")() },
		"an agent": func(t *testing.T, c *cluster.Cluster, nodes []string) { killed(t, c, "agentd/"+nodes[0])() },
		"a launcher": func(t *testing.T, c *cluster.Cluster, nodes []string) {
			killed(t, c, "launch/"+nodes[0])()
		},
		"executors": func(t *testing.T, c *cluster.Cluster, nodes []string) {
			for _, pids := range harvested(c, nodes[0]) {
				for _, pid := range pids {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
		},
		"slurmctld": func(t *testing.T, c *cluster.Cluster, _ []string) { killed(t, c, "slurmctld")() },
	}
	for name, fault := range kinds {
		t.Run(name, func(t *testing.T) {
			c := theCluster(t, whole...)
			w := newWork(t, c, 60)
			m := start(t, c, "gleaner", w.args(t, function(t, "slow"), "--executors", "4")...)
			fault(t, c, hosts(t, c, 4))
			if err := m.wait(t, time.Minute); err != nil {
				t.Fatalf("map: %v\n%s", err, m.out.String())
			}
			w.right(t)
			if s := w.summary(t); s.OK != 60 {
				t.Errorf("summary %+v", s)
			}
			nothingLeft(t, c)
		})
	}
}

// An agent that is killed and started again finds its executors and keeps them.
func TestRestartedAgentAdoptsItsExecutors(t *testing.T) {
	c := theCluster(t, whole...)
	w := newWork(t, c, 80)
	m := start(t, c, "gleaner", w.args(t, function(t, "slow"), "--executors", "4")...)
	node := hosts(t, c, 4)[0]
	before := keys(harvested(c, node))
	killed(t, c, "agentd/"+node)()
	if err := m.wait(t, time.Minute); err != nil {
		t.Fatalf("map: %v\n%s", err, m.out.String())
	}
	w.right(t)
	if s := w.summary(t); s.Lost+s.Evictions != 0 {
		t.Errorf("executors %v of %s: %d lost, %d evicted; want them adopted", before, node, s.Lost, s.Evictions)
	}
	nothingLeft(t, c)
}

func keys(m map[string][]int) []string {
	var list []string
	for key := range m {
		list = append(list, key)
	}
	slices.Sort(list)
	return list
}

// A job that starts while the agent hangs is not held up: the gate clears the node itself.
func TestGateUsesForceWhenTheAgentHangs(t *testing.T) {
	c := theCluster(t, whole...)
	w := newWork(t, c, 80)
	m := start(t, c, "gleaner", w.args(t, function(t, "slow"), "--executors", "4")...)
	node := hosts(t, c, 4)[0]
	role := "agentd/" + node
	if err := c.Kill(role, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Kill(role, syscall.SIGCONT) })
	j := sbatch(t, c, witness(t, c), "--exclusive", "-w", node)
	j.wait("COMPLETED")
	ownerFirst(t, j)
	if err := c.Kill(role, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := m.wait(t, time.Minute); err != nil {
		t.Fatalf("map: %v\n%s", err, m.out.String())
	}
	w.right(t)
	nothingLeft(t, c)
}

// A site without the SPANK plugin is served by the Prolog alone: bluntly and safely.
func TestPrologAloneGates(t *testing.T) {
	theCluster(t, whole...) // for the reasons to skip
	c, err := cluster.Up(t.Context(), cluster.Options{Dir: folder() + "-blunt", Nodes: 2, Without: []string{"gate"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Down(); err != nil {
			t.Error(err)
		}
	}()
	w := newWork(t, c, 60)
	m := start(t, c, "gleaner", w.args(t, function(t, "slow"), "--executors", "4")...)
	node := hosts(t, c, 4)[0]
	j := sbatch(t, c, witness(t, c), "--exclusive", "-w", node)
	j.wait("COMPLETED")
	ownerFirst(t, j)
	if err := m.wait(t, time.Minute); err != nil {
		t.Fatalf("map: %v\n%s", err, m.out.String())
	}
	w.right(t)
	if bad := drained(t, c); len(bad) > 0 {
		t.Errorf("drained: %v", bad)
	}
	nothingLeft(t, c)
}

// Ten times in a row: a function job, and batch jobs that come and are cancelled at random under it. GLEANER_SEED replays a run.
func TestTenRoundsUnderRandomJobs(t *testing.T) {
	c := theCluster(t, whole...)
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("GLEANER_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("GLEANER_SEED: %v", err)
		}
	}
	t.Logf("GLEANER_SEED=%d replays this", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	evictions := 0
	for round := range 10 {
		w := newWork(t, c, 90)
		m := start(t, c, "gleaner", w.args(t, function(t, "slow"), "--executors", strconv.Itoa(6+random.IntN(3)))...)
		jobs := randomJobs(t, c, random, hosts(t, c, 5))
		if err := m.wait(t, time.Minute); err != nil {
			t.Fatalf("round %d: map: %v\n%s", round, err, m.out.String())
		}
		w.right(t)
		s := w.summary(t)
		evictions += s.Evictions
		if s.OK != 90 || s.Failed+s.Left != 0 {
			t.Errorf("round %d: summary %+v", round, s)
		}
		for _, j := range jobs {
			j.cancel()
			if strings.Contains(j.text(), "{") { // a job that was cancelled before its first process says nothing
				ownerFirst(t, j)
			}
		}
		nothingLeft(t, c)
		if bad := drained(t, c); len(bad) > 0 {
			t.Fatalf("round %d: drained: %v", round, bad)
		}
	}
	t.Logf("%d evictions in 10 rounds", evictions)
}

// randomJobs submits two to four jobs of random shape, most of them onto a node that hosts executors, and then cancels some of them at once
// or after they have started.
func randomJobs(t *testing.T, c *cluster.Cluster, random *rand.Rand, hosts []string) []*job {
	t.Helper()
	var jobs []*job
	random.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	for n := range 2 + random.IntN(3) {
		shape := [][]string{
			{"--exclusive", "-N1"},
			{"--exclusive", "-N2"},
			{"-n1", fmt.Sprintf("-c%d", 5+random.IntN(4)), "--mem=500"},
			{"-N2", "--ntasks-per-node=6", "--mem=1000"},
		}[random.IntN(4)]
		if random.IntN(8) > 0 {
			shape = append(shape, "-w", hosts[n%len(hosts)])
		}
		jobs = append(jobs, sbatch(t, c, witness(t, c)+fmt.Sprintf("\nsleep 0.%d", random.IntN(9)), shape...))
	}
	for _, j := range jobs {
		switch random.IntN(4) {
		case 0:
			j.cancel()
		case 1:
			eventually(t, 30*time.Second, "the job has begun", func() bool { return j.state() != "PENDING" })
		}
	}
	return jobs
}
