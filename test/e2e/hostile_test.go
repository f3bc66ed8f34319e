package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestHostileFunctions: what a function does to its sandbox ends with a result or an error by name soon after its deadline, the next
// function job works, and nothing stays behind.
func TestHostileFunctions(t *testing.T) {
	c := theCluster(t, whole...)
	dir, err := os.MkdirTemp(c.Dir, "hostile")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	lib := filepath.Join(dir, "hostile.so")
	if out, err := exec.Command("gcc", "-O1", "-fPIC", "-shared", "-o", lib, "testdata/hostile.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
	for symbol, want := range map[string]struct{ result, failure string }{
		"signals":              {result: "parent 1"},
		"memory_of_supervisor": {result: "refused"},
		"residue":              {result: "done"},
		"scribble":             {failure: "the function wrote over its executor's state"},
		"forks":                {failure: "exceeded its deadline"},
		"eater":                {failure: "exceeding the executor's memory"},
	} {
		t.Run(symbol, func(t *testing.T) {
			w := newWork(t, c, 2)
			run := start(t, c, "gleaner", w.args(t, lib+":"+symbol, "--timeout", "1s", "--executors", "1")...)
			err := run.wait(t, 20*time.Second)
			s := w.summary(t)
			if want.failure == "" {
				got, _ := os.ReadFile(filepath.Join(w.dir, "in-000.out"))
				if err != nil || s.OK != 2 || s.Lost != 0 || string(got) != want.result {
					t.Errorf("%v, %+v, result %q; want %q\n%s", err, s, got, want.result, run.out.String())
				}
			} else if s.Failed != 2 || len(s.Failures) != 2 || !strings.Contains(s.Failures[0].Error, want.failure) {
				t.Errorf("%v, %+v; want two failures that say %q\n%s", err, s, want.failure, run.out.String())
			}
			eventually(t, 10*time.Second, "nothing is left", func() bool {
				for _, node := range c.NodeNames() {
					if len(harvested(c, node)) > 0 {
						return false
					}
				}
				return true
			})
		})
	}
	w := newWork(t, c, 4)
	output(t, c, "gleaner", w.args(t, function(t, "reverse"))...)
	w.right(t)
}
