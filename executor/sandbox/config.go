package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
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
func (m *Manager) container(memo launcher.Sandbox) (*configs.Config, error) {
	s, root := memo.Spec, m.root()
	if s.Image != "" {
		root = filepath.Join(m.cfg.RunDir, "images", s.Image) // where the images helper has mounted it
	}
	nodes, rules, err1 := deviceNodes(s.Devices)
	host, err2 := makeSkeleton(m.root())
	binds, err3 := m.stage(s)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	score := 500 // the worker in there has 1000: whatever fills the memory, the executor lives to say so
	return &configs.Config{
		Rootfs:     root,
		Labels:     labels(memo),
		Readonlyfs: true,
		// Nothing mounted on the host later shows up inside, and nothing mounted inside on the host.
		RootPropagation: unix.MS_PRIVATE | unix.MS_REC,
		Mounts:          append(m.mounts(s, host), binds...),
		Devices:         nodes,
		Hostname:        s.ID,
		Namespaces: configs.Namespaces{
			{Type: configs.NEWUSER}, {Type: configs.NEWPID}, {Type: configs.NEWNS}, {Type: configs.NEWIPC}, {Type: configs.NEWUTS}, {Type: configs.NEWCGROUP},
		},
		UIDMappings:     idMap(s.UID),
		GIDMappings:     idMap(append([]uint32{s.GID}, s.Groups...)...),
		Cgroups:         &cgroups.Cgroup{Path: "/" + string(m.group(s.ID)), Resources: resources(s, rules)},
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
		// One byte of a core: too little for a file, and unlike nothing it also keeps the kernel from piping the memory to a program of the host's.
		Rlimits: []configs.Rlimit{{Type: unix.RLIMIT_CORE, Soft: 1, Hard: 1}, {Type: unix.RLIMIT_MSGQUEUE}, {Type: unix.RLIMIT_RTPRIO}},
	}, nil
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
func deviceNodes(extra []string) (nodes []*devices.Device, rules []*devices.Rule, err error) {
	rules = append(rules, &devices.Rule{Type: devices.WildcardDevice, Major: devices.Wildcard, Minor: devices.Wildcard, Permissions: "rwm"}) // none but
	for _, path := range append([]string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}, extra...) {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR {
			return nil, nil, fmt.Errorf("devices: %s is no character device: %w", path, cmp.Or(err, error(unix.ENODEV)))
		}
		node := devices.Device{Path: path, FileMode: 0o666, Rule: devices.Rule{Type: devices.CharDevice, Permissions: "rw", Allow: true}}
		node.Major, node.Minor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
		nodes, rules = append(nodes, &node), append(rules, &node.Rule)
	}
	return nodes, rules, nil
}

// mounts are what the sandbox sees of the host, and the little that it may write to.
func (m *Manager) mounts(s launcher.Spec, host []string) []*configs.Mount {
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
		bind(filepath.Join(m.states(s.ID), "passwd"), "/etc/passwd", unix.MS_RDONLY|unix.MS_NOEXEC),
		bind(filepath.Join(m.states(s.ID), "group"), "/etc/group", unix.MS_RDONLY|unix.MS_NOEXEC),
	}
	for _, path := range host {
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

// allowed are the system calls of ordinary computing: memory, threads, files, sockets, time, signals among one's own. What is not
// named is refused with EPERM, and calls newer than this list with ENOSYS, so that libraries fall back. Left out on purpose: System V's
// shared memory, queues and semaphores, which outlive the worker that filled the memory limit with them, mounts and namespaces, ptrace
// and its relatives, keys, bpf, perf, userfaultfd, io_uring, modules, clocks, swap, handles, and the 32-bit world.
const allowed = `
accept accept4 access alarm arch_prctl bind brk capget chdir chmod chown clock_getres clock_gettime clock_nanosleep close close_range connect
copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit
exit_group faccessat faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork
fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_wait futex_waitv futex_wake futex_requeue get_mempolicy get_robust_list
get_thread_area getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority
getrandom getresgid getresuid getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr inotify_add_watch inotify_init
inotify_init1 inotify_rm_watch ioctl ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr
link linkat listen listxattr llistxattr lremovexattr lseek lsetxattr lstat madvise mbind membarrier memfd_create mincore mkdir mkdirat mknod mknodat
mlock mlock2 mlockall mmap mprotect mremap msync munlock munlockall munmap nanosleep newfstatat open openat openat2 pause pidfd_open
pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 pselect6 pwrite64 pwritev pwritev2
read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg removexattr rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction
rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max
sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr
sched_setparam sched_setscheduler sched_yield seccomp select sendfile sendmmsg sendmsg sendto set_mempolicy set_robust_list set_tid_address setfsgid
setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid setsockopt setuid setxattr shutdown
sigaltstack signalfd signalfd4 socketpair splice stat statfs statx symlink symlinkat sync_file_range sysinfo tee tgkill time timer_create
timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink
unlinkat utime utimensat utimes vfork vmsplice wait4 waitid write writev
`

// newNamespaces are the clone flags that would make namespaces.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
	unix.CLONE_NEWPID | unix.CLONE_NEWNET // NEWTIME is for clone3 alone

func seccompProfile() *configs.Seccomp {
	refused, missing := uint(unix.EPERM), uint(unix.ENOSYS)
	// Only this architecture's entry stays open: on x86-64 that shuts the 32-bit and x32 ones.
	p := &configs.Seccomp{DefaultAction: configs.Errno, DefaultErrnoRet: &refused, Architectures: []string{runtime.GOARCH}}
	for name := range strings.FieldsSeq(allowed) {
		p.Syscalls = append(p.Syscalls, &configs.Syscall{Name: name, Action: configs.Allow})
	}
	// clone3's flags lie in memory, where no filter can look; without it libraries use clone.
	p.Syscalls = append(p.Syscalls,
		&configs.Syscall{Name: "clone3", Action: configs.Errno, ErrnoRet: &missing},
		allowIf("clone", configs.Arg{Index: 0, Value: newNamespaces, ValueTwo: 0, Op: configs.MaskEqualTo}))
	// The fabric finds addresses and devices through netlink. Packet, vsock, crypto and the dozens of old families stay shut.
	for _, family := range []uint64{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK} {
		p.Syscalls = append(p.Syscalls, allowIf("socket", configs.Arg{Index: 0, Value: family, Op: configs.EqualTo}))
	}
	for _, persona := range []uint64{0, 0x0008, 0x20000, 0x20008, 0xffffffff} {
		p.Syscalls = append(p.Syscalls, allowIf("personality", configs.Arg{Index: 0, Value: persona, Op: configs.EqualTo}))
	}
	return p
}

func allowIf(name string, arg configs.Arg) *configs.Syscall {
	return &configs.Syscall{Name: name, Action: configs.Allow, Args: []*configs.Arg{&arg}}
}
