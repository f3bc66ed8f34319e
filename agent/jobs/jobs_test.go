package jobs

import (
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestLook(t *testing.T) {
	procs := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	tests := map[string]struct {
		files fstest.MapFS
		want  Found
	}{
		"nothing": {fstest.MapFS{}, Found{Jobs: map[uint32]bool{}}},
		"v1, several slurmd; another node's and a dead job": {fstest.MapFS{
			"sys/fs/cgroup/freezer/slurm_n1/uid_0/job_12/step_0/task_0/cgroup.procs":     procs("77\n"),
			"sys/fs/cgroup/memory/slurm_n1/uid_1000/job_13/step_extern/cgroup.procs":     procs("78\n"),
			"sys/fs/cgroup/memory/slurm_n1/uid_1000/job_14/step_0/cgroup.procs":          procs(""),
			"sys/fs/cgroup/memory/slurm_n2/uid_1000/job_15/step_0/cgroup.procs":          procs("79\n"),
			"sys/fs/cgroup/memory/slurm/uid_1000/job_16/step_0/cgroup.procs":             procs("80\n"),
			"sys/fs/cgroup/freezer/slurm_n1/system/cgroup.procs":                         procs("81\n"),
			"sys/fs/cgroup/freezer/slurm_n1/uid_0/job_0/cgroup.procs":                    procs("82\n"),
			"sys/fs/cgroup/freezer/slurm_n1/uid_0/job_99999999999999999999/cgroup.procs": procs("82\n"),
		}, Found{Jobs: map[uint32]bool{12: true, 13: true}}},
		"v1, one slurmd": {fstest.MapFS{
			"sys/fs/cgroup/cpuset/slurm/uid_0/job_12/step_batch/cgroup.procs": procs("77\n"),
		}, Found{Jobs: map[uint32]bool{12: true}}},
		"v2": {fstest.MapFS{
			"sys/fs/cgroup/system.slice/slurmstepd.scope/job_12/step_0/user/task_0/cgroup.procs": procs("77\n"),
			"sys/fs/cgroup/system.slice/slurmstepd.scope/job_13/step_0/slurm/cgroup.procs":       procs("78\n"),
			"sys/fs/cgroup/system.slice/slurmstepd.scope/job_14/step_0/user/cgroup.procs":        procs(""),
			"sys/fs/cgroup/system.slice/slurmstepd.scope/system/cgroup.procs":                    procs("79\n"),
		}, Found{Jobs: map[uint32]bool{12: true, 13: true}}},
		"v2, several slurmd": {fstest.MapFS{
			"sys/fs/cgroup/system.slice/n1_slurmstepd.scope/job_12/step_0/slurm/cgroup.procs": procs("77\n"),
			"sys/fs/cgroup/system.slice/n2_slurmstepd.scope/job_13/step_0/slurm/cgroup.procs": procs("78\n"),
		}, Found{Jobs: map[uint32]bool{12: true}}},
		"v2, by SLUID": {fstest.MapFS{
			"sys/fs/cgroup/system.slice/slurmstepd.scope/s1A2B3C4D5E6F7/step_0/slurm/cgroup.procs": procs("77\n"),
			"sys/fs/cgroup/system.slice/slurmstepd.scope/s2A2B3C4D5E6F7/step_0/slurm/cgroup.procs": procs(""),
		}, Found{Jobs: map[uint32]bool{}, Nameless: 1}},
		"step sockets": {fstest.MapFS{
			"var/spool/slurmd/n1_12.0":          {Mode: fs.ModeSocket},
			"var/spool/slurmd/n1_13.4294967291": {Mode: fs.ModeSocket},
			"var/spool/slurmd/n1_14.0":          {Data: []byte("no socket")},
			"var/spool/slurmd/n2_15.0":          {Mode: fs.ModeSocket},
			"var/spool/slurmd/cred_state":       {},
		}, Found{Jobs: map[uint32]bool{12: true, 13: true}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, Scan{FS: test.files, Node: "n1"}.Look()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzNames(f *testing.F) {
	for _, name := range []string{"job_12", "s1A2B3C4D5E6F7", "n1_12.0", "n1_12.4294967291", "n1_12.0.0", "job_"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if job, ok := Folder(name); ok && job == 0 {
			t.Error("job 0 is none")
		}
		if job, ok := StepSocket(name, "n1"); ok && job == 0 {
			t.Error("job 0 is none")
		}
		if SLUID(name) && name[0] != 's' {
			t.Error("a SLUID begins with s")
		}
	})
}
