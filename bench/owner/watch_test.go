package owner

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// cgroup makes one out of plain files.
func cgroup(t *testing.T, path string, files map[string]string) string {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(path, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestWatch(t *testing.T) {
	root := t.TempDir()
	job := cgroup(t, filepath.Join(root, "memory/slurm_n1/uid_0/job_1"), map[string]string{"memory.usage_in_bytes": "5000\n"})
	full := cgroup(t, filepath.Join(root, "memory/gleaner/n1/7-1"), map[string]string{"memory.usage_in_bytes": "9000000\n", "memory.stat": "cache 0\nrss 8000000\n"})
	cgroup(t, filepath.Join(root, "memory/gleaner/n1/parked"), map[string]string{"memory.usage_in_bytes": "3000000\n", "memory.stat": "rss 2000000\n"})
	cached := cgroup(t, filepath.Join(root, "gleaner/n1/7-2"), map[string]string{"memory.current": "9000000\n", "memory.stat": "anon 0\nshmem 1000\nfile 9000000\n"})
	if got := holders(root, "gleaner", "n1", 4_000_000); !slices.Equal(got, []string{full}) {
		t.Errorf("%v hold memory, want %s alone", got, full)
	}
	if got := holders(root, "gleaner", "n1", 0); got != nil {
		t.Errorf("%v hold memory for nobody", got)
	}
	looks := watch(job, []string{full, cached}).end(5 * lookEvery)
	if last := looks[len(looks)-1]; last.left != 1 || last.used != 5000 || last.at <= 0 {
		t.Errorf("the last look: %+v", last)
	}
	if err := os.RemoveAll(full); err != nil {
		t.Fatal(err)
	}
	looks = watch(job, []string{full, cached}).end(time.Hour) // nobody to wait for
	if last := looks[len(looks)-1]; last.left != 0 {
		t.Errorf("the last look: %+v", last)
	}
}

func TestJobFolder(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"v1":      {"9:memory:/slurm_n1/uid_0/job_3/step_0/task_0\n1:cpu:/slurm_n1/uid_0/job_3\n0::/\n", "/sys/fs/cgroup/memory/slurm_n1/uid_0/job_3"},
		"v2":      {"0::/system.slice/n1_slurmstepd.scope/job_3/step_0/user/task_0\n", "/sys/fs/cgroup/system.slice/n1_slurmstepd.scope/job_3"},
		"no step": {"0::/user.slice/session-1.scope\n", ""},
		"nothing": {"", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := jobFolder(test.text); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
