package slack

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkSample is one sample of 64 job cgroups, real ones where they can be made. %core is what it costs once a second.
func BenchmarkSample(b *testing.B) {
	node := fmt.Sprintf("bench%d", os.Getpid())
	dirs := []string{filepath.Join("/sys/fs/cgroup/memory/slurm_" + node), filepath.Join("/sys/fs/cgroup/cpuacct/slurm_" + node)}
	layout := "uid_1000/job_%d"
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err != nil {
		dirs, layout = []string{"/sys/fs/cgroup/system.slice/" + node + "_slurmstepd.scope"}, "job_%d"
	}
	b.Cleanup(func() {
		for _, dir := range dirs {
			for i := range 64 {
				_ = os.Remove(filepath.Join(dir, fmt.Sprintf(layout, i+1)))
			}
			_ = os.Remove(filepath.Join(dir, "uid_1000"))
			_ = os.Remove(dir)
		}
	})
	for _, dir := range dirs {
		for i := range 64 {
			if err := os.MkdirAll(filepath.Join(dir, fmt.Sprintf(layout, i+1)), 0o755); err != nil {
				b.Skip("job cgroups cannot be made here: ", err)
			}
		}
	}
	s := New(Config{FS: os.DirFS("/"), Node: node})
	defer s.Close()
	lender := NewLender(Rule{})
	var meter Meter
	now := time.Now()
	sample := func() {
		now = now.Add(time.Second)
		got := s.Sample(now)
		lender.Note(got)
		_, _ = meter.Note(got)
		if len(got.Jobs) != 64 {
			b.Fatalf("%d jobs, missing %v", len(got.Jobs), got.Missing)
		}
	}
	sample()
	before := processTime(b)
	n := 0
	for b.Loop() {
		sample()
		n++
	}
	b.ReportMetric(100*(processTime(b)-before).Seconds()/float64(n), "%core")
}

func processTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
