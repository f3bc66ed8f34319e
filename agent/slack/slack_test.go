package slack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var start = time.Unix(1_000_000, 0)

// tree makes a file system of texts.
func tree(texts map[string]string) fstest.MapFS {
	t := fstest.MapFS{}
	for name, text := range texts {
		t[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return t
}

func psi(microseconds int) string {
	return fmt.Sprintf("some avg10=1.00 avg60=0.50 avg300=0.10 total=%d\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", microseconds)
}

// v2 is a job's folder as cgroup v2 has it.
func v2(texts map[string]string, dir string, current, peak, waited int) {
	for name, text := range map[string]string{
		"memory.current": fmt.Sprintln(current), "memory.peak": fmt.Sprintln(peak), "cpu.stat": "usage_usec 5000000\nuser_usec 1\n",
		"memory.stat":  "anon 100\nfile 60\ninactive_anon 1\nactive_file 20\ninactive_file 40\n",
		"cpu.pressure": psi(waited), "memory.pressure": psi(waited + 1), "io.pressure": psi(waited + 2),
	} {
		texts[dir+"/"+name] = text
	}
}

func TestLayouts(t *testing.T) {
	want := Job{ID: 7, Memory: Memory{Current: 1000, Peak: 2000, Working: 960}, CPU: 5 * time.Second}
	withPSI := want
	withPSI.Waits = Waits{10 * time.Microsecond, 11 * time.Microsecond, 12 * time.Microsecond}
	noPSI := want
	noPSI.NoWaits = true
	noPeak := withPSI
	noPeak.Memory.Peak = 0
	scope := "sys/fs/cgroup/system.slice/slurmstepd.scope/"
	for name, test := range map[string]struct {
		make    func(texts map[string]string)
		jobs    []Job
		missing []string
	}{
		"v2": {func(m map[string]string) { v2(m, scope+"job_7", 1000, 2000, 10) }, []Job{withPSI}, []string{"bandwidth"}},
		"v2, several slurmd": {func(m map[string]string) {
			v2(m, "sys/fs/cgroup/system.slice/n1_slurmstepd.scope/job_7", 1000, 2000, 10)
			v2(m, "sys/fs/cgroup/system.slice/n2_slurmstepd.scope/job_8", 1, 2, 10)
		}, []Job{withPSI}, []string{"bandwidth"}},
		"hybrid": {func(m map[string]string) {
			v2(m, "sys/fs/cgroup/unified/system.slice/slurmstepd.scope/job_7", 1000, 2000, 10)
		}, []Job{withPSI}, []string{"bandwidth"}},
		"SLUID": {func(m map[string]string) {
			v2(m, scope+"s0123456789ABC", 1000, 2000, 10)
			m[scope+"s0123456789ABC/step_extern/slurm/cgroup.procs"] = "41\n42\n"
			m["proc/41/cmdline"] = "sleep\x00100\x00"
			m["proc/42/cmdline"] = "slurmstepd: [7.extern]\x00\x00"
		}, []Job{withPSI}, []string{"bandwidth"}},
		"SLUID of nobody known": {func(m map[string]string) { v2(m, scope+"s0123456789ABC", 1000, 2000, 10) }, nil, []string{"bandwidth"}},
		"a kernel without memory.peak": {func(m map[string]string) {
			v2(m, scope+"job_7", 1000, 2000, 10)
			delete(m, scope+"job_7/memory.peak")
		}, []Job{noPeak}, []string{"bandwidth"}},
		"v1":                 {func(m map[string]string) { v1(m, "slurm_n1", 7) }, []Job{noPSI}, []string{"psi.job", "bandwidth"}},
		"v1, one slurmd":     {func(m map[string]string) { v1(m, "slurm", 7) }, []Job{noPSI}, []string{"psi.job", "bandwidth"}},
		"v1, another's jobs": {func(m map[string]string) { v1(m, "slurm_n2", 7) }, nil, []string{"cgroup", "bandwidth"}},
		"resctrl": {func(m map[string]string) {
			v2(m, scope+"job_7", 1000, 2000, 10)
			m["sys/fs/resctrl/mon_data/mon_L3_00/mbm_total_bytes"] = "300\n"
			m["sys/fs/resctrl/mon_data/mon_L3_01/mbm_total_bytes"] = "Unavailable\n"
		}, []Job{withPSI}, nil},
		"no PSI at all": {func(m map[string]string) {
			v1(m, "slurm", 7)
			for _, what := range []string{"cpu", "memory", "io"} {
				delete(m, "proc/pressure/"+what)
			}
		}, []Job{noPSI}, []string{"psi", "bandwidth"}},
		"nothing": {func(m map[string]string) { clear(m) }, nil, []string{"cgroup", "psi", "bandwidth"}},
	} {
		t.Run(name, func(t *testing.T) {
			texts := map[string]string{"proc/pressure/cpu": psi(1), "proc/pressure/memory": psi(2), "proc/pressure/io": psi(3)}
			test.make(texts)
			s := New(Config{FS: tree(texts), Node: "n1"})
			defer s.Close()
			for range 2 { // with files opened and with files kept open
				got := s.Sample(start)
				if diff := cmp.Diff(test.jobs, got.Jobs); diff != "" {
					t.Error(diff)
				}
				if diff := cmp.Diff(test.missing, got.Missing); diff != "" {
					t.Errorf("missing: %s", diff)
				}
			}
		})
	}
}

// v1 is a job as cgroup v1 has it.
func v1(texts map[string]string, top string, job int) {
	memory := fmt.Sprintf("sys/fs/cgroup/memory/%s/uid_1000/job_%d/", top, job)
	texts[memory+"memory.usage_in_bytes"], texts[memory+"memory.max_usage_in_bytes"] = "1000\n", "2000\n"
	texts[memory+"memory.stat"] = "cache 60\ninactive_file 1\ntotal_inactive_file 40\n"
	texts[fmt.Sprintf("sys/fs/cgroup/cpuacct/%s/uid_1000/job_%d/cpuacct.usage", top, job)] = "5000000000\n"
}

// Files stay open from one sample to the next; those of jobs that have left are closed.
func TestJobsComeAndGo(t *testing.T) {
	root := t.TempDir()
	scope := filepath.Join(root, "sys/fs/cgroup/system.slice/slurmstepd.scope")
	write := func(job, current string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(scope, job), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(scope, job, "memory.current"), []byte(current), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("job_1", "10\n")
	write("job_2", "20\n")
	s := New(Config{FS: os.DirFS(root), Node: "n1"})
	defer s.Close()
	check := func(want ...Job) {
		t.Helper()
		if diff := cmp.Diff(want, s.Sample(start).Jobs, cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	}
	job := func(id uint32, current uint64) Job {
		return Job{ID: id, Memory: Memory{Current: current, Working: current}, NoWaits: true}
	}
	check(job(1, 10), job(2, 20))
	write("job_2", "30000\n")
	if err := os.RemoveAll(filepath.Join(scope, "job_1")); err != nil {
		t.Fatal(err)
	}
	check(job(2, 30000))
	if len(s.jobs) != 1 {
		t.Errorf("%d jobs are kept", len(s.jobs))
	}
}

func TestGPUs(t *testing.T) {
	fails := errors.New("driver is gone")
	s := New(Config{FS: tree(nil), GPUs: func() ([]GPU, error) { return nil, fails }})
	if got := s.Sample(start); !cmp.Equal(got.Missing, []string{"cgroup", "psi", "bandwidth", "nvml"}) {
		t.Errorf("missing %v", got.Missing)
	}
}

// at is a sample of one job, so many milliseconds after the start.
func at(ms int, current, peak uint64, waited time.Duration) Sample {
	return Sample{At: start.Add(time.Duration(ms) * time.Millisecond), Jobs: []Job{{ID: 7, Memory: Memory{Current: current, Peak: peak}, Waits: Waits{Memory: waited}}}}
}

const gib = 1 << 30

func TestLender(t *testing.T) {
	rule := Rule{Window: 100 * time.Second, Settle: 10 * time.Second, Margin: gib, Ahead: 500 * time.Millisecond}
	for name, test := range map[string]struct {
		samples []Sample
		want    uint64 // of 32 GiB
	}{
		"unknown":                       {nil, 0},
		"too young":                     {[]Sample{at(0, 4*gib, 0, 0), at(9_000, 4*gib, 0, 0)}, 0},
		"settled":                       {[]Sample{at(0, 4*gib, 0, 0), at(10_000, 4*gib, 0, 0)}, 26 * gib}, // a sixteenth is 2 GiB
		"the most within the window":    {[]Sample{at(0, 20*gib, 0, 0), at(50_000, 4*gib, 0, 0)}, 10 * gib},
		"what it used long ago":         {[]Sample{at(0, 20*gib, 0, 0), at(150_000, 4*gib, 0, 0)}, 26 * gib},
		"between two samples":           {[]Sample{at(0, 4*gib, 4*gib, 0), at(20_000, 4*gib, 20*gib, 0)}, 10 * gib},
		"a peak of before the window":   {[]Sample{at(0, 4*gib, 20*gib, 0), at(150_000, 4*gib, 20*gib, 0)}, 26 * gib},
		"it grows at 8 GiB a second":    {[]Sample{at(0, 4*gib, 0, 0), at(20_000, 4*gib, 0, 0), at(20_100, 4*gib+8*gib/10, 0, 0)}, 32*gib - (4*gib + 8*gib/10) - 4*gib},
		"it waits for memory":           {[]Sample{at(0, 4*gib, 0, 0), at(20_000, 4*gib, 0, 0), at(21_000, 4*gib, 0, 100*time.Millisecond)}, 0},
		"it waited for memory long ago": {[]Sample{at(0, 4*gib, 0, 0), at(1_000, 4*gib, 0, 100*time.Millisecond), at(90_000, 4*gib, 0, 100*time.Millisecond)}, 26 * gib},
		"it uses all":                   {[]Sample{at(0, 32*gib, 0, 0), at(20_000, 32*gib, 0, 0)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := NewLender(rule)
			for _, s := range test.samples {
				l.Note(s)
			}
			got := l.Lendable(7, 32*gib)
			if diff := int64(got) - int64(test.want); diff > 1<<20 || diff < -1<<20 {
				t.Errorf("got %d MiB, want %d MiB", got>>20, test.want>>20)
			}
		})
	}
}

func TestMeter(t *testing.T) {
	var m Meter
	job := func(id uint32, cpu time.Duration, noWaits bool) Job {
		return Job{ID: id, Waits: Waits{CPU: cpu}, NoWaits: noWaits}
	}
	for i, test := range []struct {
		sample Sample
		want   Stalls
		told   bool
	}{
		{Sample{Jobs: []Job{job(1, 0, false), job(2, 0, false)}}, Stalls{}, false},
		{Sample{Jobs: []Job{job(1, 100*time.Millisecond, false), job(2, 300*time.Millisecond, false)}, Bytes: 100e9}, Stalls{CPU: 0.3, Bandwidth: 1}, true},
		{Sample{Jobs: []Job{job(2, 2*time.Second, false), job(3, time.Hour, false)}, Bytes: 150e9}, Stalls{CPU: 1, Bandwidth: 0.5}, true},
		{Sample{Jobs: []Job{job(3, time.Hour, true)}, Node: Waits{IO: 500 * time.Millisecond}, Bytes: 150e9, Missing: []string{"psi.job"}}, Stalls{IO: 0.5}, true},
		{Sample{Jobs: []Job{job(3, time.Hour, true)}, Bytes: 150e9, Missing: []string{"psi"}}, Stalls{Missing: []string{"cpu", "memory", "io"}}, true},
		{Sample{Bytes: 160e9}, Stalls{Bandwidth: 0.1}, true},
	} {
		test.sample.At = start.Add(time.Duration(i) * time.Second)
		got, told := m.Note(test.sample)
		if diff := cmp.Diff(test.want, got); diff != "" || told != test.told {
			t.Errorf("sample %d: told %t %s", i, told, diff)
		}
	}
}

// A bus counts as one that moves 10 GB/s until it moves more.
func TestMeterOfAQuietJob(t *testing.T) {
	var m Meter
	m.Note(Sample{At: start})
	if got, _ := m.Note(Sample{At: start.Add(time.Second), Bytes: 500e6}); got.Bandwidth != 0.05 {
		t.Errorf("bandwidth %v, want 0.05", got.Bandwidth)
	}
}

// What cannot be told is named; what is not told yet, or for a moment, is neither named nor taken for nothing.
func TestMeterOfASourceThatFails(t *testing.T) {
	const speaks, silent = true, false
	type step struct {
		ms        int
		speaks    bool
		gigabytes uint64
		told      bool
		bandwidth float64
		missing   bool
	}
	for name, steps := range map[string][]step{
		"never there":        {{0, silent, 0, false, 0, false}, {500, silent, 0, true, 0, true}, {1000, silent, 0, true, 0, true}},
		"late by one sample": {{0, silent, 0, false, 0, false}, {500, speaks, 10, false, 0, false}, {1000, speaks, 20, true, 1, false}},
		"gone after its first word": {
			{0, speaks, 0, false, 0, false}, {500, silent, 0, false, 0, false}, {2000, silent, 0, false, 0, false}, {2500, silent, 0, true, 0, true},
		},
		"a gap": {
			{0, speaks, 0, false, 0, false}, {500, speaks, 100, true, 1, false}, {1000, speaks, 150, true, 0.5, false}, {1500, silent, 0, true, 0.5, false},
			{2000, speaks, 1000, true, 0.5, false}, {2500, speaks, 1025, true, 0.25, false},
		},
		"gone for good": {
			{0, speaks, 0, false, 0, false}, {500, speaks, 100, true, 1, false}, {1000, silent, 0, true, 1, false}, {2500, silent, 0, true, 1, false},
			{3000, silent, 0, true, 0, true}, {3500, speaks, 0, false, 0, false}, {4000, speaks, 50, true, 0.5, false},
		},
		"seldom looked at": {
			{0, speaks, 0, false, 0, false}, {10_000, speaks, 100, true, 1, false}, {20_000, silent, 0, true, 1, false}, {30_000, silent, 0, true, 1, false}, {40_000, silent, 0, true, 0, true},
		},
		"no job for an hour": {
			{0, speaks, 0, false, 0, false}, {500, speaks, 100, true, 1, false}, {3_600_000, speaks, 200, false, 0, false}, {3_600_500, speaks, 250, true, 0.5, false},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var m Meter
			for _, s := range steps {
				sample := Sample{At: start.Add(time.Duration(s.ms) * time.Millisecond), Bytes: s.gigabytes * 1e9}
				if !s.speaks {
					sample.Missing = []string{"bandwidth"}
				}
				want := Stalls{Bandwidth: s.bandwidth}
				if s.missing {
					want.Missing = []string{"bandwidth"}
				}
				got, told := m.Note(sample)
				if diff := cmp.Diff(want, got); diff != "" || told != s.told {
					t.Errorf("after %d ms: told %t %s", s.ms, told, diff)
				}
			}
		})
	}
}
