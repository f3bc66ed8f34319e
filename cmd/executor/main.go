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
	"syscall"

	"github.com/gleaner-hpc/gleaner/executor"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "executor:", err)
		os.Exit(1)
	}
}

func run() error {
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
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return executor.Run(ctx, cfg)
}
