package main

import (
	"context"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/gleaner-hpc/gleaner/client"
	"github.com/gleaner-hpc/gleaner/client/batch"
)

func (a *app) invokeCommand() *cobra.Command {
	var f leaseFlags
	var out string
	c := &cobra.Command{
		Use: "invoke FUNCTION [INPUT-FILE|-]", Short: "Run a function once and print its result", Args: cobra.RangeArgs(1, 2),
		Long: `Run a function once. FUNCTION is path/to/lib.so:symbol; without a symbol the file's name stands for it, without lib and extension.
The input is a file's content, standard input for -, or nothing. The result goes to standard output as it is, or to --out.`,
		RunE: func(c *cobra.Command, args []string) error {
			function, err := client.LoadFunction(args[0])
			if err != nil {
				return &exitError{exitUsage, err}
			}
			input, err := a.readInput(args[1:])
			if err != nil {
				return &exitError{exitUsage, err}
			}
			request, err := f.request(function, 1, int64(len(input)), a.getenv)
			if err != nil {
				return err
			}
			result, err := a.invoke(c.Context(), request, input)
			if err != nil {
				return err
			}
			if out != "" {
				return batch.Write(out, result)
			}
			_, err = a.stdout.Write(result)
			return err
		},
	}
	f.add(c.Flags(), a.getenv)
	c.Flags().StringVarP(&out, "out", "o", "", "file for the result")
	return c
}

func (a *app) readInput(args []string) ([]byte, error) {
	switch {
	case len(args) == 0:
		return nil, nil
	case args[0] == "-":
		return io.ReadAll(a.stdin)
	}
	return os.ReadFile(args[0])
}

func (a *app) invoke(ctx context.Context, request client.Request, input []byte) ([]byte, error) {
	broker, err := a.dial()
	if err != nil {
		return nil, err
	}
	defer broker.Close()
	answered := a.await(ctx, broker, request.Job)
	lease, err := broker.Acquire(ctx, request)
	answered()
	if err != nil {
		return nil, err
	}
	watch := a.follow(lease, 1)
	result, err := lease.Invoke(ctx, input)
	watch.stop()
	release, cancel := context.WithTimeout(context.WithoutCancel(ctx), batch.ReleaseTimeout)
	defer cancel()
	if e := lease.Release(release); err == nil && e != nil {
		a.warn(e) // the result stands; the lease ends by itself
	}
	return result, err
}
