package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/gleaner-hpc/gleaner/client/sbatch"
)

func (a *app) runCommand() *cobra.Command {
	var wish sbatch.Wish
	f := leaseFlags{buffer: 1 << 20}
	c := &cobra.Command{
		Use: "run [--function LIBRARY:SYMBOL] [--executors N] [--mem-per-executor M] [--cores-per-executor C] -- COMMAND...", Args: cobra.MinimumNArgs(1),
		Short: "Run a command that calls functions by libgleaner, or by gleaner map and invoke",
		Long: `With --function: take a lease for that function, keep it as long as the command runs, and lend it to the command and its children on
this node, whose libgleaner finds it through GLEANER_LEASE. Evicted executors are replaced. Inside a Slurm job the lease ends with it.

Without: run the command with GLEANER_EXECUTORS, GLEANER_MEM_PER_EXECUTOR and GLEANER_CORES_PER_EXECUTOR set. No lease is taken here:
each map and invoke inside takes its own, for its own function.`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := wish.Check(); err != nil {
				return &exitError{exitUsage, err}
			}
			path, err := exec.LookPath(args[0])
			if err != nil {
				return usage("%v", err)
			}
			given := wish.Or(sbatch.Wish{Executors: a.getenv(sbatch.EnvExecutors), Memory: a.getenv(sbatch.EnvMemory),
				Cores: a.getenv(sbatch.EnvCores), Function: a.getenv(sbatch.EnvFunction), Spin: a.getenv(sbatch.EnvSpin), Image: a.getenv(sbatch.EnvImage)})
			if given.Function != "" {
				return a.lend(c.Context(), given, &f, path, args)
			}
			err = syscall.Exec(path, args, append(os.Environ(), a.environ(wish)...))
			return fmt.Errorf("run %s: %w", path, err)
		},
	}
	c.Flags().SetInterspersed(false)
	c.Flags().StringVar(&wish.Function, "function", "", "path/to/lib.so:symbol to take a lease for, lent to the command")
	c.Flags().StringVar(&wish.Executors, "executors", "", "executors at the same time")
	c.Flags().StringVar(&wish.Memory, "mem-per-executor", "", "memory of each executor, in Slurm's units")
	c.Flags().StringVar(&wish.Cores, "cores-per-executor", "", "cores of each executor")
	c.Flags().StringVar(&wish.Spin, "spin", "", spinHelp)
	c.Flags().StringVar(&wish.Image, "image", "", imageHelp)
	c.Flags().Var(&f.buffer, "buffer", "largest arguments or result; at most a quarter of the executor's memory")
	c.Flags().Var(&f.timeout, "timeout", "longest run of the function, in Slurm's forms or Go's; 0: none")
	c.Flags().Var(&f.ttl, "ttl", "how long the lease outlives this command if it dies; 0: the broker's default")
	c.Flags().StringVar(&f.account, "account", "", "account for the report; otherwise the job's")
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
		Use:   "sbatch [sbatch options] [--executors N] [--mem-per-executor M] [--cores-per-executor C] [--function LIBRARY:SYMBOL] [--spin TIME] SCRIPT [ARGS...]",
		Short: "Submit a Slurm job whose functions run on leftovers", DisableFlagParsing: true,
		Long: `Submit a job with sbatch. --executors, --mem-per-executor, --cores-per-executor, --function and --spin are taken out, and become the defaults of
gleaner map, invoke and run inside the job; everything else is sbatch's. #GLEANER lines in the script stand for them as #SBATCH lines do; the command line
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
	if wish.Function != "" {
		if wish.Function, err = filepath.Abs(wish.Function); err != nil { // the job may run in another folder
			return fmt.Errorf("function %s: %w", wish.Function, err)
		}
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
