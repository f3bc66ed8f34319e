// Package e2e is the end-to-end suite: a real Slurm cluster, the real daemons, one story per test. TestMain brings one cluster of
// four nodes up for all tests; a test that needs another (other options, faults that last) makes its own with package cluster.
// Tests that change the shared cluster (stop a daemon) put it back. None runs in parallel with another unless all of its jobs and
// claims are its own.
package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/test/cluster"
)

var (
	shared      *cluster.Cluster // nil when unavailable says why
	unavailable error
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if unavailable = cluster.Available(); unavailable != nil {
		return m.Run() // each test skips with the reason
	}
	lock, err := alone()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer lock.Close()
	began := time.Now()
	c, err := cluster.Up(context.Background(), cluster.Options{Dir: folder(), Nodes: 4})
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	shared = c
	fmt.Fprintf(os.Stderr, "e2e: cluster %s with %s is up after %.1f s; without: %s\n",
		c.Dir, c.NodeList(), time.Since(began).Seconds(), strings.Join(c.Skipped(), "; "))
	code := m.Run()
	if code != 0 {
		keepLogs(c)
	}
	if err := c.Down(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: cluster down:", err)
		code = 1
	}
	if traces := cluster.Traces(c.Dir); len(traces) > 0 {
		fmt.Fprintln(os.Stderr, "e2e: left behind:", strings.Join(traces, "\n"))
		code = 1
	}
	return code
}

// folder is the same for a checkout each time, so that the next run cleans up after one that was killed.
func folder() string {
	dir, err := os.Getwd()
	if err != nil {
		dir = "."
	}
	sum := sha256.Sum256([]byte(dir))
	return "/tmp/gleaner-e2e-" + hex.EncodeToString(sum[:3])
}

// alone waits for another run in the same checkout, whose cluster would otherwise be taken for a dead one's. The lock goes with its
// process, however that ends.
func alone() (net.Listener, error) {
	name := "@" + folder()
	for deadline := time.Now().Add(10 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		lock, err := net.Listen("unix", name)
		if err == nil || time.Now().After(deadline) {
			return lock, err
		}
	}
}

// keepLogs leaves the daemons' logs in build/results/e2e-log for whoever looks into a failure.
func keepLogs(c *cluster.Cluster) {
	target := filepath.Join(c.Build, "results", "e2e-log")
	_ = os.RemoveAll(target)
	_ = os.MkdirAll(filepath.Dir(target), 0o755)
	if out, err := exec.Command("cp", "-r", filepath.Join(c.Dir, "log"), target).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "e2e: keep logs: %v: %s\n", err, out)
		return
	}
	fmt.Fprintln(os.Stderr, "e2e: the daemons' logs are in", target)
}
