// Package cluster brings up a real Slurm cluster on one machine: munged with a key of its own, slurmctld, several slurmds and
// slurmrestd, and beside them Gleaner's broker and, per node, launcher and agent, as far as they are built. Everything lives below
// one folder and on free ports, beside any Slurm that the machine runs already.
//
// It owns the folder, the processes it started, the cgroups that carry the cluster's node names, and the mounts below the folder.
// Down needs no memory of the past beyond the folder's path: it works after the death of any process, and of the harness itself.
// It decides nothing about jobs. It is called by the end-to-end tests, the demo and make cluster-up.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Mode says what a node of the cluster is made of.
type Mode string

const (
	// Virtual nodes claim CPUs that the machine need not have; jobs have memory cgroups but no cpusets.
	Virtual Mode = "virtual"
	// Cgroup nodes each have the machine's real cores, with cpusets. Nodes share the cores: meant for one node.
	Cgroup Mode = "cgroup"
)

// Options describe a cluster. The zero value of each field but Dir has a meaning.
type Options struct {
	// Dir is the cluster's folder; what is in it is replaced when it holds a cluster, refused otherwise. Cluster.Dir is another
	// one in /tmp when paths below this one were too long for sockets or closed to other users.
	Dir       string
	Build     string   // installation prefix with Gleaner's binaries; "" means build/ beside go.mod, searched upwards
	Nodes     int      // 0 means 4
	Mode      Mode     // "" means Virtual
	CPUs      int      // per virtual node; 0 means 8
	MemoryMiB int      // per node; 0 means 4000
	GPUs      int      // fake devices per node; 0 means 2, negative none
	Without   []string // roles not started, such as "agentd" or "brokerd"
	Parked    int      // sandboxes that each agent keeps ahead of demand, default 0
	SlurmConf []string // lines added to slurm.conf
	// StateMiB puts the broker's state and that of each agent on a file system of this size of its own, so that it can be filled; 0 means
	// plain folders.
	StateMiB int
	Programs map[string]string // by role without node, such as "agentd": run this instead of what is built
}

// Cluster is a running cluster, or the rest of one.
type Cluster struct {
	spec
	children children
}

// ErrUnavailable is wrapped when this machine cannot run a cluster; the error says why.
var ErrUnavailable = errors.New("no Slurm cluster can run here")

// startTimeout bounds how long a daemon may take until it is ready.
const startTimeout = 20 * time.Second

// Available says why no cluster can run here, or nil.
func Available() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: it needs root", ErrUnavailable)
	}
	for _, name := range []string{"munged", "slurmctld", "slurmd", "slurmrestd", "srun"} {
		if _, err := program(name); err != nil {
			return fmt.Errorf("%w: %s is not installed; run make deps", ErrUnavailable, name)
		}
	}
	if _, err := os.Stat("/sys/fs/cgroup"); err != nil {
		return fmt.Errorf("%w: no cgroups: %w", ErrUnavailable, err)
	}
	return nil
}

// Up brings a cluster up and returns when all its nodes are idle and all its daemons answer. A cluster that is in the folder
// already, dead or alive, is taken down first. After an error nothing is left but the daemons' logs in the error's text.
func Up(ctx context.Context, o Options) (*Cluster, error) {
	if err := Available(); err != nil {
		return nil, err
	}
	s, err := newSpec(o)
	if err != nil {
		return nil, err
	}
	if err := claim(s.Dir); err != nil {
		return nil, err
	}
	c := &Cluster{spec: *s}
	if err := c.up(ctx); err != nil {
		logs := c.LogTails(12)
		return nil, errors.Join(fmt.Errorf("cluster up in %s: %w\n%s", s.Dir, err, logs), c.Down())
	}
	return c, nil
}

// Open returns the cluster that Up left in a folder.
func Open(dir string) (*Cluster, error) {
	s, err := loadSpec(dir)
	if err != nil {
		return nil, err
	}
	return &Cluster{spec: *s}, nil
}

func (c *Cluster) up(ctx context.Context) error {
	if err := c.choosePorts(); err != nil {
		return err
	}
	if err := c.writeFiles(); err != nil {
		return err
	}
	for _, d := range c.daemons() {
		if c.skipped(d) != "" {
			continue
		}
		if err := c.start(d); err != nil {
			return err
		}
		if d.role == "munged" || d.role == "brokerd" || kind(d.role) == "launch" { // the others need them at once
			if err := c.waitReady(ctx, d); err != nil {
				return err
			}
		}
	}
	for _, d := range c.daemons() {
		if c.skipped(d) != "" {
			continue
		}
		if err := c.waitReady(ctx, d); err != nil {
			return err
		}
	}
	if err := c.waitIdle(ctx); err != nil {
		return err
	}
	return c.waitConnected(ctx)
}

// Down ends the cluster: no process, mount, cgroup or file of it is left. It may be repeated.
func (c *Cluster) Down() error { return Clean(c.Dir) }

// Env is what a user of the cluster needs in the environment, as KEY=VALUE.
func (c *Cluster) Env() []string {
	path := filepath.Join(c.Build, "bin") + ":" + os.Getenv("PATH")
	return []string{
		"SLURM_CONF=" + c.SlurmConf(),
		"GLEANER_CONF=" + c.ClientConf(),
		"GLEANER_BROKER=" + c.Broker(),
		"GLEANER_CLUSTER=" + c.Dir,
		"PATH=" + path,
	}
}

// Command is exec.CommandContext in the cluster's environment; what the caller's environment says of other clusters and jobs is
// left out.
func (c *Cluster) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	if !strings.Contains(name, "/") {
		if path := filepath.Join(c.Build, "bin", name); executable(path) {
			name = path
		} else if path, err := program(name); err == nil {
			name = path
		}
	}
	cmd := exec.CommandContext(ctx, name, args...)
	for _, pair := range os.Environ() {
		foreign := strings.HasPrefix(pair, "SLURM") || strings.HasPrefix(pair, "GLEANER_") || strings.HasPrefix(pair, "PATH=")
		if !foreign {
			cmd.Env = append(cmd.Env, pair)
		}
	}
	cmd.Env = append(cmd.Env, c.Env()...)
	cmd.WaitDelay = 2 * time.Second
	return cmd
}
