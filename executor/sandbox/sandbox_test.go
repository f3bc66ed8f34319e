package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/agent/launch/launchtest"
)

func TestConformance(t *testing.T) {
	launchtest.Conformance(t, func(t *testing.T) launchtest.Launcher { return newManager(t, testConfig(t, "sleep")) })
}

// TestInside compares what a tenant sees with what it may see.
func TestInside(t *testing.T) {
	cfg := testConfig(t, "look")
	m := newManager(t, cfg)
	s := spec("look-1")
	s.CPUs = cpuset(0)
	mustStart(t, m, s)
	found := told(t, cfg, "look-1")
	want := map[string]string{
		"status CapInh": "0000000000000000", "status CapPrm": "0000000000000000", "status CapEff": "0000000000000000",
		"status CapBnd": "0000000000000000", "status CapAmb": "0000000000000000", "status NoNewPrivs": "1", "status Seccomp": "2",
		"status Uid": "61234 61234 61234 61234", "status Gid": "61235 61235 61235 61235", "status Groups": "61236",
		"status Pid": "1", "processes": "1", "hostname": "look-1", "oom_score_adj": "500", "core": "1", "cpus": "1",
		"/dev": "core fd full null ptmx random shm stderr stdin stdout urandom zero|fd full null ptmx random shm stderr stdin stdout urandom zero", "/run": "gleaner",
		"write /x": "EROFS", "write /etc/x": "EROFS", "write /usr/x": "EROFS", "write /gleaner/x": "EROFS", "write /run/gleaner/agent/x": "EROFS",
		"write /run/gleaner/self/x": "ok", "write /tmp/x": "ok", "write /dev/shm/x": "ok", "write /dev/x": "EROFS", "write /dev/null": "ok",
		"write /proc/sys/kernel/core_pattern": "EROFS", "write /proc/sysrq-trigger": "EROFS|ENOENT", "write /sys/devices/system/cpu/x": "EROFS",
		"read /proc/kcore": "ok false|ENOENT false", "read /proc/keys": "ok false|ENOENT false", "read /proc/1/environ": "ok true",
		"run /usr/bin/id": "ok", "run /bin/sh": "ok", "signal 1": "ok",
	}
	var descriptors unix.Rlimit // what this process could raise them to
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &descriptors); err != nil {
		t.Fatal(err)
	}
	want["descriptors"] = fmt.Sprint(descriptors.Max)
	if exists("/usr/lib/x86_64-linux-gnu/libfabric.so.1") && exists("/usr/bin/python3") {
		want["loader"] = "loaded"
	}
	for name := range refused {
		want["call "+name] = "EPERM"
	}
	for key, value := range want {
		if !slices.Contains(strings.Split(value, "|"), found[key]) { // what the kernel was built without is not there
			t.Errorf("%s: %q, want %q", key, found[key], value)
		}
	}
	for line := range strings.Lines(found["cgroup"]) {
		if !strings.HasSuffix(strings.TrimSpace(line), ":/") {
			t.Errorf("the sandbox sees where its cgroup is: %s", line)
		}
	}
}

// TestLimits reads the limits where the kernel keeps them.
func TestLimits(t *testing.T) {
	cfg := testConfig(t, "sleep")
	cfg.Fair = false
	m := newManager(t, cfg)
	s := spec("limits-1")
	s.CPUs, s.MilliCPUs = cpuset(0), 250
	pid := mustStart(t, m, s)
	g := m.find("limits-1").group
	for _, f := range []struct{ controller, v1, v2, want string }{
		{"cpuset", "cpuset.cpus", "cpuset.cpus", "0"},
		{"cpu", "cpu.cfs_quota_us", "", "2500"},
		{"cpu", "cpu.cfs_period_us", "", "10000"},
		{"cpu", "", "cpu.max", "2500 10000"},
		{"cpu", "cpu.shares", "", "2"},
		{"cpu", "", "cpu.weight", "1"},
		{"memory", "memory.limit_in_bytes", "memory.max", fmt.Sprint(64 << 20)},
		{"memory", "memory.memsw.limit_in_bytes", "", fmt.Sprint(64 << 20)},
		{"memory", "", "memory.swap.max", "0"},
		{"pids", "pids.max", "pids.max", "32"},
	} {
		file := filepath.Join(g.dir(f.controller), pick(f.v1, f.v2))
		if pick(f.v1, f.v2) == "" || strings.Contains(file, "sw") && !exists(file) {
			continue // of the other version, or a kernel without swap
		}
		if text, err := os.ReadFile(file); err != nil || strings.TrimSpace(string(text)) != f.want {
			t.Errorf("%s: %q, %v, want %s", file, text, err, f.want)
		}
	}
	comesLast(t, m)
	m.rush(1)
	m.rush(-1)
	comesLast(t, m) // again after a kill
	info, err := os.Stat(filepath.Join(cfg.RunDir, "executors", "limits-1"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("executor's folder: %v, %v", info.Mode(), err)
	}
	if owner := fmt.Sprint(info.Sys()); !strings.Contains(owner, fmt.Sprint(testUID)) {
		t.Errorf("executor's folder belongs to %s", owner)
	}
	for part := range strings.FieldsSeq(hostStatus(t, pid, "Uid")) {
		if part != fmt.Sprint(testUID) {
			t.Errorf("on the host the executor is uid %s", part)
		}
	}
}

// comesLast reads what the cgroups above the sandboxes weigh against everybody else's.
func comesLast(t *testing.T, m *Manager) {
	t.Helper()
	for _, dir := range []string{m.cfg.CgroupParent, filepath.Join(m.cfg.CgroupParent, m.cfg.Node)} {
		for _, f := range []struct{ v1, v2, want string }{
			{"cpu/%s/cpu.shares", "", "2|3"}, {"cpu/%s/cpu.idle", "%s/cpu.idle", "1"}, {"blkio/%s/blkio.bfq.weight", "%s/io.weight", "1"},
		} {
			form := pick(f.v1, f.v2)
			if form == "" {
				continue
			}
			file := filepath.Join(cgroupRoot, fmt.Sprintf(form, dir))
			if !exists(file) {
				continue // this kernel has no such weight: gleaner check node says so
			}
			text, err := os.ReadFile(file)
			if got := strings.TrimPrefix(strings.TrimSpace(string(text)), "default "); err != nil || !slices.Contains(strings.Split(f.want, "|"), got) {
				t.Errorf("%s: %q, %v, want %s", file, text, err, f.want)
			}
		}
	}
}

func hostStatus(t *testing.T, pid int, key string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			return value
		}
	}
	return ""
}

func TestExitIsToldWithItsCode(t *testing.T) {
	m := newManager(t, testConfig(t, "exit7"))
	mustStart(t, m, spec("exit-1"))
	e := exit(t, m, "exit-1")
	if e.Code != 7 || e.Signal != 0 || e.OOM || e.CPUNanos == 0 || e.PeakBytes == 0 {
		t.Errorf("exit: %+v", e)
	}
}

func TestForkBombIsContained(t *testing.T) {
	cfg := testConfig(t, "forkbomb")
	m := newManager(t, cfg)
	s := spec("fork-1")
	s.PIDs, s.MemoryBytes = 40, 512<<20
	mustStart(t, m, s)
	if found := told(t, cfg, "fork-1"); found["end"] != "EAGAIN" {
		t.Errorf("fork bomb: %v", found)
	}
	if remaining, err := m.Kill(t.Context(), "fork-1"); err != nil || len(remaining) > 0 {
		t.Errorf("kill: %v, %v", remaining, err)
	}
	exit(t, m, "fork-1")
}

// TestMemoryBombDiesAlone: a neighbour lives on, the bomb's parent lives on, and the exit says what happened.
func TestMemoryBombDiesAlone(t *testing.T) {
	cfg := testConfig(t, "membomb")
	m := newManager(t, cfg)
	mustStart(t, m, spec("mem-1"))
	if found := told(t, cfg, "mem-1"); found["child"] != "signal: killed" {
		t.Errorf("memory bomb: %v", found)
	}
	if remaining, err := m.Kill(t.Context(), "mem-1"); err != nil || len(remaining) > 0 {
		t.Errorf("kill: %v, %v", remaining, err)
	}
	e := exit(t, m, "mem-1")
	if !e.OOM || e.PeakBytes < 50<<20 || e.PeakBytes > 65<<20 {
		t.Errorf("exit: %+v", e)
	}
}

func TestKillAllReachesNobodyElse(t *testing.T) {
	cfg := testConfig(t, "killall")
	m := newManager(t, cfg)
	mustStart(t, m, spec("kill-1"))
	told(t, cfg, "kill-1")
	mustStart(t, m, spec("kill-2"))
	told(t, cfg, "kill-2")
	if all, err := m.List(t.Context()); err != nil || len(all) != 2 || !all[0].Running || !all[1].Running {
		t.Errorf("list: %+v, %v", all, err)
	}
}

// TestNothingFillsTheHost: every place that a tenant can write to is full before the host's memory is.
func TestNothingFillsTheHost(t *testing.T) {
	cfg := testConfig(t, "fill")
	m := newManager(t, cfg)
	mustStart(t, m, spec("fill-1"))
	for dir, got := range told(t, cfg, "fill-1") {
		if got != "ENOSPC" {
			t.Errorf("writing to %s ended with %s", dir, got)
		}
	}
}

// TestKillReturnsMemory ends a sandbox with a GiB in 4 KiB pages and a tenth of a CPU.
func TestKillReturnsMemory(t *testing.T) {
	cfg := testConfig(t, "resident")
	m := newManager(t, cfg)
	s := spec("big-1")
	s.MemoryBytes = 1200 << 20
	mustStart(t, m, s)
	told(t, cfg, "big-1")
	g := m.find("big-1").group
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // an emulated machine is slow
	defer cancel()
	before := time.Now()
	remaining, err := m.Kill(ctx, "big-1")
	took := time.Since(before)
	charged, _ := g.memory()
	t.Logf("1 GiB resident: killed and uncharged in %v", took)
	if err != nil || len(remaining) > 0 || charged > 16<<20 {
		t.Errorf("kill: %v, %v, %d bytes still charged", remaining, err, charged)
	}
	exit(t, m, "big-1")
}

// TestKillReturnsFiles ends sandboxes whose memory is in files: it is charged until their file systems are gone.
func TestKillReturnsFiles(t *testing.T) {
	cfg := testConfig(t, "fill")
	m := newManager(t, cfg)
	groups := map[string]group{}
	for _, id := range []string{"fill-1", "fill-2"} {
		mustStart(t, m, spec(id))
		told(t, cfg, id)
		groups[id] = m.find(id).group
		if charged, _ := groups[id].memory(); charged <= freeEnough {
			t.Fatalf("%s holds nothing", id)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	remaining, err := m.Kill(ctx, "fill-1", "fill-2")
	for id, g := range groups {
		if !g.free() {
			charged, _ := g.memory()
			t.Errorf("%s: %v and %d bytes are left when the kill is answered", id, g.pids(), charged)
		}
	}
	if err != nil || len(remaining) > 0 {
		t.Errorf("kill: %v, %v", remaining, err)
	}
	for range groups {
		<-m.Exited()
	}
}

func TestAdoption(t *testing.T) {
	cfg := testConfig(t, "sleep")
	first, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	pid := mustStart(t, first, spec("adopt-1"))
	told(t, cfg, "adopt-1")
	if _, err := New(cfg); err == nil {
		t.Error("two managers serve one run directory")
	}
	first.Close()
	m := newManager(t, cfg)
	all, err := m.List(t.Context())
	if err != nil || len(all) != 1 || all[0].ID != "adopt-1" || all[0].PID != pid || !all[0].Running || all[0].Spec.MemoryBytes != 64<<20 {
		t.Fatalf("list: %+v, %v", all, err)
	}
	if err := m.Freeze(t.Context(), "adopt-1"); err != nil {
		t.Error(err)
	}
	// It ends without the manager, which is not its parent.
	var status unix.WaitStatus
	if err := m.Thaw(t.Context(), "adopt-1"); err != nil {
		t.Error(err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	exit(t, m, "adopt-1")
	_, _ = unix.Wait4(pid, &status, 0, nil) // it is this test's child after all
}

// TestRemainsAreRemoved: what dead sandboxes left is gone when the next manager is there.
func TestRemainsAreRemoved(t *testing.T) {
	cfg := testConfig(t, "sleep")
	first, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	pid := mustStart(t, first, spec("rest-1"))
	told(t, cfg, "rest-1")
	first.Close()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var status unix.WaitStatus
	_, _ = unix.Wait4(pid, &status, 0, nil)
	m := newManager(t, cfg)
	for _, trace := range traces(cfg) {
		if strings.Contains(trace, "rest-1") {
			t.Errorf("left behind: %s", trace)
		}
	}
	mustStart(t, m, spec("rest-1"))
}

func TestBadExecutorFailsToStart(t *testing.T) {
	cfg := testConfig(t, "sleep")
	cfg.Command = "/gleaner/nothing"
	m := newManager(t, cfg)
	if _, err := m.Start(t.Context(), spec("bad-1")); err == nil {
		t.Error("started")
	}
	if all, err := m.List(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("list: %+v, %v", all, err)
	}
	for _, trace := range traces(cfg) {
		if strings.Contains(trace, "bad-1") {
			t.Errorf("left behind: %s", trace)
		}
	}
}

// TestCleanUp: whatever is there goes, running, frozen or half made, a gate's mark too, without a Manager and twice over.
func TestCleanUp(t *testing.T) {
	cfg := testConfig(t, "sleep")
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	pids := []int{mustStart(t, m, spec("clean-1")), mustStart(t, m, spec("clean-2"))}
	told(t, cfg, "clean-1")
	if err := m.Freeze(t.Context(), "clean-2"); err != nil {
		t.Error(err)
	}
	if err := CleanUp(cfg); err == nil {
		t.Error("cleaned up beneath a Manager")
	}
	m.Close()
	for _, dir := range []string{m.group("half-1").dir("memory"), m.group("shut.7").dir("freezer"), m.states("half-2"), m.selves("half-3")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := CleanUp(cfg); err != nil {
			t.Error(err)
		}
		for _, trace := range traces(cfg) {
			t.Errorf("left behind: %s", trace)
		}
	}
	for _, pid := range pids {
		var status unix.WaitStatus
		if _, err := unix.Wait4(pid, &status, 0, nil); err != nil || status.Signal() != unix.SIGKILL {
			t.Errorf("process %d: %v, %v", pid, status, err)
		}
	}
}

// TestStateIsShut: nobody but root comes to the fifo that libcontainer makes for everybody in a sandbox's state folder.
// A writer of it would hold up the start for ever.
func TestStateIsShut(t *testing.T) {
	cfg := testConfig(t, "sleep")
	if err := os.MkdirAll(filepath.Join(cfg.RunDir, "launch/sandboxes"), 0o711); err != nil { // as an earlier launcher made it
		t.Fatal(err)
	}
	m := newManager(t, cfg)
	s := spec("state-1")
	mustStart(t, m, s)
	for _, path := range []string{m.states(s.ID), m.states(s.ID) + "/passwd", m.states(s.ID) + "/exec.fifo"} {
		if f, _, err := openAs(s, path); !errors.Is(err, unix.EACCES) {
			t.Errorf("%s: %v, want %v", path, err, unix.EACCES)
			_ = f.Close()
		}
	}
}

// TestKillOfAStartThatHangs: the sandbox's user may signal its process from outside before the executor runs, and stop it there.
func TestKillOfAStartThatHangs(t *testing.T) {
	m := newManager(t, testConfig(t, "sleep"))
	s := spec("hang-1")
	over := make(chan error, 1)
	go func() {
		_, err := m.Start(t.Context(), s)
		over <- err
	}()
	await(t, "the first process", func() bool { return len(m.group(s.ID).pids()) > 0 })
	for _, pid := range m.group(s.ID).pids() {
		_ = unix.Kill(pid, unix.SIGSTOP)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if left, err := m.Kill(ctx, s.ID); len(left) > 0 || err != nil {
		t.Errorf("kill: %v, %v", left, err)
		for _, pid := range m.group(s.ID).pids() {
			_ = unix.Kill(pid, unix.SIGCONT)
		}
	}
	if err := <-over; err == nil {
		exit(t, m, s.ID) // stopped only after it had started
	}
}
