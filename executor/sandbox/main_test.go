package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

// The test binary is three programs: libcontainer's init, the executor that runs in the sandbox (its first argument names what it
// does, see probe_test.go), and the tests.
func TestMain(m *testing.M) {
	if IsInit() {
		Init()
	}
	if len(os.Args) > 2 && os.Args[1] == "probe" {
		probe(os.Args[2])
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

const (
	testUID = 61234
	testGID = 61235
)

func spec(id string) launcher.Spec {
	return launcher.Spec{ID: id, UID: testUID, GID: testGID, Groups: []uint32{61236}, MilliCPUs: 1000, MemoryBytes: 64 << 20, TmpBytes: 16 << 20, PIDs: 32}
}

// needSupport skips where no sandbox can be made.
func needSupport(t testing.TB) {
	t.Helper()
	if err := Supported(); err != nil {
		t.Skip(err)
	}
}

// testConfig is a Config of this test's own, whose executor is this binary: it does what mode says. All traces must be gone at the end.
func testConfig(t testing.TB, mode string) Config {
	t.Helper()
	needSupport(t)
	dir, err := os.MkdirTemp("", "sandbox")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	libexec := filepath.Join(dir, "libexec")
	for _, err := range []error{os.Chmod(dir, 0o755), os.Mkdir(libexec, 0o755), copySelf(filepath.Join(libexec, "executor"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return Config{
		RunDir: filepath.Join(dir, "run"), Libexec: libexec, CgroupParent: "gleaner-test", Node: fmt.Sprintf("n%d-%s", os.Getpid(), filepath.Base(dir)),
		Fair:    true, // the machine may be busy; TestLimits has it otherwise
		Command: "/gleaner/executor probe " + mode + " %i", Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func copySelf(to string) error {
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	f, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}

// newManager starts a Manager that is cleaned up and closed at the end, with proof that it left nothing.
func newManager(t testing.TB, cfg Config) *Manager {
	t.Helper()
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Close()
		if err := CleanUp(cfg); err != nil {
			t.Errorf("clean up: %v", err)
		}
		for _, trace := range traces(cfg) {
			t.Errorf("left behind: %s", trace)
		}
		await(t, "all threads are in one mount namespace", sameMounts)
	})
	return m
}

// sameMounts reports whether no thread of this process keeps a sandbox's file systems alive.
func sameMounts() bool {
	threads, _ := filepath.Glob("/proc/self/task/*/ns/mnt")
	seen := map[string]bool{}
	for _, thread := range threads {
		if ns, err := os.Readlink(thread); err == nil {
			seen[ns] = true
		}
	}
	return len(seen) == 1
}

// traces are what exists of a node's sandboxes.
func traces(cfg Config) []string {
	var found []string
	found = append(found, group(filepath.Join(cfg.CgroupParent, cfg.Node)).dirs()...)
	for _, pattern := range []string{"executors/*", "launch/sandboxes/*", "launch/binds/*"} {
		paths, _ := filepath.Glob(filepath.Join(cfg.RunDir, pattern))
		found = append(found, paths...)
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, cfg.RunDir) {
			found = append(found, line)
		}
	}
	return found
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func mustStart(t testing.TB, m *Manager, s launcher.Spec) int {
	t.Helper()
	pid, err := m.Start(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func exit(t testing.TB, m *Manager, id string) launcher.Exited {
	t.Helper()
	select {
	case e := <-m.Exited():
		if e.ID != id {
			t.Fatalf("exit of %s, want of %s", e.ID, id)
		}
		return e
	case <-time.After(20 * time.Second):
		t.Fatalf("sandbox %s does not end", id)
	}
	return launcher.Exited{}
}

// told waits until the executor has written what it found, and returns it by name.
func told(t testing.TB, cfg Config, id string) map[string]string {
	t.Helper()
	path := filepath.Join(cfg.RunDir, "executors", id, "result")
	var found map[string]string
	await(t, "result of "+id, func() bool {
		text, err := os.ReadFile(path)
		return err == nil && json.Unmarshal(text, &found) == nil
	})
	return found
}

// await waits for a condition, with a deadline.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

func cpuset(n int) []int { return slices.Collect(func(yield func(int) bool) { yield(n) }) }
