package confine

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/gleaner-hpc/gleaner/config"
)

// complete is a machine that gives everything.
func complete(unified bool) map[string]string {
	files := map[string]string{
		"proc/sys/kernel/osrelease": "6.1.0-18-amd64\n", "proc/sys/kernel/seccomp/actions_avail": "kill_process errno allow\n",
		"proc/self/oom_score_adj": "0\n", "proc/sys/kernel/unprivileged_bpf_disabled": "2\n",
		"proc/swaps":           "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n",
		"proc/self/mountinfo":  "22 1 0:21 / /proc rw,nosuid - proc proc rw\n23 22 0:34 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw\n",
		"sys/fs/cgroup/.exist": "",
	}
	for _, kind := range []string{"user", "pid", "mnt", "ipc", "uts", "cgroup"} {
		files["proc/sys/user/max_"+kind+"_namespaces"] = "96364\n"
	}
	if unified {
		files["sys/fs/cgroup/cgroup.controllers"] = "cpuset cpu io memory pids\n"
		files["sys/fs/cgroup/system.slice/memory.swap.max"] = "max\n"
		files["sys/fs/cgroup/system.slice/io.weight"] = "default 100\n"
		return files
	}
	for controller, file := range map[string]string{
		"cpu": "cpu.shares", "cpuset": "cpuset.cpus", "memory": "memory.limit_in_bytes", "pids": "tasks", "devices": "devices.list", "blkio": "blkio.bfq.io_serviced",
	} {
		files["sys/fs/cgroup/"+controller+"/"+file] = ""
		files["sys/fs/cgroup/"+controller+"/cgroup.procs"] = ""
	}
	files["sys/fs/cgroup/cpu/cpu.cfs_quota_us"] = "-1"
	files["sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"] = "1"
	return files
}

func tree(files map[string]string) fstest.MapFS {
	all := fstest.MapFS{}
	for name, text := range files {
		all[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return all
}

func missing(findings []Finding) []string {
	var names []string
	for _, f := range findings {
		if !f.Given {
			names = append(names, f.Name)
		}
	}
	return names
}

func TestLook(t *testing.T) {
	for name, c := range map[string]struct {
		unified bool
		change  map[string]string // file to text; "-" removes it
		want    []string
	}{
		"v1 gives all":     {},
		"v2 gives all":     {unified: true},
		"old kernel":       {change: map[string]string{"proc/sys/kernel/osrelease": "5.9.1"}, want: []string{config.GuardKernel, config.GuardReadOnly}},
		"older than 5.12":  {change: map[string]string{"proc/sys/kernel/osrelease": "5.11.0-rc1"}, want: []string{config.GuardReadOnly}},
		"no user ids":      {change: map[string]string{"proc/sys/user/max_user_namespaces": "0"}, want: []string{config.GuardNamespaces}},
		"no seccomp":       {change: map[string]string{"proc/sys/kernel/seccomp/actions_avail": "-"}, want: []string{config.GuardSeccomp}},
		"covered /proc":    {change: map[string]string{"proc/self/mountinfo": "22 1 0:21 / /proc rw - proc proc rw\n23 22 0:5 / /proc/kcore rw - tmpfs tmpfs rw\n"}, want: []string{config.GuardProc}},
		"hidepid":          {change: map[string]string{"proc/self/mountinfo": "22 1 0:21 / /proc rw - proc proc rw,hidepid=invisible\n"}, want: []string{config.GuardIdentity}},
		"hidepid off":      {change: map[string]string{"proc/self/mountinfo": "22 1 0:21 / /proc rw - proc proc rw,hidepid=off\n"}},
		"v1 no quota":      {change: map[string]string{"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-"}, want: []string{config.GuardCPUQuota}},
		"v1 no cpuset":     {change: map[string]string{"sys/fs/cgroup/cpuset/cgroup.procs": "-"}, want: []string{config.GuardCPUSet}},
		"v1 no memory":     {change: map[string]string{"sys/fs/cgroup/memory/memory.limit_in_bytes": "-"}, want: []string{config.GuardMemory}},
		"v1 swap":          {change: map[string]string{"sys/fs/cgroup/memory/memory.memsw.limit_in_bytes": "-"}, want: []string{config.GuardSwap}},
		"v1 swap is off":   {change: map[string]string{"sys/fs/cgroup/memory/memory.memsw.limit_in_bytes": "-", "proc/swaps": "Filename Type Size Used Priority\n"}},
		"v1 no io":         {change: map[string]string{"sys/fs/cgroup/blkio/blkio.bfq.io_serviced": "-"}, want: []string{config.GuardIO}},
		"v1 no pids":       {change: map[string]string{"sys/fs/cgroup/pids/cgroup.procs": "-"}, want: []string{config.GuardProcesses}},
		"v1 no devices":    {change: map[string]string{"sys/fs/cgroup/devices/cgroup.procs": "-"}, want: []string{config.GuardDevices}},
		"v2 without cpu":   {unified: true, change: map[string]string{"sys/fs/cgroup/cgroup.controllers": "cpuset io memory pids"}, want: []string{config.GuardCPUQuota, config.GuardCPULast}},
		"v2 without io":    {unified: true, change: map[string]string{"sys/fs/cgroup/system.slice/io.weight": "-"}, want: []string{config.GuardIO}},
		"v2 without bpf":   {unified: true, change: map[string]string{"proc/sys/kernel/unprivileged_bpf_disabled": "-"}, want: []string{config.GuardDevices}},
		"no oom_score_adj": {change: map[string]string{"proc/self/oom_score_adj": "-"}, want: []string{config.GuardOOM}},
	} {
		t.Run(name, func(t *testing.T) {
			files := complete(c.unified)
			maps.Copy(files, c.change)
			maps.DeleteFunc(files, func(_, text string) bool { return text == "-" })
			findings := Look(tree(files), nil)
			if got := missing(findings); !slices.Equal(got, c.want) {
				t.Errorf("missing %v, want %v", got, c.want)
			}
			if objection := Objection(findings); (objection == "") != (c.want == nil) || c.want != nil && !strings.Contains(objection, c.want[0]) {
				t.Errorf("objection %q", objection)
			}
			if objection := Objection(Look(tree(files), c.want)); objection != "" {
				t.Errorf("all waived by name, and still %q", objection)
			}
		})
	}
}

// TestNames: what can be missing can be waived, and nothing else.
func TestNames(t *testing.T) {
	var names []string
	for _, f := range Look(tree(nil), []string{config.GuardSwap}) {
		names = append(names, f.Name)
		if f.Promise == "" || f.Given && f.Why != "" || !f.Given && f.Why == "" || f.Waived != (f.Name == config.GuardSwap) {
			t.Errorf("%+v", f)
		}
	}
	if !slices.Equal(names, config.Guards) {
		t.Errorf("guards %v, config knows %v", names, config.Guards)
	}
}

// TestThisMachine: the real files are read, whatever they say.
func TestThisMachine(t *testing.T) {
	findings := Look(os.DirFS("/"), nil)
	t.Logf("missing here: %v", missing(findings))
	if slices.Contains(missing(findings), config.GuardOOM) {
		t.Error("a Linux without oom_score_adj")
	}
}
