package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// probe is the executor of the tests. It runs in the sandbox.
func probe(mode string) {
	switch mode {
	case "sleep":
		tell(nil)
		linger()
	case "look":
		tell(look())
		linger()
	case "binds":
		tell(lookAtBinds())
		linger()
	case "exit7":
		fmt.Fprintln(os.Stderr, "I give up")
		os.Exit(7)
	case "forkbomb":
		tell(forkBomb())
		linger()
	case "membomb":
		memBomb()
	case "killall":
		tell(map[string]string{"kill": verdict(unix.Kill(-1, unix.SIGKILL))})
		linger()
	case "resident":
		hold(1 << 30)
		tell(nil)
		linger()
	case "fill":
		tell(fill())
		linger()
	case "child":
		linger()
	}
}

func linger() {
	for {
		time.Sleep(time.Hour)
	}
}

// tell writes the result to where the host can see it, all at once.
func tell(found map[string]string) {
	if found == nil {
		found = map[string]string{}
	}
	text, err := json.Marshal(found)
	if err == nil {
		err = errors.Join(os.WriteFile("/run/gleaner/self/new", text, 0o600), os.Rename("/run/gleaner/self/new", "/run/gleaner/self/result"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tell:", err)
		os.Exit(99)
	}
}

func verdict(err error) string {
	if err == nil {
		return "ok"
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

// look gathers all that the sandbox promises, with the eyes of a tenant.
func look() map[string]string {
	found := map[string]string{}
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if key, value, ok := strings.Cut(line, ":"); ok {
			found["status "+key] = strings.Join(strings.Fields(value), " ")
		}
	}
	pids, _ := filepath.Glob("/proc/[0-9]*")
	found["processes"] = fmt.Sprint(len(pids))
	found["hostname"], _ = os.Hostname()
	cgroup, _ := os.ReadFile("/proc/self/cgroup")
	found["cgroup"] = string(cgroup)
	score, _ := os.ReadFile("/proc/self/oom_score_adj")
	found["oom_score_adj"] = strings.TrimSpace(string(score))
	var core unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_CORE, &core)
	found["core"] = fmt.Sprint(core.Max)
	limit, _ := exec.Command("/bin/sh", "-c", "ulimit -Hn").Output()
	found["descriptors"] = strings.TrimSpace(string(limit))
	found["cpus"] = fmt.Sprint(runtime.NumCPU())
	names := func(dir string) string {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return verdict(err)
		}
		var all []string
		for _, e := range entries {
			all = append(all, e.Name())
		}
		return strings.Join(all, " ")
	}
	found["/dev"], found["/run"], found["/"] = names("/dev"), names("/run"), names("/")
	for _, path := range []string{"/x", "/etc/x", "/usr/x", "/gleaner/x", "/run/gleaner/agent/x", "/run/gleaner/self/x", "/tmp/x", "/dev/x", "/dev/shm/x", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/devices/system/cpu/x", "/dev/null"} {
		found["write "+path] = verdict(os.WriteFile(path, []byte("x"), 0o600))
	}
	for _, path := range []string{"/proc/kcore", "/proc/keys", "/proc/1/environ"} {
		text, err := os.ReadFile(path)
		found["read "+path] = fmt.Sprintf("%s %t", verdict(err), len(text) > 0)
	}
	for _, program := range [][]string{{"/usr/bin/id", "-un"}, {"/bin/sh", "-c", "exit 0"}} {
		found["run "+program[0]] = verdict(exec.Command(program[0], program[1:]...).Run())
	}
	for name, call := range refused {
		_, _, errno := unix.RawSyscall6(call[0], call[1], call[2], call[3], call[4], 0, 0)
		found["call "+name] = verdict(errnoOrNil(errno))
	}
	found["signal 1"] = verdict(unix.Kill(1, 0))
	found["loader"] = loads("libfabric.so.1")
	return found
}

// lookAtBinds reads and writes in the places of TestBinds.
func lookAtBinds() map[string]string {
	found := map[string]string{}
	for _, path := range []string{
		"/home/me/read/data", "/home/me/read/sub/deep", "/home/me/read/link/secret", "/home/me/read/sneak", "/home/me/write/deep", "/data/one/file", "/data/team/shared",
	} {
		text, err := os.ReadFile(path)
		if found["read "+path] = string(text); err != nil {
			found["read "+path] = verdict(err)
		}
	}
	for _, path := range []string{"/home/me/read/x", "/home/me/write/x", "/data/one/file", "/data/team/x", "/home/x", "/home/me/x", "/data/x"} {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
		found["write "+path] = verdict(err)
		_ = f.Close()
	}
	return found
}

func errnoOrNil(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// loads asks the loader of the sandbox where it finds a library.
func loads(library string) string {
	text, err := exec.Command("/usr/bin/python3", "-c", "import ctypes,sys; ctypes.CDLL(sys.argv[1]); print('loaded')", library).CombinedOutput()
	if err != nil {
		return fmt.Sprint(err, string(text))
	}
	return strings.TrimSpace(string(text))
}

// refused are calls that the filter refuses whatever their arguments.
var refused = map[string][5]uintptr{
	"mount":             {unix.SYS_MOUNT},
	"umount2":           {unix.SYS_UMOUNT2},
	"open_tree":         {unix.SYS_OPEN_TREE},
	"pivot_root":        {unix.SYS_PIVOT_ROOT},
	"chroot":            {unix.SYS_CHROOT},
	"ptrace":            {unix.SYS_PTRACE},
	"process_vm_readv":  {unix.SYS_PROCESS_VM_READV, 1},
	"pidfd_getfd":       {unix.SYS_PIDFD_GETFD},
	"unshare":           {unix.SYS_UNSHARE, unix.CLONE_NEWUSER},
	"setns":             {unix.SYS_SETNS},
	"clone newuser":     {unix.SYS_CLONE, unix.CLONE_NEWUSER | uintptr(unix.SIGCHLD)},
	"bpf":               {unix.SYS_BPF},
	"keyctl":            {unix.SYS_KEYCTL},
	"add_key":           {unix.SYS_ADD_KEY},
	"userfaultfd":       {unix.SYS_USERFAULTFD},
	"io_uring_setup":    {unix.SYS_IO_URING_SETUP, 1},
	"perf_event_open":   {unix.SYS_PERF_EVENT_OPEN},
	"open_by_handle_at": {unix.SYS_OPEN_BY_HANDLE_AT},
	"init_module":       {unix.SYS_INIT_MODULE},
	"kexec_load":        {unix.SYS_KEXEC_LOAD},
	"reboot":            {unix.SYS_REBOOT},
	"settimeofday":      {unix.SYS_SETTIMEOFDAY},
	"swapon":            {unix.SYS_SWAPON},
	"socket packet":     {unix.SYS_SOCKET, unix.AF_PACKET, unix.SOCK_RAW},
	"socket vsock":      {unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM},
	"socket alg":        {unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET},
	"socket raw":        {unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP},
}

func forkBomb() map[string]string {
	n := 0
	for {
		if err := exec.Command("/gleaner/executor", "probe", "child").Start(); err != nil {
			return map[string]string{"forks": fmt.Sprint(n), "end": verdict(err)}
		}
		n++
	}
}

// memBomb has a child take more memory than there is, so that the child is killed and not this process.
func memBomb() {
	if len(os.Args) > 4 {
		hold(1 << 40)
	}
	err := exec.Command("/gleaner/executor", append(os.Args[1:], "child")...).Run()
	tell(map[string]string{"child": fmt.Sprint(err)})
	linger()
}

var held []byte

// hold makes memory resident, a page at a time.
func hold(size int) {
	for len(held) < size {
		piece, err := unix.Mmap(-1, 0, min(size-len(held), 1<<30), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			fmt.Fprintln(os.Stderr, "hold:", err)
			os.Exit(98)
		}
		_ = unix.Madvise(piece, unix.MADV_NOHUGEPAGE)
		for i := 0; i < len(piece); i += os.Getpagesize() {
			piece[i] = 1
		}
		held = piece
	}
}

// fill writes to every place that can be written until it is full.
func fill() map[string]string {
	found := map[string]string{}
	for _, dir := range []string{"/run/gleaner/self", "/tmp", "/dev/shm"} {
		f, err := os.Create(dir + "/fill")
		size, block := 0, make([]byte, 1<<16)
		for err == nil && size < 1<<30 {
			var n int
			n, err = f.Write(block)
			size += n
		}
		found[dir] = verdict(err)
		_ = f.Close()
		_ = os.Remove(dir + "/fill")
	}
	return found
}
