package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

// TestResize reads the new limits where the kernel keeps them, also after another Manager has taken over.
func TestResize(t *testing.T) {
	cfg := testConfig(t, "sleep")
	m := newManager(t, cfg)
	s := spec("resize-1")
	pid := mustStart(t, m, s)
	s.MilliCPUs, s.MemoryBytes, s.TmpBytes, s.PIDs, s.CPUs = 250, 128<<20, 100<<20, 64, cpuset(0)
	if err := m.Resize(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	g := m.find("resize-1").group
	for _, f := range []struct{ controller, v1, v2, want string }{
		{"cpuset", "cpuset.cpus", "cpuset.cpus", "0"},
		{"cpu", "cpu.cfs_quota_us", "cpu.max", pick("2500", "2500 10000")},
		{"memory", "memory.limit_in_bytes", "memory.max", fmt.Sprint(128 << 20)},
		{"pids", "pids.max", "pids.max", "64"},
	} {
		text, err := os.ReadFile(filepath.Join(g.dir(f.controller), pick(f.v1, f.v2)))
		if err != nil || strings.TrimSpace(string(text)) != f.want {
			t.Errorf("%s: %q, %v, want %s", f.controller, text, err, f.want)
		}
	}
	for _, dir := range []string{"/tmp", "/dev/shm"} {
		var st unix.Statfs_t
		if err := unix.Statfs(fmt.Sprintf("/proc/%d/root%s", pid, dir), &st); err != nil || int64(st.Blocks)*st.Bsize != 100<<20 {
			t.Errorf("%s: %d bytes, %v, want %d", dir, int64(st.Blocks)*st.Bsize, err, 100<<20)
		}
	}
	all, err := m.List(t.Context())
	if err != nil || len(all) != 1 || all[0].Spec.MemoryBytes != 128<<20 {
		t.Errorf("list: %+v, %v", all, err)
	}
	s.Groups = nil
	if err := m.Resize(t.Context(), s); err == nil || !strings.Contains(err.Error(), "cannot be changed") {
		t.Errorf("other groups: %v", err)
	}
}

// TestResizeRefused: links of an image's could lead to file systems of the host's.
func TestResizeRefused(t *testing.T) {
	m := &Manager{boxes: map[string]*box{}}
	s := spec("resize-1")
	b := m.newBox(launcher.Sandbox{ID: s.ID, Spec: s})
	b.container = &libcontainer.Container{}
	close(b.ready)
	m.boxes[s.ID] = b
	image := s
	image.Image = strings.Repeat("0", 64)
	if err := m.Resize(t.Context(), image); err == nil || !strings.Contains(err.Error(), "cannot be changed") {
		t.Errorf("to an image: %v", err)
	}
	b.memo.Spec = image
	for _, want := range []launcher.Spec{s, image} {
		if err := m.Resize(t.Context(), want); err == nil || !strings.Contains(err.Error(), "cannot be changed") {
			t.Errorf("of an image: %v", err)
		}
	}
}
