// Command images makes images into roots for sandboxes: it speaks to the node's Podman, mounts the layers of what is asked for
// read-only below the launcher's run directory, and holds on to what is in use. The agent alone asks it, by the contract of package
// api/images. It is needed on nodes where images may be asked for, and nowhere else.
//
// It runs as root, as whoever may use Podman's socket is in effect; it opens files of users with their ids alone, runs nothing of an
// image, and takes no name from an archive.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"os/user"
	"strconv"
	"syscall"
	"time"
)

var version = "unknown"

// Config is what the command line says.
type Config struct {
	Socket   string        // where the agent asks
	AgentUID int           // that may ask, beside root
	Podman   string        // Podman's socket, as unix:///path
	RunDir   string        // the launcher's
	Worker   string        // the executor's worker, which runs in the images
	Idle     time.Duration // that an unused root stays mounted
	Spool    string        // folder for archives while they are read; "" means below RunDir
	MaxBytes int64         // of an archive
}

func main() {
	c := Config{}
	flag.StringVar(&c.Socket, "socket", "/run/gleaner-launch/images.sock", "Unix socket on which the agent asks")
	flag.Func("agent-uid", "uid or name of the user that may ask, beside root", func(s string) error {
		if u, err := user.Lookup(s); err == nil {
			s = u.Uid
		}
		uid, err := strconv.Atoi(s)
		c.AgentUID = uid
		return err
	})
	flag.StringVar(&c.Podman, "podman", "unix:///run/podman/podman.sock", "Podman's socket")
	flag.StringVar(&c.RunDir, "run-dir", "/run/gleaner-launch", "the launcher's run directory")
	flag.StringVar(&c.Worker, "worker", "/usr/libexec/gleaner/worker", "the executor's worker, which has to run in the images")
	flag.DurationVar(&c.Idle, "idle", 10*time.Minute, "how long an unused image stays mounted")
	flag.StringVar(&c.Spool, "spool", "/var/tmp", "folder for archives while they are read")
	flag.Int64Var(&c.MaxBytes, "max-archive", 16<<30, "bytes that an archive may have, unpacked from gzip")
	about := flag.Bool("version", false, "print the version and exit")
	flag.Parse()
	if *about {
		fmt.Println("images", version)
		return
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, c, log); err != nil {
		log.Error("images", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, c Config, log *slog.Logger) error {
	needs, err := needsOf(c.Worker)
	if err != nil {
		return fmt.Errorf("read what the worker needs: %w; name it by --worker", err)
	}
	s, err := newStore(c, needs, log)
	if err != nil {
		return err
	}
	go s.tidy(ctx)
	return serve(ctx, c, s, log)
}
