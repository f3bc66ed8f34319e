// Command cluster is what make cluster-up, cluster-down and cluster-env run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/gleaner-hpc/gleaner/test/cluster"
)

const defaultDir = ".cluster"

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: cluster up|down|env|restart [flags]")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(verb string, args []string) error {
	var o cluster.Options
	var without string
	flags := flag.NewFlagSet("cluster "+verb, flag.ExitOnError)
	flags.StringVar(&o.Dir, "dir", defaultDir, "the cluster's folder")
	flags.StringVar(&o.Build, "build", "", "prefix with Gleaner's binaries (default build/ beside go.mod)")
	flags.IntVar(&o.Nodes, "nodes", 4, "number of nodes")
	flags.IntVar(&o.Parked, "parked", 0, "sandboxes that each agent keeps ahead of demand")
	flags.StringVar((*string)(&o.Mode), "mode", string(cluster.Virtual), "virtual or cgroup")
	flags.StringVar(&without, "without", "", "roles that are not started: agentd, brokerd, launch, gate, hook")
	_ = flags.Parse(args)
	if o.Nodes < 1 {
		return fmt.Errorf("-nodes %d: want at least 1", o.Nodes)
	}
	o.Without = strings.Fields(strings.ReplaceAll(without, ",", " "))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch verb {
	case "up":
		return up(ctx, o)
	case "down":
		return down(o.Dir)
	case "env":
		return env(o.Dir)
	case "restart":
		return restart(ctx, o.Dir, flags.Args())
	}
	return fmt.Errorf("%q: want up, down, env or restart", verb)
}

func up(ctx context.Context, o cluster.Options) error {
	began := time.Now()
	c, err := cluster.Up(ctx, o)
	if err != nil && ctx.Err() != nil && len(cluster.Traces(o.Dir)) == 0 {
		return errors.New("interrupted; nothing is left")
	}
	if err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	if names := c.NodeNames(); len(names) == 1 {
		fmt.Printf("1 node %s is up after %.1f s in %s\n", names[0], took, c.Dir)
	} else {
		fmt.Printf("%d nodes %s are up after %.1f s in %s\n", len(names), c.NodeList(), took, c.Dir)
	}
	where := ""
	if o.Dir != defaultDir {
		where = " DIR=" + o.Dir
	}
	for _, line := range c.Skipped() {
		fmt.Println("  without", line)
	}
	fmt.Printf("use it:  eval \"$(make -s cluster-env%s)\"     end it:  make cluster-down%s\n", where, where)
	return nil
}

// down also succeeds where no cluster is.
func down(dir string) error {
	if err := cluster.Clean(dir); err != nil {
		return err
	}
	if traces := cluster.Traces(dir); len(traces) > 0 {
		return fmt.Errorf("left behind: %s", strings.Join(traces, "; "))
	}
	return nil
}

// restart makes daemons read their files again.
func restart(ctx context.Context, dir string, roles []string) error {
	c, err := cluster.Open(dir)
	if err != nil {
		return err
	}
	for _, role := range roles {
		if err := c.Restart(ctx, role); err != nil {
			return err
		}
	}
	return nil
}

func env(dir string) error {
	c, err := cluster.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("no cluster is up in %s: start one with make cluster-up", dir)
	}
	if err != nil {
		return err
	}
	for _, pair := range c.Env() {
		name, value, _ := strings.Cut(pair, "=")
		if name == "PATH" { // whatever the shell has by then
			value = strings.TrimSuffix(value, os.Getenv("PATH"))
			fmt.Printf("export PATH=%s\"$PATH\"\n", quote(value))
			continue
		}
		fmt.Printf("export %s=%s\n", name, quote(value))
	}
	return nil
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
