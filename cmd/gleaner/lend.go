package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/client"
	"github.com/gleaner-hpc/gleaner/client/batch"
	"github.com/gleaner-hpc/gleaner/client/sbatch"
	"github.com/gleaner-hpc/gleaner/client/share"
)

// lend takes a lease for wish.Function, runs a command that may use it, and gives it back when the command has ended.
func (a *app) lend(ctx context.Context, wish sbatch.Wish, f *leaseFlags, path string, args []string) error {
	function, err := client.LoadFunction(wish.Function)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	if err := f.take(wish); err != nil {
		return &exitError{exitUsage, err}
	}
	request, err := f.request(function, max(f.executors, 1), 0, a.getenv)
	if err != nil {
		return err
	}
	broker, err := a.dial()
	if err != nil {
		return err
	}
	defer broker.Close()
	server, err := share.New(function)
	if err != nil {
		return err
	}
	defer server.Close()
	answered := a.await(ctx, broker, request.Job)
	lease, err := broker.Hold(ctx, request, server)
	answered()
	if err != nil {
		return err
	}
	defer func() {
		release, cancel := context.WithTimeout(context.WithoutCancel(ctx), batch.ReleaseTimeout)
		defer cancel()
		if e := lease.Release(release); e != nil && !errors.Is(e, client.ErrEnded) {
			a.warn(e) // the command has had its say; the lease ends by itself
		}
	}()
	return a.serveWhile(server, lease, time.Duration(f.timeout), func(socket string) error {
		env := append(a.environ(wish), "GLEANER_LEASE="+socket, "GLEANER_LEASE_ID="+strconv.FormatUint(lease.ID(), 10))
		return a.child(path, args, env)
	})
}

// take reads what the wish says.
func (f *leaseFlags) take(wish sbatch.Wish) error {
	f.executors, f.cores = 1, 1
	for _, n := range []struct {
		to   *int
		from string
	}{{&f.executors, wish.Executors}, {&f.cores, wish.Cores}} {
		if n.from == "" {
			continue
		}
		var err error
		if *n.to, err = strconv.Atoi(n.from); err != nil {
			return fmt.Errorf("%s: want a number", n.from)
		}
	}
	return f.memory.Set(orDefault(wish.Memory, "256M"))
}

// serveWhile lends the lease through a socket of its own for as long as use runs.
func (a *app) serveWhile(server *share.Server, lease *client.Lease, timeout time.Duration, use func(socket string) error) error {
	dir, err := socketFolder()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "lease.sock"), Net: "unix"})
	if err != nil {
		return fmt.Errorf("lend the lease: %w", err)
	}
	defer listener.Close()
	socket := listener.Addr().String()
	if err := os.Chmod(socket, 0o600); err != nil {
		return fmt.Errorf("lend the lease: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background()) // a signal ends the command, and that the lending
	var serving sync.WaitGroup
	defer serving.Wait()
	defer cancel()
	serving.Go(func() {
		terms := share.Terms{Lease: lease.ID(), Buffer: lease.Buffer(), Timeout: timeout, Executors: lease.Status().GetRequest().GetExecutors()}
		if err := server.Run(ctx, listener, terms, lease); err != nil {
			a.warn(err)
		}
	})
	serving.Go(func() {
		select {
		case <-ctx.Done():
		case <-lease.Ended():
			status := lease.Status()
			server.End(status.GetEndReason(), status.GetDetail())
		}
	})
	return use(socket)
}

// socketFolder makes a folder that nobody else can enter, with a path short enough for a socket.
func socketFolder() (string, error) {
	const longest = 80
	parent := os.TempDir()
	if len(parent) > longest {
		parent = "/tmp"
	}
	dir, err := os.MkdirTemp(parent, "gleaner-run-")
	if err != nil {
		return "", fmt.Errorf("lend the lease: %w", err)
	}
	return dir, nil
}

// child runs the command with what this process is given: input, output and signals. Its exit status becomes ours.
func (a *app) child(path string, args, env []string) error {
	cmd := exec.Command(path, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.stdin, a.stdout, a.stderr
	cmd.Env = append(os.Environ(), env...)
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run %s: %w", path, err)
	}
	done := make(chan struct{})
	var passing sync.WaitGroup
	passing.Go(func() { passOn(signals, cmd.Process, done) })
	err := cmd.Wait()
	close(done)
	passing.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	status := exit.ExitCode()
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		status = 128 + int(ws.Signal())
	}
	return &exitError{status, nil}
}

// passOn hands signals to the command. Ctrl-C goes from the terminal to all of its foreground, the command included.
func passOn(signals <-chan os.Signal, to *os.Process, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case s := <-signals:
			if group, err := unix.IoctlGetInt(0, unix.TIOCGPGRP); s == syscall.SIGINT && err == nil && group == unix.Getpgrp() {
				continue
			}
			_ = to.Signal(s) // it may have just ended
		}
	}
}
