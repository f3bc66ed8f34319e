// Command launch is the one privileged process of a node: it starts, freezes and ends sandboxes for the agent, which alone may
// connect to its socket. It answers the contract of package api/launcher and decides nothing. A SIGTERM ends it and leaves the
// sandboxes running, for the next launch to adopt; --cleanup ends them and removes every trace.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"os/user"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/executor/sandbox"
)

type options struct {
	socket  string
	orphans time.Duration
	cleanup bool
	cfg     sandbox.Config
}

func main() {
	if sandbox.IsInit() {
		sandbox.Init()
	}
	unix.Umask(0o022) // an unprivileged id sets sandboxes up, in the folders that are made here
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	o, err := parse(os.Args[1:], log)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "launch:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	if err := run(ctx, o); err != nil {
		log.Error("launch", "error", err)
		os.Exit(1)
	}
}

func parse(args []string, log *slog.Logger) (options, error) {
	o := options{cfg: sandbox.Config{Log: log}}
	name, _ := os.Hostname()
	host, _, _ := strings.Cut(name, ".")
	f := flag.NewFlagSet("launch", flag.ContinueOnError)
	f.StringVar(&o.socket, "socket", "/run/gleaner-launch/launch.sock", "Unix socket on which the agent asks")
	f.Func("agent-uid", "user that may ask: a name, or the number of user and group (default root)", func(s string) (err error) {
		o.cfg.AgentUID, o.cfg.AgentGID, err = agentIDs(s)
		return err
	})
	f.StringVar(&o.cfg.RunDir, "run-dir", "/run/gleaner-launch", "folder for the sandboxes' state; all folders above it searchable by all")
	f.StringVar(&o.cfg.Libexec, "libexec", "/usr/libexec/gleaner", "folder of the executor")
	f.StringVar(&o.cfg.CgroupParent, "cgroup-parent", "gleaner", "top cgroup of all nodes' sandboxes")
	f.StringVar(&o.cfg.Node, "node", host, "name of this node")
	f.Func("device", "device file or pattern that sandboxes may be given (repeatable)", func(s string) error {
		o.cfg.Devices = append(o.cfg.Devices, s)
		return nil
	})
	f.StringVar(&o.cfg.Command, "command", sandbox.DefaultCommand, "command line of the executor, %i for the sandbox's id")
	f.BoolVar(&o.cfg.Fair, "fair", false, "let functions compete for cores like everybody else, as where nodes of a test share one machine; otherwise they get what nobody wants")
	f.DurationVar(&o.orphans, "orphan-timeout", 2*time.Minute, "end all sandboxes when no agent has been connected for this long; as evict.orphan_timeout in agent.toml; 0: never")
	f.BoolVar(&o.cleanup, "cleanup", false, "end all sandboxes of the node, remove every trace of them, and exit")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	return o, nil
}

// agentIDs reads --agent-uid.
func agentIDs(text string) (uid, gid int, err error) {
	known := &user.User{Uid: text, Gid: text}
	if _, err := strconv.ParseUint(text, 10, 31); err != nil {
		if known, err = user.Lookup(text); err != nil {
			return 0, 0, err
		}
	}
	_, err = fmt.Sscan(known.Uid+" "+known.Gid, &uid, &gid)
	return uid, gid, err
}

func run(ctx context.Context, o options) error {
	if o.cleanup {
		return sandbox.CleanUp(o.cfg)
	}
	manager, err := sandbox.New(o.cfg)
	if err != nil {
		return err
	}
	defer manager.Close()
	o.cfg.Log.Info("ready", "socket", o.socket, "node", o.cfg.Node)
	s := &server{manager: manager, uid: uint32(o.cfg.AgentUID), log: o.cfg.Log, orphanTimeout: o.orphans}
	return s.serve(ctx, o.socket)
}
