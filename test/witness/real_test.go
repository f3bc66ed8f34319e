package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRealCgroup plants a process in a harvested cgroup of this machine: the witness must see it, and see when it is gone.
func TestRealCgroup(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("makes a cgroup: needs root")
	}
	mount := ""
	for _, m := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if _, err := os.Stat(filepath.Join(m, "cgroup.procs")); err == nil {
			mount = m
			break
		}
	}
	if mount == "" {
		t.Skip("no cgroup file system is mounted")
	}
	parent := fmt.Sprintf("gleaner-witness-%d", os.Getpid())
	dir := filepath.Join(mount, parent, "n1", "9-1")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Skipf("cannot make a cgroup here: %v", err)
	}
	sleeper := exec.Command("sleep", "60")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	end := func() {
		_ = sleeper.Process.Kill()
		_ = sleeper.Wait()
	}
	defer func() {
		end()
		err := errors.Join(os.Remove(dir), os.Remove(filepath.Dir(dir)), os.Remove(filepath.Dir(filepath.Dir(dir))))
		if err != nil {
			t.Error(err)
		}
	}()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, sleeper.Process.Pid), 0o644); err != nil {
		t.Fatal(err)
	}
	f := newFake(t, "0-7", 100)
	at := func(node string) Finding {
		return look(machine{root: "/", scontrol: f.scontrol}, parent, job{func(name string) string {
			return map[string]string{"SLURM_JOB_ID": "7", "SLURMD_NODENAME": node}[name]
		}})
	}
	want := fmt.Sprintf("9-1 still has processes [%d]", sleeper.Process.Pid)
	if got := at("n1"); got.OwnerFirst || !strings.Contains(strings.Join(got.Violations, "\n"), want) {
		t.Errorf("owner_first %t, violations %q; want %q", got.OwnerFirst, got.Violations, want)
	}
	if got := at("n2"); !got.OwnerFirst || got.Elsewhere != 1 {
		t.Errorf("on another node: %+v", got)
	}
	end()
	if got := at("n1"); !got.OwnerFirst {
		t.Errorf("after its end: %q", got.Violations)
	}
}
