package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/test/cluster"
)

// A start that was asked for before the agent or the launcher hung begins nothing once a job's gate has used force: the job's node stays
// empty for as long as it runs, though what hung goes on under it. Afterwards everything is lent again.
func TestNothingBeginsAfterForce(t *testing.T) {
	for _, kind := range []string{"launch", "agentd"} {
		t.Run(kind, func(t *testing.T) {
			c := theCluster(t, whole...)
			node := c.NodeNames()[0]
			role := kind + "/" + node
			if err := c.Kill(role, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Kill(role, syscall.SIGCONT) })
			w := newWork(t, c, 64)
			m := start(t, c, "gleaner", w.args(t, function(t, "idle"), "--executors", "32", "--mem-per-executor", "400M")...)
			eventually(t, 30*time.Second, "the others are lent", func() bool { return len(harvested(c, c.NodeNames()[1])) == 8 })
			began := filepath.Join(w.dir, "began")
			j := sbatch(t, c, fmt.Sprintf("%s\ntouch %s\nfor i in $(seq 100); do %s; sleep 0.03; done", witness(t, c), began, lookFor(c, node)), "--exclusive", "-w", node)
			eventually(t, 30*time.Second, "the job has begun", func() bool { return exists(began) }, j.text)
			if err := c.Kill(role, syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			j.wait("COMPLETED")
			ownerFirst(t, j)
			_, seen, _ := strings.Cut(j.text(), "\n") // after the witness's line
			for word := range strings.FieldsSeq(seen) {
				if _, err := strconv.Atoi(word); err == nil {
					t.Fatalf("process %s was harvested on the job's node: %s", word, j.text())
				}
			}
			eventually(t, 45*time.Second, "the node is lent again", func() bool { return len(harvested(c, node)) > 0 })
			_ = m.cmd.Process.Signal(syscall.SIGINT)
			_ = m.wait(t, time.Minute)
			nothingLeft(t, c)
		})
	}
}

// Executors whose agent is gone for longer than orphan_timeout end; with an agent again the work goes on.
func TestOrphansEnd(t *testing.T) {
	theCluster(t, whole...) // for the reasons to skip
	c, err := cluster.Up(t.Context(), cluster.Options{Dir: folder() + "-orphans", Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Down(); err != nil {
			t.Error(err)
		}
	}()
	node := c.NodeNames()[0]
	role := "agentd/" + node
	conf := filepath.Join(c.Dir, "etc", "agent-"+node+".toml")
	text, err := os.ReadFile(conf)
	if err == nil {
		err = os.WriteFile(conf, append(text, "\n[evict]\norphan_timeout = \"1s\"\n"...), 0o644)
	}
	if err == nil {
		err = c.Restart(t.Context(), role)
	}
	if err != nil {
		t.Fatal(err)
	}
	w := newWork(t, c, 40)
	m := start(t, c, "gleaner", w.args(t, function(t, "slow"), "--executors", "4")...)
	eventually(t, 30*time.Second, "all executors work", func() bool { // those that have no lease yet have the time-out of their own
		done, _ := filepath.Glob(filepath.Join(w.dir, "*.out"))
		return len(done) > 8 && len(harvested(c, node)) == 4
	})
	restart := killed(t, c, role)
	eventually(t, 30*time.Second, "the orphans have ended", func() bool {
		for _, pids := range harvested(c, node) {
			if len(pids) > 0 {
				return false
			}
		}
		return true
	}, func() string { return fmt.Sprint(harvested(c, node)) })
	restart()
	if err := m.wait(t, time.Minute); err != nil {
		t.Fatalf("map: %v\n%s", err, m.out.String())
	}
	w.right(t)
	nothingLeft(t, c)
}
