package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fake is a machine made of files: node n1 of 8 cores and 4000 MB, with job 7, whose process 100 is the witness.
type fake struct {
	t    *testing.T
	root string
	jobs map[string]string // id to "CPU_IDs=... Mem=..."
}

func newFake(t *testing.T, ids string, mem int) *fake {
	f := &fake{t: t, root: t.TempDir(), jobs: map[string]string{}}
	f.job("7", ids, mem)
	f.process(100, "witness", "/slurm_n1/uid_0/job_7/step_batch", "0-7")
	f.write("proc/self-pid", "100")
	return f
}

func (f *fake) write(path, text string) {
	f.t.Helper()
	path = filepath.Join(f.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fake) process(pid int, comm, cgroup, cpus string) {
	dir := fmt.Sprintf("proc/%d/", pid)
	f.write(dir+"comm", comm)
	f.write(dir+"cgroup", "4:memory:"+cgroup+"\n0::/init")
	f.write(dir+"status", "Name:\t"+comm+"\nState:\tS (sleeping)\nCpus_allowed_list:\t"+cpus)
}

func (f *fake) job(id, ids string, mem int) {
	f.jobs[id] = fmt.Sprintf("JobId=%s JobState=RUNNING NodeList=n[1-2] Nodes=n[1-2] CPU_IDs=%s Mem=%d GRES=", id, ids, mem)
}

// executor makes one of the given cores and MiB, with a process.
func (f *fake) executor(node, id string, pid, cores, mib int) {
	f.write("sys/fs/cgroup/cpu/gleaner/"+node+"/"+id+"/cpu.cfs_quota_us", fmt.Sprint(cores*100000))
	f.write("sys/fs/cgroup/memory/gleaner/"+node+"/"+id+"/memory.limit_in_bytes", fmt.Sprint(mib<<20))
	f.write("sys/fs/cgroup/memory/gleaner/"+node+"/"+id+"/memory.usage_in_bytes", "0")
	if pid > 0 {
		f.process(pid, "worker", "/gleaner/"+node+"/"+id, "0-7")
	}
}

// device makes a device node, which needs root.
func (f *fake) device(path string, major, minor uint32) {
	f.t.Helper()
	if os.Getuid() != 0 {
		f.t.Skip("makes a device node: needs root")
	}
	path = filepath.Join(f.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(major, minor))); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fake) scontrol(args ...string) (string, error) {
	if args[1] == "node" {
		return "NodeName=" + args[2] + " CPUAlloc=0 CPUTot=8 RealMemory=4000 AllocMem=0", nil
	}
	if text, ok := f.jobs[args[len(args)-1]]; ok {
		return text, nil
	}
	return "", errors.New("no such job")
}

func (f *fake) look(env ...string) Finding {
	return look(machine{root: f.root, scontrol: f.scontrol}, "gleaner", job{func(name string) string {
		for _, e := range append(env, "SLURM_JOB_ID=7", "SLURMD_NODENAME=n1") {
			if v, ok := strings.CutPrefix(e, name+"="); ok {
				return v
			}
		}
		return ""
	}})
}

func TestLook(t *testing.T) {
	tests := map[string]struct {
		ids  string // of the job's cores
		mem  int
		set  func(*fake)
		env  []string
		want string // part of the violation; empty: the owner came first
	}{
		"alone":                        {ids: "0-7", mem: 1000},
		"executor on another node":     {ids: "0-7", mem: 1000, set: func(f *fake) { f.executor("n2", "1-1", 200, 8, 100) }},
		"executor on a node had alone": {ids: "0-7", mem: 1000, set: func(f *fake) { f.executor("n1", "1-1", 200, 1, 100) }, want: "1-1 still has processes [200]"},
		"process deeper below":         {ids: "0-7", mem: 1000, set: func(f *fake) { f.process(200, "x", "/gleaner/n1/1-1/deep/er", "0") }, want: "[200]"},
		"zombie": {ids: "0-7", mem: 1000, set: func(f *fake) {
			f.executor("n1", "1-1", 200, 1, 100)
			f.write("proc/200/status", "State:\tZ (zombie)")
		}},
		"empty cgroup": {ids: "0-7", mem: 1000, set: func(f *fake) { f.executor("n1", "1-1", 0, 1, 100) }},
		"empty cgroup with memory": {ids: "0-7", mem: 1000, set: func(f *fake) {
			f.executor("n1", "1-1", 0, 1, 100)
			f.write("sys/fs/cgroup/memory/gleaner/n1/1-1/memory.usage_in_bytes", "99999999")
		}, want: "still holds 99999999 bytes"},
		"empty cgroup with memory beside the job": {ids: "0-1", mem: 3000, set: func(f *fake) {
			f.executor("n1", "1-1", 0, 1, 100)
			f.write("sys/fs/cgroup/memory/gleaner/n1/1-1/memory.usage_in_bytes", "99999999")
		}},
		"empty cgroup with too much memory": {ids: "0-1", mem: 3950, set: func(f *fake) {
			f.executor("n1", "1-1", 0, 1, 100)
			f.write("sys/fs/cgroup/memory/gleaner/n1/1-1/memory.usage_in_bytes", "99999999")
		}, want: "do not fit into 4000 MiB"},
		"memory of a cgroup that is gone": {ids: "0-7", mem: 1000, set: func(f *fake) {
			f.write("sys/fs/cgroup/memory/gleaner/n1/memory.stat", "cache 5\ntotal_cache 99999999\ntotal_rss 8888888")
		}, want: "8888888 bytes that nobody can reclaim"},
		"GPU under another name": {ids: "0-1", mem: 100, env: []string{"SLURM_JOB_GPUS=1"}, set: func(f *fake) {
			f.executor("n1", "1-1", 200, 1, 100)
			f.device("proc/200/root/dev/gpu-x", 195, 1)
		}, want: "GPU 1 of the job in its /dev"},
		"beside each other": {ids: "0-5", mem: 1000, set: func(f *fake) { f.executor("n1", "1-1", 200, 2, 100) }},
		"one core too many": {ids: "0-5", mem: 1000, set: func(f *fake) { f.executor("n1", "1-1", 200, 3, 100) }, want: "3.00 cores and 6 cores of jobs do not fit into 8"},
		"too much memory":   {ids: "0-5", mem: 3950, set: func(f *fake) { f.executor("n1", "1-1", 200, 1, 100) }, want: "do not fit into 4000 MiB"},
		"no bound on memory": {ids: "0-5", mem: 100, set: func(f *fake) {
			f.executor("n1", "1-1", 200, 1, 100)
			f.write("sys/fs/cgroup/memory/gleaner/n1/1-1/memory.limit_in_bytes", "max")
		}, want: "no bound on its memory"},
		"another job counts": {ids: "0-3", mem: 100, set: func(f *fake) {
			f.executor("n1", "1-1", 200, 2, 100)
			f.job("8", "4-6", 100)
			f.process(300, "sleep", "/slurm_n1/uid_0/job_8/step_0/task_0", "0-7")
		}, want: "7 cores of jobs"},
		"not started job waits": {ids: "0-3", mem: 100, set: func(f *fake) {
			f.executor("n1", "1-1", 200, 2, 100)
			f.job("8", "4-6", 100)
			f.process(300, "sleep", "/slurm_n1/uid_0/job_8/step_extern", "0-7")
		}},
		"cgroup v2": {ids: "0-7", mem: 100, set: func(f *fake) {
			f.write("sys/fs/cgroup/gleaner/n1/2-1/cpu.max", "100000 100000")
			f.process(200, "worker", "/gleaner/n1/2-1", "0")
		}, want: "2-1 still has processes"},
		"affinity where jobs are bound": {ids: "0-1", mem: 100, set: func(f *fake) {
			f.executor("n1", "1-1", 200, 1, 100)
			f.write("sys/fs/cgroup/cpuset/slurm_n1/uid_0/job_7/step_batch/cpuset.cpus", "0-1")
		}, want: "may run on core 0 of the job"},
		"GPU of the job": {ids: "0-1", mem: 100, env: []string{"SLURM_JOB_GPUS=1"}, set: func(f *fake) {
			f.executor("n1", "1-1", 200, 1, 100)
			f.write("sys/fs/cgroup/devices/gleaner/n1/1-1/devices.list", "c 1:3 rwm\nc 195:1 rwm")
		}, want: "GPU 1"},
		"stray": {ids: "0-1", mem: 100, set: func(f *fake) {
			f.process(200, "worker", "/elsewhere", "0")
			if err := os.Symlink("/usr/libexec/gleaner/worker", filepath.Join(f.root, "proc/200/exe")); err != nil {
				f.t.Fatal(err)
			}
		}, want: "outside of gleaner"},
		"no sandbox at all": {ids: "0-1", mem: 100, set: func(f *fake) {
			f.process(200, "worker", "/elsewhere", "0")
			for name, to := range map[string]string{"200/exe": "/usr/libexec/gleaner/worker", "200/ns/mnt": "mnt:[1]", "100/ns/mnt": "mnt:[1]"} {
				f.write("proc/"+name+".part", "")
				if err := os.Symlink(to, filepath.Join(f.root, "proc", name)); err != nil {
					f.t.Fatal(err)
				}
			}
		}},
		"scontrol fails": {ids: "0-1", mem: 100, set: func(f *fake) { delete(f.jobs, "7") }, want: "cannot tell"},
		"no job":         {ids: "0-1", mem: 100, env: []string{"SLURM_JOB_ID="}, want: "no Slurm job"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, test.ids, test.mem)
			if test.set != nil {
				test.set(f)
			}
			got := f.look(test.env...)
			if got.OwnerFirst != (test.want == "") || !strings.Contains(strings.Join(got.Violations, "\n"), test.want) {
				t.Errorf("owner_first %t, violations %q; want %q", got.OwnerFirst, got.Violations, test.want)
			}
		})
	}
}

func TestExpand(t *testing.T) {
	for list, want := range map[string][]string{"a": {"a"}, "n[1-3,7],m5": {"n1", "n2", "n3", "n7", "m5"}, "n[08-10]": {"n08", "n09", "n10"}, "": nil} {
		if got := expand(list); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", list, got, want)
		}
	}
	if got := cpuList("0-2,5"); !slices.Equal(got, []int{0, 1, 2, 5}) {
		t.Errorf("got %v", got)
	}
}
