// Package program runs a program beside a measurement, mostly as a Slurm job by way of srun, that answers each line with a line. It is
// called by the measurements, which know what the lines mean.
package program

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// Program is one that runs.
type Program struct {
	what   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr *strings.Builder
}

// Start starts a command and waits for its first line, which begins with "ready "; the rest of it is returned. what names it in errors.
func Start(ctx context.Context, what string, command ...string) (*Program, string, error) {
	p := &Program{what: what, cmd: exec.CommandContext(ctx, command[0], command[1:]...), stderr: &strings.Builder{}} //nolint:gosec // the caller's command
	p.cmd.Stderr = p.stderr
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, "", err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	p.stdout = bufio.NewReader(stdout)
	if err := p.cmd.Start(); err != nil {
		return nil, "", fmt.Errorf("start %s: %w", what, err)
	}
	line, err := p.stdout.ReadString('\n')
	rest, ready := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if err != nil || !ready {
		return nil, "", errors.Join(fmt.Errorf("%s says %q", what, line), p.End())
	}
	return p, rest, nil
}

// Ask sends a line and waits for the answer.
func (p *Program) Ask(line string) (string, error) {
	if _, err := io.WriteString(p.stdin, line+"\n"); err != nil {
		return "", fmt.Errorf("tell %s: %w", p.what, err)
	}
	answer, err := p.stdout.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s ended: %w", p.what, err)
	}
	return strings.TrimSpace(answer), nil
}

// End closes the program's input and waits until it has ended.
func (p *Program) End() error {
	_ = p.stdin.Close()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w %s", p.what, err, p.stderr)
	}
	return nil
}
