package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/test/cluster"
	"github.com/gleaner-hpc/gleaner/test/functions"
)

// whole is everything that has to run for a function job.
var whole = []string{"brokerd", "launch", "agentd", "gate", "hook"}

// library compiles the functions once per run. It goes with the cluster.
var library = sync.OnceValues(func() (string, error) { return functions.Build(shared.Dir) })

// function is one of the library, as the command line names it.
func function(t *testing.T, symbol string) string {
	t.Helper()
	lib, err := library()
	if err != nil {
		t.Fatal(err)
	}
	return lib + ":" + symbol
}

// work is a map over small files: where they lie and what has to come out.
type work struct {
	dir   string
	count int
}

func newWork(t *testing.T, c *cluster.Cluster, count int) *work {
	t.Helper()
	dir, err := os.MkdirTemp(c.Dir, "work")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	w := &work{dir: dir, count: count}
	for n := range count {
		if err := os.WriteFile(w.input(n), []byte(w.text(n)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *work) text(n int) string   { return fmt.Sprintf("task %d of %s", n, w.dir) }
func (w *work) input(n int) string  { return filepath.Join(w.dir, fmt.Sprintf("in-%03d.txt", n)) }
func (w *work) summaryFile() string { return filepath.Join(w.dir, "summary.json") }
func (w *work) inputsGlob() string  { return filepath.Join(w.dir, "in-*.txt") }
func (w *work) lines(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(w.inputsGlob())
	if err != nil || len(files) != w.count {
		t.Fatalf("%d of %d inputs: %v", len(files), w.count, err)
	}
	return files
}

// args is the command line of a map over all inputs.
func (w *work) args(t *testing.T, fn string, more ...string) []string {
	t.Helper()
	args := append([]string{"map", fn}, w.lines(t)...)
	args = append(args, "--out", filepath.Join(w.dir, "{stem}.out"), "--summary", w.summaryFile(), "--mem-per-executor", "128M")
	return append(args, more...)
}

// summary is what the map left in its summary file.
type summary struct {
	Lease                            uint64
	Tasks, OK, Failed, Skipped, Left int
	Retried, Evictions, Lost         int
	Failures                         []struct{ Task, Input, Error string }
}

func (w *work) summary(t *testing.T) summary {
	t.Helper()
	text, err := os.ReadFile(w.summaryFile())
	if err != nil {
		t.Fatal(err)
	}
	var s summary
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return s
}

// right checks every result against the input reversed.
func (w *work) right(t *testing.T) {
	t.Helper()
	for n := range w.count {
		want := []byte(w.text(n))
		slices.Reverse(want)
		got, err := os.ReadFile(filepath.Join(w.dir, fmt.Sprintf("in-%03d.out", n)))
		if err != nil {
			t.Errorf("task %d: %v", n, err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("task %d: got %q, want %q", n, got, want)
		}
	}
}

// background is a command that runs while the test goes on.
type background struct {
	cmd  *exec.Cmd
	out  bytes.Buffer
	done chan error
}

func start(t *testing.T, c *cluster.Cluster, name string, args ...string) *background {
	t.Helper()
	b := &background{cmd: c.Command(t.Context(), name, args...), done: make(chan error, 1)}
	b.cmd.Dir = c.Dir
	b.cmd.Stdout, b.cmd.Stderr = &b.out, &b.out
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { b.done <- b.cmd.Wait() }()
	t.Cleanup(func() { _ = b.cmd.Process.Kill() })
	return b
}

// wait waits for its end with a limit; the error is the command's.
func (b *background) wait(t *testing.T, limit time.Duration) error {
	t.Helper()
	select {
	case err := <-b.done:
		return err
	case <-time.After(limit):
		_ = b.cmd.Process.Signal(syscall.SIGTERM)
		t.Fatalf("%s runs longer than %v:\n%s", strings.Join(b.cmd.Args[:2], " "), limit, b.out.String())
		return nil
	}
}

// hosts waits until at least n executors run and returns the nodes that have any.
func hosts(t *testing.T, c *cluster.Cluster, n int) []string {
	t.Helper()
	var nodes []string
	eventually(t, 20*time.Second, fmt.Sprintf("%d executors run", n), func() bool {
		nodes = nodes[:0]
		count := 0
		for _, node := range c.NodeNames() {
			if here := len(harvested(c, node)); here > 0 {
				nodes = append(nodes, node)
				count += here
			}
		}
		return count >= n
	})
	return nodes
}

// witness is the command by which a job's first process checks that nothing harvested holds what is the job's.
func witness(t *testing.T, c *cluster.Cluster) string {
	t.Helper()
	path := filepath.Join(c.Build, "tools", "witness")
	if !exists(path) {
		t.Skip("needs " + path + "; run make build")
	}
	return path + " --parent " + c.CgroupParent()
}
