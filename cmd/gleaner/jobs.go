package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/gleaner-hpc/gleaner/client/sbatch"
)

func (a *app) runCommand() *cobra.Command {
	var wish sbatch.Wish
	c := &cobra.Command{
		Use: "run [--executors N] [--mem-per-executor M] [--cores-per-executor C] -- COMMAND...", Args: cobra.MinimumNArgs(1),
		Short: "Run a command whose gleaner map and invoke take their defaults from these options",
		Long: `Run a command with GLEANER_EXECUTORS, GLEANER_MEM_PER_EXECUTOR and GLEANER_CORES_PER_EXECUTOR set. No lease is taken here: each map and
invoke inside takes its own, for its own function, and inside a Slurm job that lease ends with the job.`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := wish.Check(); err != nil {
				return &exitError{exitUsage, err}
			}
			path, err := exec.LookPath(args[0])
			if err != nil {
				return usage("%v", err)
			}
			err = syscall.Exec(path, args, append(os.Environ(), a.environ(wish)...))
			return fmt.Errorf("run %s: %w", path, err)
		},
	}
	c.Flags().SetInterspersed(false)
	c.Flags().StringVar(&wish.Executors, "executors", "", "executors at the same time")
	c.Flags().StringVar(&wish.Memory, "mem-per-executor", "", "memory of each executor, in Slurm's units")
	c.Flags().StringVar(&wish.Cores, "cores-per-executor", "", "cores of each executor")
	return c
}

// environ lists wish's variables and those by which gleaner finds its broker.
func (a *app) environ(wish sbatch.Wish) []string {
	env := wish.Environ()
	if a.broker != "" {
		env = append(env, "GLEANER_BROKER="+a.broker)
	}
	return env
}

func (a *app) sbatchCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sbatch [sbatch options] [--executors N] [--mem-per-executor M] [--cores-per-executor C] SCRIPT [ARGS...]",
		Short: "Submit a Slurm job whose functions run on leftovers", DisableFlagParsing: true,
		Long: `Submit a job with sbatch. --executors, --mem-per-executor and --cores-per-executor are taken out, and become the defaults of gleaner map and
invoke inside the job; everything else is sbatch's. #GLEANER lines in the script stand for them as #SBATCH lines do; the command line
wins. What is printed, and the exit status, are sbatch's. The job needs little of its own: its functions do not run in it.`,
		Example: `  gleaner sbatch -n 1 --executors 8 --mem-per-executor 512M thumbnails.sh`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 && (args[0] == "--help" || args[0] == "-h") {
				return c.Help()
			}
			return a.submit(c.Context(), args)
		},
	}
}

// submit calls sbatch.
func (a *app) submit(ctx context.Context, args []string) error {
	command, err := sbatch.Parse(args)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	stdin, script, err := a.script(command)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	directives, err := sbatch.ReadDirectives(script)
	if err != nil {
		return &exitError{exitUsage, fmt.Errorf("script %s: %w", orDefault(command.Script, "on standard input"), err)}
	}
	wish := command.Wish.Or(directives.Wish)
	if err := wish.Check(); err != nil {
		return &exitError{exitUsage, err}
	}
	var keep []string
	for _, name := range []string{"GLEANER_BROKER", "GLEANER_CONF"} {
		if a.getenv(name) != "" {
			keep = append(keep, name)
		}
	}
	path, err := exec.LookPath("sbatch")
	if err != nil {
		return fmt.Errorf("submit the job: %w", err)
	}
	cmd := exec.CommandContext(ctx, path, command.Call(directives, wish, keep, a.getenv("SBATCH_EXPORT"))...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, a.stdout, a.stderr
	cmd.Env = append(os.Environ(), a.environ(wish)...)
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return &exitError{exit.ExitCode(), nil}
	}
	return err
}

// script returns the job's script for its #GLEANER lines, and what sbatch is to read on its standard input.
func (a *app) script(c *sbatch.Command) (stdin io.Reader, script []byte, err error) {
	switch {
	case c.Wrapped, helpOnly(c.Options):
		return a.stdin, nil, nil
	case c.Script == "":
		script, err = io.ReadAll(a.stdin)
		return bytes.NewReader(script), script, err
	}
	script, err = readHead(c.Script)
	if errors.Is(err, os.ErrNotExist) && !strings.Contains(c.Script, "/") {
		if path, e := exec.LookPath(c.Script); e == nil { // as sbatch does
			script, err = readHead(path)
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		return a.stdin, nil, nil // sbatch says it in its own words
	}
	return a.stdin, script, err
}

func helpOnly(options []string) bool {
	for _, o := range options {
		switch o {
		case "--help", "-h", "--usage", "--version", "-V":
			return true
		}
	}
	return false
}

// readHead reads the part of a script in which directives can stand.
func readHead(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 4<<20))
}
