package executor

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	wire "github.com/gleaner-hpc/gleaner/api/executor"
)

const defaultProvider = "tcp;ofi_rxm"

// worker is one incarnation of the worker process.
type worker struct {
	pid     int
	socket  *os.File
	state   *sharedPage
	loading bool     // it has been given the library
	serving bool     // the function is loaded
	fabric  bool     // it has been told to open its endpoint
	opened  bool     // and has done so, or failed to
	doomed  *ending  // why the supervisor has killed it
	victim  *request // the request that doomed is about
}

// station is where workers open their endpoints.
type station struct{ host, provider string }

func stationOf(host, provider string) station {
	if provider == "" {
		provider = defaultProvider
	}
	return station{host, provider}
}

// spawn starts a worker, which waits for its library. Its parent's thread must not end before it does.
func spawn(path string, at station) (*worker, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket to worker: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "worker")
	defer func() { _ = theirs.Close() }()
	// Non-blocking, so that the runtime's poller serves it.
	_ = unix.SetNonblock(pair[0], true)
	w := &worker{socket: os.NewFile(uintptr(pair[0]), "worker")}
	if w.state, err = newSharedPage(); err != nil {
		_ = w.socket.Close()
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		w.close()
		return nil, err
	}
	defer func() { _ = null.Close() }()
	w.state.wakeAsleep.Store(1)
	w.pid, err = syscall.ForkExec(path, []string{path, at.host, at.provider}, &syscall.ProcAttr{
		Env: environment(at.provider),
		// Inherited descriptors 3 and 4 are the worker's contract.
		Files: []uintptr{null.Fd(), 1, 2, theirs.Fd(), w.state.file.Fd()},
		Sys:   &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		w.close()
		return nil, fmt.Errorf("start worker %s: %w", path, err)
	}
	return w, nil
}

// environment is all that a function sees, beside what the worker adds when it learns its lease.
func environment(provider string) []string {
	return []string{
		"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp", "TMPDIR=/tmp", "LANG=C.UTF-8",
		// Only the providers in use are loaded; no registration outlives its region.
		// Large blocks come in large pages where the node leaves that to programs: they are had, and given back, ten times as fast.
		"GLIBC_TUNABLES=glibc.malloc.hugetlb=1",
		"FI_PROVIDER=" + strings.ReplaceAll(provider, ";", ","), "FI_MR_CACHE_MAX_COUNT=0",
	}
}

// load gives the worker its library and lease.
func (w *worker) load(a *wire.Assign, code *os.File) error {
	w.loading = true
	var key uint64
	if a.Network {
		key = loadNetwork
	}
	return w.send(command{
		op: opLoad, key: key, cookie: a.Lease, connection: a.Job, slots: uint32(max(a.Cores, 0)), address: []byte(a.Executor), text: a.Symbol,
	}, []*os.File{code})
}

// openFabric makes the worker open its endpoint, once.
func (w *worker) openFabric() {
	if !w.fabric {
		w.fabric = w.send(command{op: opFabric}, nil) == nil
	}
}

func (w *worker) close() {
	_ = w.socket.Close()
	w.state.close()
}

// send passes a command with descriptors and never blocks: a worker that does not read while its function runs has room for
// many commands in its socket.
func (w *worker) send(c command, files []*os.File) error {
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	raw, err := w.socket.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	if err := raw.Control(func(fd uintptr) {
		sendErr = unix.Sendmsg(int(fd), c.encode(), rights, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	}); err != nil {
		return err
	}
	if sendErr != nil {
		return fmt.Errorf("send command to worker: %w", sendErr)
	}
	w.state.commands.Add(1)
	return nil
}

// receive blocks until the worker says something; io.EOF when it is gone.
func (w *worker) receive() (command, error) {
	b := make([]byte, commandBytes+1)
	n, err := w.socket.Read(b)
	if err != nil {
		return command{}, err
	}
	return decodeCommand(b[:n])
}

// kill ends the worker and what its function has started.
// The first process of a sandbox reaches also what has left the worker's process group.
func (w *worker) kill() {
	if os.Getpid() == 1 {
		_ = syscall.Kill(-1, syscall.SIGKILL)
		return
	}
	_ = syscall.Kill(-w.pid, syscall.SIGKILL)
}

// exit is the end of a process.
type exit struct {
	pid    int
	status syscall.WaitStatus
}

// reap waits for children, also for those that a function has left behind to the sandbox's first process, until stop.
func reap(kicked <-chan struct{}, exits chan<- exit, stop <-chan struct{}) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			select {
			case <-kicked:
			case <-stop:
				return
			}
			continue
		}
		select {
		case exits <- exit{pid, status}:
		case <-stop:
			return
		}
	}
}
