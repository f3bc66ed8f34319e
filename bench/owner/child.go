package owner

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api/gate"
)

// Child is what this program does when a measurement runs it again: "hold BYTES" touches that much memory and waits to be killed;
// "echo PATH" answers claims on a socket without doing anything for them. Both end with their standard input.
func Child(args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) != 2 {
		return errors.New("want hold BYTES or echo PATH")
	}
	switch args[0] {
	case "hold":
		bytes, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return hold(bytes, stdin, stdout)
	case "echo":
		return echo(args[1], stdin, stdout)
	}
	return fmt.Errorf("%q: want hold or echo", args[0])
}

func hold(bytes int, stdin io.Reader, stdout io.Writer) error {
	if bytes > 0 {
		memory, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return fmt.Errorf("map %d bytes: %w", bytes, err)
		}
		defer func() { _ = unix.Munmap(memory) }()
		for i := 0; i < len(memory); i += os.Getpagesize() {
			memory[i] = 1
		}
	}
	return ready(stdin, stdout)
}

// ready tells the parent, and waits for its end.
func ready(stdin io.Reader, stdout io.Writer) error {
	if _, err := fmt.Fprintln(stdout, "ready"); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, stdin)
	return err
}

func echo(path string, stdin io.Reader, stdout io.Writer) error {
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go answer(conn)
		}
	}()
	return ready(stdin, stdout)
}

func answer(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	f, err := gate.Read(conn)
	if err != nil {
		return
	}
	for _, kind := range []gate.Kind{gate.Ack, gate.Done} {
		frame, err := (&gate.Frame{Kind: kind, Job: f.Job}).Append(nil)
		if err != nil {
			return
		}
		if _, err := conn.Write(frame); err != nil {
			return
		}
	}
}

// process is a child that runs.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

// spawn runs a child and waits until it is ready. command is this program, as it is asked for a child.
func spawn(command []string, args ...string) (*process, error) {
	cmd := exec.Command(command[0], append(command[1:], args...)...) //nolint:gosec // ourselves
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("run a child of the measurement: %w", err)
	}
	p := &process{cmd, stdin}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		p.end()
		return nil, fmt.Errorf("child %v of the measurement: %w", args, err)
	}
	return p, nil
}

func (p *process) end() {
	_ = p.cmd.Process.Kill()
	_ = p.stdin.Close()
	_ = p.cmd.Wait()
}

// plainKill is the kernel's own share of an eviction: as many plain processes with as much memory between them, killed all at
// once; the time until the last is reaped, and so its memory freed.
func plainKill(command []string, count int, resident uint64) (time.Duration, error) {
	var all []*process
	defer func() {
		for _, p := range all {
			p.end()
		}
	}()
	for range count {
		p, err := spawn(command, "hold", strconv.FormatUint(resident/uint64(count), 10))
		if err != nil {
			return 0, err
		}
		all = append(all, p)
	}
	begin := time.Now()
	for _, p := range all {
		_ = p.cmd.Process.Kill()
	}
	for _, p := range all {
		_, _ = p.cmd.Process.Wait()
	}
	return time.Since(begin), nil
}
