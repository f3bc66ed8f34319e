package sandbox

import (
	"runtime"
	"strings"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// allowed are the system calls of ordinary computing: memory, threads, files, sockets, time, signals among one's own. What is not
// named is refused with EPERM, and calls newer than this list with ENOSYS, so that libraries fall back. Left out on purpose: System V's
// shared memory, queues and semaphores, which outlive the worker that filled the memory limit with them, mounts and namespaces, ptrace
// and its relatives, keys, bpf, perf, userfaultfd, io_uring, modules, clocks, swap, handles, and the 32-bit world.
const allowed = `
accept accept4 access alarm arch_prctl bind brk capget chdir chmod chown clock_getres clock_gettime clock_nanosleep close close_range
connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2
execve execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync
fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_wait futex_waitv futex_wake futex_requeue
get_mempolicy get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer getpeername
getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid getsockname getsockopt gettid
gettimeofday getuid getxattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl ioprio_get ioprio_set kill
landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link linkat listen listxattr llistxattr lremovexattr
lseek lsetxattr lstat madvise mbind membarrier memfd_create mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mprotect
mremap msync munlock munlockall munmap nanosleep newfstatat open openat openat2 pause pidfd_open
pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 pselect6 pwrite64
pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg removexattr rename renameat renameat2
restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select sendfile
sendmmsg sendmsg sendto set_mempolicy set_robust_list set_tid_address setfsgid setfsuid setgid setgroups setitimer
setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid setsockopt setuid setxattr shutdown sigaltstack signalfd signalfd4 socketpair splice stat statfs statx symlink symlinkat sync_file_range sysinfo tee tgkill
time timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill
truncate umask uname unlink unlinkat utime utimensat utimes vfork vmsplice wait4 waitid write writev
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
