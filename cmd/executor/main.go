// Command executor is the first process of a sandbox; see package executor. It finds the worker beside its own executable.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/executor"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "executor:", err)
		os.Exit(1)
	}
}

func run() error {
	runtime.GOMAXPROCS(1) // it has little to do, and every thread takes time when a job waits for its end
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own executable: %w", err)
	}
	cfg := executor.Config{Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	flag.StringVar(&cfg.Agent, "agent", "", "Unix socket of the node's agent")
	flag.StringVar(&cfg.ID, "id", "", "id of this sandbox")
	flag.StringVar(&cfg.Worker, "worker", filepath.Join(filepath.Dir(self), "worker"), "worker binary")
	flag.StringVar(&cfg.SelfDir, "self", "", "folder of the Unix control socket (default /run/gleaner/self)")
	flag.DurationVar(&cfg.LoadTimeout, "load-timeout", 0, "time that a library's constructors may take (default 10s)")
	flag.Parse()
	if os.Getpid() == 1 {
		if err := shield(); err != nil {
			return err
		}
		return executor.Run(context.Background(), cfg)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return executor.Run(ctx, cfg)
}

// shield keeps the sandbox's first process out of reach of the functions, which run as the same user: its memory and descriptors
// cannot be opened, and signals do nothing. Only the launcher ends it, with SIGKILL from outside.
func shield() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("close own memory to functions: %w", err)
	}
	ignored := make(chan os.Signal, 1) // never read: what is sent is dropped
	for s := syscall.Signal(1); s < 65; s++ {
		if s != syscall.SIGKILL && s != syscall.SIGSTOP && s != syscall.SIGCHLD && s != syscall.SIGURG && s != syscall.SIGPROF {
			signal.Notify(ignored, s)
		}
	}
	return ignoreReserved()
}

// ignoreReserved ignores the signals of C libraries, 32 to 34, which Go's runtime leaves as they are. The kernel keeps a namespace's first
// process from dying of them only while none of its threads blocks them, which Go's do now and then.
func ignoreReserved() error {
	action := [4]uint64{1} // the kernel's struct sigaction: SIG_IGN; flags, restorer, mask
	for s := uintptr(32); s <= 34; s++ {
		if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, s, uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0); errno != 0 {
			return fmt.Errorf("ignore signal %d: %w", s, errno)
		}
	}
	return nil
}
