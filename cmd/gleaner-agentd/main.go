// Command gleaner-agentd is a node's agent: it starts executors on what Slurm has allocated to nobody and evicts them the moment a
// job claims it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// version is set by the linker.
var version = "devel"

func main() {
	file := flag.String("config", envOr("GLEANER_CONF", "/etc/gleaner/agent.toml"), "configuration `file`")
	node := flag.String("node", "", "node's `name` in slurm.conf; overrides node.name")
	show := flag.Bool("version", false, "print the version and exit")
	flag.Parse()
	if *show {
		fmt.Println("gleaner-agentd", version)
		return
	}
	// A small heap: the agent shares its node with jobs.
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(24 << 20)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, *file, *node); err != nil && !errors.Is(err, context.Canceled) {
		slog.New(slog.NewTextHandler(os.Stderr, nil)).Error("agent ends", "error", err)
		os.Exit(1)
	}
}

func envOr(name, value string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return value
}
