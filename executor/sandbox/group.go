package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// freeEnough is the memory that may stay charged to an ended sandbox: the kernel's own bookkeeping for its cgroup.
const freeEnough = 1 << 20

// group is the cgroup of one sandbox: on v2 one folder under the key "", on v1 one per controller, on a hybrid host both.
type group map[string]string

// dir is the folder in which the files of a controller are.
func (g group) dir(controller string) string {
	if cgroups.IsCgroup2UnifiedMode() {
		return g[""]
	}
	return g[controller]
}

// pick gives the name of a file on v1 or on v2.
func pick(v1, v2 string) string {
	if cgroups.IsCgroup2UnifiedMode() {
		return v2
	}
	return v1
}

func readUint(dir, file string) (uint64, error) {
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 64)
}

// readKey reads one value of a file of lines "key value". A key that is not there is 0.
func readKey(dir, file, key string) (uint64, error) {
	value, _, err := readKeys(dir, file, key, "")
	return value, err
}

// readKeys reads two values with one look.
func readKeys(dir, file, key, other string) (first, second uint64, err error) {
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0, 0, err
	}
	for line := range bytes.Lines(text) {
		name, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		n, _ := strconv.ParseUint(string(value), 10, 64)
		switch string(name) {
		case key:
			first = n
		case other:
			second = n
		}
	}
	return first, second, nil
}

func (g group) cpuNanos() uint64 {
	if cgroups.IsCgroup2UnifiedMode() {
		us, _ := readKey(g.dir("cpu"), "cpu.stat", "usage_usec")
		return us * 1000
	}
	ns, _ := readUint(g.dir("cpuacct"), "cpuacct.usage")
	return ns
}

func (g group) memory() (charged, peak uint64) {
	dir := g.dir("memory")
	charged, _ = readUint(dir, pick("memory.usage_in_bytes", "memory.current"))
	peak, _ = readUint(dir, pick("memory.max_usage_in_bytes", "memory.peak")) // memory.peak: Linux 5.19
	return charged, max(peak, charged)
}

// oomKills counts what the memory limit has killed.
func (g group) oomKills() uint64 {
	n, _ := readKey(g.dir("memory"), pick("memory.oom_control", "memory.events"), "oom_kill")
	return n
}

// uncharged reports whether the memory is free again. Page cache that the sandbox was first to touch stays charged until the
// kernel wants it; it is everybody's and free for the taking, and so it does not count.
func (g group) uncharged() bool {
	dir := g.dir("memory")
	usage, err := readUint(dir, pick("memory.usage_in_bytes", "memory.current"))
	if err != nil || usage <= freeEnough {
		return true // a cgroup that cannot be read is gone
	}
	own, shared, _ := readKeys(dir, "memory.stat", pick("rss", "anon"), "shmem")
	return own+shared <= freeEnough
}

func (g group) pids() []int {
	return readPids(g.dir("devices"))
}

// readPids lists the processes of one cgroup; a sandbox has no cgroup below its own.
func readPids(dir string) []int {
	text, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	var pids []int
	for word := range bytes.FieldsSeq(text) {
		if pid, err := strconv.Atoi(string(word)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// kill ends every process, frozen or throttled ones too. It returns at once; the processes take as long as their memory is large.
// On v1 processes may be born while it reads the list: the death of the sandbox's first process takes those along.
func (g group) kill() {
	pids := g.pids()
	if g[""] == "" || os.WriteFile(filepath.Join(g[""], "cgroup.kill"), []byte("1"), 0) != nil {
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	g.hurry()
	for _, pid := range pids {
		if resident(pid) >= largeSandbox {
			go release(pid)
		}
	}
}

// hurry lets a dying sandbox run: awake and without quota. Otherwise a tenth of a CPU would free its memory ten times as slowly.
func (g group) hurry() {
	g.wake()
	g.set("cpu", pick("cpu.cfs_quota_us", "cpu.max"), pick("-1", "max"))
}

// wake thaws a sandbox and gives it the weight of everybody else.
func (g group) wake() {
	g.set("freezer", pick("freezer.state", "cgroup.freeze"), pick("THAWED", "0"))
	g.set("cpu", pick("cpu.shares", "cpu.weight"), pick("1024", "100"))
}

func (g group) set(controller, file, value string) {
	if dir := g.dir(controller); dir != "" {
		_ = os.WriteFile(filepath.Join(dir, file), []byte(value), 0)
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
	for _, root := range hierarchies() {
		parent := filepath.Join(root, m.cfg.CgroupParent)
		for _, dir := range []string{parent, filepath.Join(parent, m.cfg.Node)} {
			for _, f := range files {
				_ = os.WriteFile(filepath.Join(dir, f[0]), []byte(f[1]), 0)
			}
		}
	}
}

// resident is how many bytes of memory a process maps, 0 when it has none any more.
func resident(pid int) uint64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(text)
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseUint(string(fields[1]), 10, 64)
	return pages * uint64(os.Getpagesize())
}

// release frees a dying process's memory from this side, at the same time as the process does so itself. The kernel refuses it
// for a process that is not dying, so that a pid used again is in no danger.
func release(pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(fd) }()
	for {
		_, _, errno := unix.Syscall(unix.SYS_PROCESS_MRELEASE, uintptr(fd), 0, 0)
		if errno != unix.EAGAIN && errno != unix.EINTR {
			return
		}
	}
}

func (g group) remove() error {
	var errs []error
	for _, dir := range g {
		errs = append(errs, cgroups.RemovePath(dir))
	}
	return errors.Join(errs...)
}

// hierarchies are the mount points of all cgroup hierarchies of this host.
func hierarchies() []string {
	if cgroups.IsCgroup2UnifiedMode() {
		return []string{cgroupRoot}
	}
	var all []string
	entries, _ := os.ReadDir(cgroupRoot)
	for _, e := range entries {
		if e.IsDir() { // the links are other names of the same: cpu -> cpu,cpuacct
			all = append(all, filepath.Join(cgroupRoot, e.Name()))
		}
	}
	return all
}
