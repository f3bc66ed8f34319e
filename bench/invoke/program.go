package invoke

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Modes of bench/wire.
const (
	modeSpin = iota
	modeBlock
	modeStream
)

// job is a line for bench/wire.
type job struct {
	bytes, rounds, mode, inFlight int
}

// program is a running bench/wire. It does nothing between jobs.
type program struct {
	process *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
}

func startProgram(ctx context.Context, path string, args ...string) (*program, error) {
	return startProgramWith(ctx, nil, path, args...)
}

// startProgramWith hands it files, from descriptor 3 on.
func startProgramWith(ctx context.Context, files []*os.File, path string, args ...string) (*program, error) {
	p := &program{process: exec.CommandContext(ctx, path, args...)}
	p.process.ExtraFiles = files
	p.process.Stderr = os.Stderr
	p.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var err error
	if p.in, err = p.process.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err := p.process.Start(); err != nil {
		return nil, err
	}
	if line, err := p.out.ReadString('\n'); err != nil || line != "ready\n" {
		p.stop()
		return nil, fmt.Errorf("%s %s: did not start", path, strings.Join(args[:1], " "))
	}
	return p, nil
}

func (p *program) stop() {
	_ = p.in.Close()
	_ = p.process.Process.Kill()
	_ = p.process.Wait()
}

// run measures: samples in nanoseconds, and how long all took.
func (p *program) run(j job) ([]uint32, time.Duration, error) {
	if _, err := fmt.Fprintln(p.in, j.bytes, j.rounds, j.mode, j.inFlight); err != nil {
		return nil, 0, fmt.Errorf("wire: %w", err)
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		return nil, 0, fmt.Errorf("wire ended: %w", err)
	}
	var count int
	var total int64
	if _, err := fmt.Sscan(line, &count, &total); err != nil {
		return nil, 0, fmt.Errorf("wire says %q: %w", line, err)
	}
	samples := make([]uint32, count)
	if err := binary.Read(p.out, binary.LittleEndian, samples); err != nil {
		return nil, 0, fmt.Errorf("wire: %w", err)
	}
	return samples, time.Duration(total), nil
}
