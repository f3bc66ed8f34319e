package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/fscommon"
	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

const cgroupRoot = "/sys/fs/cgroup"

// freeEnough is the memory that may stay charged to an ended sandbox: the kernel's own bookkeeping for its cgroup.
const freeEnough = 1 << 20

// group is the cgroup of one sandbox, or of a node: its path in each hierarchy. On v2 there is one, on v1 one per controller, on a hybrid
// host both.
type group string

func (m *Manager) group(id string) group {
	return group(filepath.Join(m.cfg.CgroupParent, m.cfg.Node, id))
}

// pick gives the name of a file on v1 or on v2.
func pick(v1, v2 string) string {
	if cgroups.IsCgroup2UnifiedMode() {
		return v2
	}
	return v1
}

// dir is the folder in which the files of a controller are.
func (g group) dir(controller string) string {
	return filepath.Join(cgroupRoot, pick(controller, ""), string(g))
}

// dirs are the folders that are there, in all hierarchies; one that links name twice comes twice.
func (g group) dirs() []string {
	all, _ := filepath.Glob(g.dir("*"))
	return all
}

func (g group) cpuNanos() uint64 {
	if cgroups.IsCgroup2UnifiedMode() {
		us, _ := fscommon.GetValueByKey(g.dir(""), "cpu.stat", "usage_usec")
		return us * 1000
	}
	ns, _ := fscommon.GetCgroupParamUint(g.dir("cpuacct"), "cpuacct.usage")
	return ns
}

func (g group) charged() uint64 {
	bytes, _ := fscommon.GetCgroupParamUint(g.dir("memory"), pick("memory.usage_in_bytes", "memory.current"))
	return bytes
}

func (g group) memory() (charged, peak uint64) {
	charged = g.charged()
	peak, _ = fscommon.GetCgroupParamUint(g.dir("memory"), pick("memory.max_usage_in_bytes", "memory.peak")) // memory.peak: Linux 5.19
	return charged, max(peak, charged)
}

// oomKills counts what the memory limit has killed.
func (g group) oomKills() uint64 {
	n, _ := fscommon.GetValueByKey(g.dir("memory"), pick("memory.oom_control", "memory.events"), "oom_kill")
	return n
}

// free reports whether no process is left and the memory is free again. Page cache that the sandbox was first to touch stays charged
// until the kernel wants it; it is everybody's and free for the taking, and so it does not count.
func (g group) free() bool {
	if len(g.pids()) > 0 {
		return false
	}
	if g.charged() <= freeEnough { // also of a cgroup that is gone
		return true
	}
	own, _ := fscommon.GetValueByKey(g.dir("memory"), "memory.stat", pick("rss", "anon"))
	shared, _ := fscommon.GetValueByKey(g.dir("memory"), "memory.stat", "shmem")
	return own+shared <= freeEnough
}

// pids lists the processes; a sandbox has no cgroup below its own.
func (g group) pids() []int {
	pids, _ := cgroups.GetPids(g.dir("devices"))
	return pids
}

// kill ends every process, frozen or throttled ones too: with a tenth of a CPU its memory would be freed ten times as slowly. It returns
// at once; the processes take as long as their memory is large. Without cgroup.kill processes may be born while it reads the list: the
// death of the sandbox's first process takes those along.
func (g group) kill() {
	pids, whole := g.pids(), cgroups.WriteFile(g.dir("unified"), "cgroup.kill", "1") == nil
	for _, pid := range pids {
		_ = whole || unix.Kill(pid, unix.SIGKILL) == nil // by number, which may be another's by now, only where that is all there is
		var size, resident int                           // pages
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		_, _ = fmt.Sscan(string(text), &size, &resident)
		if resident*os.Getpagesize() >= largeSandbox {
			go release(pid)
		}
	}
	_ = cgroups.WriteFile(g.dir("freezer"), pick("freezer.state", "cgroup.freeze"), pick("THAWED", "0"))
	_ = cgroups.WriteFile(g.dir("cpu"), pick("cpu.shares", "cpu.weight"), pick("1024", "100"))
	_ = cgroups.WriteFile(g.dir("cpu"), pick("cpu.cfs_quota_us", "cpu.max"), pick("-1", "max"))
}

// release frees a dying process's memory from this side, at the same time as the process does so itself. The kernel refuses it
// for a process that is not dying, so that a pid used again is in no danger.
func release(pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(fd) }()
	for errno := unix.EAGAIN; errno == unix.EAGAIN || errno == unix.EINTR; {
		_, _, errno = unix.Syscall(unix.SYS_PROCESS_MRELEASE, uintptr(fd), 0, 0)
	}
}

// Weights count among neighbours only, so that what a sandbox has of its own says nothing against a job: the cgroups above it come last
// wherever the kernel lets a group do so. While a kill is under way they come among the others: the dying have work to do. An idle group
// takes no weight, hence the orders.
var (
	last  = [][2]string{{"cpu.shares", "2"}, {"cpu.weight", "1"}, {"cpu.idle", "1"}, {"io.weight", "1"}, {"io.bfq.weight", "1"}, {"blkio.bfq.weight", "1"}}
	among = [][2]string{{"cpu.idle", "0"}, {"cpu.shares", "1024"}, {"cpu.weight", "100"}}
)

// weigh writes to the node's cgroup and the one above it.
func (m *Manager) weigh(files [][2]string) {
	if m.cfg.Fair {
		return
	}
	for _, dir := range append(group(m.cfg.CgroupParent).dirs(), m.group("").dirs()...) {
		for _, f := range files {
			_ = cgroups.WriteFile(dir, f[0], f[1])
		}
	}
}

// settle kills until no process is left and the memory is free again, for 2 s at most.
func (g group) settle(mounts *os.File) error {
	until := time.Now().Add(2 * time.Second)
	for pause := 100 * time.Microsecond; !g.free(); pause = min(2*pause, 10*time.Millisecond) {
		if time.Now().After(until) {
			return fmt.Errorf("cgroup %s: processes %v, or memory, remain", g, g.pids())
		}
		_ = mounts.Close() // what was written to /tmp is charged until it is unmounted
		g.kill()
		time.Sleep(pause)
	}
	return nil
}

// remove ends what still runs in the cgroup, and removes it with those below it, in all hierarchies.
func (g group) remove() error {
	for n := 0; n < 5 && len(g.pids()) > 0; n++ {
		_ = g.settle(nil) // what it says, the folders' removal says too
	}
	var errs []error
	for _, dir := range g.dirs() {
		errs = append(errs, cgroups.RemovePath(dir))
	}
	return errors.Join(errs...)
}

// shutForm is the name of the cgroup that a gate leaves below the node's, with its job's number, after which it kills what is there by
// force. A sandbox that is on its way in is killed, or sees the mark: it looks once it is in its cgroup and before the
// executor runs.
const shutForm = "shut.%d"

// Open takes away the marks of jobs whose gates have shut the node, and returns the jobs whose marks are left. Nothing is started while
// there is one.
func (m *Manager) Open(_ context.Context, jobs ...uint32) (left []uint32, err error) {
	for _, job := range jobs {
		mark := m.group(fmt.Sprintf(shutForm, job)).dir("freezer")
		if err := unix.Rmdir(mark); err != nil && err != unix.ENOENT {
			return nil, &os.PathError{Op: "remove cgroup", Path: mark, Err: err}
		}
	}
	entries, err := os.ReadDir(m.group("").dir("freezer"))
	for _, e := range entries {
		var job uint32
		if n, _ := fmt.Sscanf(e.Name(), shutForm, &job); n == 1 {
			left = append(left, job)
		}
	}
	return left, err
}

// makeNodeGroup lets gates find the node's cgroup, whether or not anything has ever been started.
func (m *Manager) makeNodeGroup() error { return os.MkdirAll(m.group("").dir("freezer"), 0o755) }

// open fails while a gate has shut the node.
func (m *Manager) open(ctx context.Context) error {
	if err := errors.Join(ctx.Err(), m.makeNodeGroup()); err != nil {
		return err
	}
	jobs, err := m.Open(ctx)
	if len(jobs) > 0 {
		err = fmt.Errorf("%w: jobs %v", launcher.ErrShut, jobs)
	}
	return err
}
