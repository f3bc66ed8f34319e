package sandbox

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // without it no device rule can be set
	devices "github.com/opencontainers/cgroups/devices/config"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

const quiet = unix.MS_NOSUID | unix.MS_NODEV

// setupID is the host's uid and gid that is root in the sandboxes during setup; nobody owns it.
const setupID = 2147483646

// container describes the sandbox to libcontainer.
//
// The ids: root in the sandbox is setupID on the host, an id that owns nothing; it does the setup and is gone with it. The
// executor is its owner's uid and gid inside as outside, and no other id exists in there.
func (m *Manager) container(note memo) (*configs.Config, error) {
	s, root := note.Spec, m.root()
	if note.Spec.Image != "" {
		root = filepath.Join(m.cfg.RunDir, "images", s.Image) // where the images helper has mounted it
	}
	nodes, err := deviceNodes(s.Devices)
	if err != nil {
		return nil, err
	}
	rules := []*devices.Rule{{Type: devices.WildcardDevice, Major: devices.Wildcard, Minor: devices.Wildcard, Permissions: "rwm"}}
	for _, n := range nodes {
		rules = append(rules, &n.Rule)
	}
	binds, err := m.stage(s)
	if err != nil {
		return nil, err
	}
	score := 500 // the worker in there has 1000: whatever fills the memory, the executor lives to say so
	return &configs.Config{
		Rootfs:     root,
		Labels:     note.labels(),
		Readonlyfs: true,
		// Nothing mounted on the host later shows up inside, and nothing mounted inside on the host.
		RootPropagation: unix.MS_PRIVATE | unix.MS_REC,
		Mounts:          append(m.mounts(s), binds...),
		Devices:         nodes,
		Hostname:        s.ID,
		Namespaces: configs.Namespaces{
			{Type: configs.NEWUSER}, {Type: configs.NEWPID}, {Type: configs.NEWNS},
			{Type: configs.NEWIPC}, {Type: configs.NEWUTS}, {Type: configs.NEWCGROUP},
		},
		UIDMappings: idMap(s.UID),
		GIDMappings: idMap(append([]uint32{s.GID}, s.Groups...)...),
		Cgroups: &cgroups.Cgroup{
			Path:      filepath.Join("/", string(m.group(s.ID))),
			Resources: resources(s, rules),
		},
		Capabilities:    &configs.Capabilities{},
		NoNewPrivileges: true,
		Seccomp:         seccompProfile(),
		OomScoreAdj:     &score,
		// Besides what nobody needs to know: libfabric reads the kernel's symbols twice before it opens anything, for a tenth of a second.
		MaskPaths: []string{
			"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kallsyms", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
			"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		},
		ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		Rlimits: []configs.Rlimit{
			// One byte: too little for a file, and unlike nothing it also keeps the kernel from piping the memory to a program of the host's.
			{Type: unix.RLIMIT_CORE, Soft: 1, Hard: 1},
			atMost(unix.RLIMIT_NOFILE, 1<<16),
			// Pinned memory of the fabric counts towards the memory limit like any other.
			atMost(unix.RLIMIT_MEMLOCK, unix.RLIM_INFINITY),
			{Type: unix.RLIMIT_MSGQUEUE},
			{Type: unix.RLIMIT_RTPRIO},
		},
	}, nil
}

// atMost is a limit of size want, or as much of it as this process has itself: without CAP_SYS_RESOURCE it cannot give more.
func atMost(kind int, want uint64) configs.Rlimit {
	var own unix.Rlimit
	if unix.Getrlimit(kind, &own) == nil && own.Max < want {
		raised := unix.Rlimit{Cur: own.Cur, Max: want}
		if unix.Setrlimit(kind, &raised) != nil {
			want = own.Max
		}
	}
	return configs.Rlimit{Type: kind, Soft: want, Hard: want}
}

func idMap(ids ...uint32) []configs.IDMap {
	all := []configs.IDMap{{ContainerID: 0, HostID: setupID, Size: 1}}
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		all = append(all, configs.IDMap{ContainerID: int64(id), HostID: int64(id), Size: 1})
	}
	return all
}

func resources(s launcher.Spec, rules []*devices.Rule) *cgroups.Resources {
	pids := int64(s.PIDs)
	r := &cgroups.Resources{
		Devices:    rules,
		Memory:     s.MemoryBytes,
		PidsLimit:  &pids,
		CpuShares:  2, // the least: whatever else wants the core comes first
		CpuWeight:  1,
		CpusetCpus: strings.ReplaceAll(strings.Trim(fmt.Sprint(s.CPUs), "[]"), " ", ","),
	}
	r.CpuQuota, r.CpuPeriod = quota(s.MilliCPUs)
	if cgroups.IsCgroup2UnifiedMode() || cgroups.PathExists(cgroupRoot+"/memory/memory.memsw.limit_in_bytes") {
		r.MemorySwap = s.MemoryBytes // memory and swap together
	}
	return r
}

// quota turns thousandths of a CPU into microseconds of CPU per period. Short periods keep the pauses of a throttled executor
// short; the kernel takes no quota below 1 ms.
func quota(milli int) (quota int64, period uint64) {
	if milli >= 100 {
		return int64(milli) * 10, 10_000
	}
	return int64(milli) * 100, 100_000
}

// deviceNodes are the device files that the sandbox sees, with the rules that let it use them.
func deviceNodes(extra []string) ([]*devices.Device, error) {
	var nodes []*devices.Device
	for _, path := range append([]string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}, extra...) {
		var st unix.Stat_t
		err := unix.Lstat(path, &st)
		if err == nil && st.Mode&unix.S_IFMT != unix.S_IFCHR {
			err = errors.New("not a character device")
		}
		if err != nil {
			return nil, fmt.Errorf("device %s: %w", path, err)
		}
		rule := devices.Rule{Type: devices.CharDevice, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)), Permissions: "rw", Allow: true}
		nodes = append(nodes, &devices.Device{Path: path, FileMode: 0o666, Rule: rule})
	}
	return nodes, nil
}

// mounts are what the sandbox sees of the host, and the little that it may write to.
func (m *Manager) mounts(s launcher.Spec) []*configs.Mount {
	// An empty file costs memory too, about 1 KiB that no size counts.
	size := fmt.Sprintf("mode=1777,size=%d,nr_inodes=%d", s.TmpBytes, max(s.TmpBytes>>12, 1024))
	all := []*configs.Mount{
		{Device: "proc", Source: "proc", Destination: "/proc", Flags: quiet | unix.MS_NOEXEC},
		tmpfs("/dev", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_RDONLY, "mode=755,size=64k"),
		tmpfs("/dev/shm", quiet|unix.MS_NOEXEC, size),
		tmpfs("/tmp", quiet, size),
		bind(m.cfg.Libexec, "/gleaner", unix.MS_RDONLY),
		bind(m.agentDir(), "/run/gleaner/agent", unix.MS_RDONLY|unix.MS_NOEXEC),
		bind(m.selves(s.ID), "/run/gleaner/self", unix.MS_NOEXEC),
		bind(m.states(s.ID, "passwd"), "/etc/passwd", unix.MS_RDONLY|unix.MS_NOEXEC),
		bind(m.states(s.ID, "group"), "/etc/group", unix.MS_RDONLY|unix.MS_NOEXEC),
	}
	for _, path := range hostPaths() {
		if s.Image != "" && !strings.HasPrefix(path, "/sys/") {
			continue // the image has its own, and this skeleton below it the places for the rest
		}
		// With what is mounted below, which a user namespace may not leave out, and all of it read-only.
		tree := bind(path, path, unix.MS_REC|unix.MS_RDONLY)
		tree.RecAttr = readOnlyTree()
		all = append(all, tree)
	}
	return all
}

// readOnlyTree makes a mount read-only with all below it; Linux before 5.12 cannot, and there only the top is.
func readOnlyTree() *unix.MountAttr {
	if err := unix.MountSetattr(-1, "", 0, &unix.MountAttr{}); errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
}

func bind(from, to string, flags int) *configs.Mount {
	return &configs.Mount{Device: "bind", Source: from, Destination: to, Flags: unix.MS_BIND | quiet | flags}
}

func tmpfs(path string, flags int, options string) *configs.Mount {
	return &configs.Mount{Device: "tmpfs", Source: "tmpfs", Destination: path, Flags: flags, Data: options}
}
