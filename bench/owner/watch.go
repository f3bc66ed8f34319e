package owner

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Names on cgroup v1 and v2.
var (
	usageFiles = [2]string{"memory.usage_in_bytes", "memory.current"}
	limitFiles = [2]string{"memory.limit_in_bytes", "memory.max"}
)

// lookEvery is the watcher's step; emptied is what a dead executor's cgroup may still be charged.
const (
	lookEvery = time.Millisecond
	emptied   = 1 << 20
)

// watcher looks at a job's memory and at executors' until it is told to stop.
type watcher struct {
	stop  chan time.Duration // for how long to wait for executors that are still there
	looks chan []look
}

func watch(job string, executors []string) *watcher {
	w := &watcher{stop: make(chan time.Duration, 1), looks: make(chan []look, 1)}
	go func() { w.looks <- w.run(job, executors) }()
	return w
}

// end waits until every executor is gone, but not for longer than patience.
func (w *watcher) end(patience time.Duration) []look {
	w.stop <- patience
	return <-w.looks
}

func (w *watcher) run(job string, executors []string) []look {
	var looks []look
	var until <-chan time.Time
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		l := look{at: monotonic()}
		l.used, _ = amount(job, usageFiles)
		for _, folder := range executors {
			if held, ok := amount(folder, usageFiles); ok && held > emptied && charged(filepath.Join(folder, "memory.stat")) > emptied {
				l.left++
			}
		}
		looks = append(looks, l)
		if until != nil && l.left == 0 {
			return looks
		}
		select {
		case <-tick.C:
		case patience := <-w.stop:
			until = time.After(patience)
		case <-until:
			return looks
		}
	}
}

// holders are the cgroups below <parent>/<node> that hold at least so much.
func holders(root, parent, node string, least uint64) []string {
	var found []string
	for _, top := range []string{root, filepath.Join(root, "memory")} {
		groups, _ := filepath.Glob(filepath.Join(top, parent, node, "*"))
		for _, group := range groups {
			if least > 0 && charged(filepath.Join(group, "memory.stat")) >= least {
				found = append(found, group)
			}
		}
	}
	return found
}

// jobFolder is where the memory of a job's process is counted, by its /proc/PID/cgroup.
func jobFolder(text string) string {
	for _, hierarchy := range [2][2]string{{":memory:", "memory"}, {"0::", ""}} {
		for line := range strings.Lines(text) {
			_, path, found := strings.Cut(line, hierarchy[0])
			folder, _, step := strings.Cut(path, "/step_")
			if found && step {
				return filepath.Join(cgroupRoot, hierarchy[1], folder)
			}
		}
	}
	return ""
}

// amount reads the first of a cgroup's files that is there and holds a number.
func amount(folder string, names [2]string) (uint64, bool) {
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			continue
		}
		bytes, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
		return bytes, err == nil
	}
	return 0, false
}

// monotonic is the clock that the job tells its times by.
func monotonic() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return time.Duration(t.Nano())
}

// shortage counts what happened for lack of memory since the machine started.
type shortage struct {
	kills uint64 // of anything on the machine
	hits  uint64 // that somebody had to free memory to get some: on the machine, or in a cgroup above the job's
}

func short(job string) shortage {
	var s shortage
	text, _ := os.ReadFile("/proc/vmstat")
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, _ := strconv.ParseUint(value, 10, 64)
		switch {
		case key == "oom_kill":
			s.kills = n
		case strings.HasPrefix(key, "allocstall_"):
			s.hits += n
		}
	}
	for ; len(job) > len(cgroupRoot); job = filepath.Dir(job) {
		hits, _ := amount(job, [2]string{"memory.failcnt"}) // v1 alone has it
		s.hits += hits
	}
	return s
}
