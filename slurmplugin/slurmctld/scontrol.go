package slurmctld

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// commands reads through Slurm's commands. squeue is asked for fields that no user can write and is the authority on jobs;
// scontrol's text, in which a job's name may hold anything, even line ends, adds only what a job holds on its nodes.
type commands struct {
	run func(ctx context.Context, name string, args ...string) (string, error)
	now func() time.Time
}

func (c *commands) read(ctx context.Context) (*View, error) {
	asOf := c.now()
	nodes, err := c.run(ctx, "scontrol", "show", "node", "-a", "-o", "-d")
	if err != nil {
		return nil, err
	}
	jobs, err := c.run(ctx, "squeue", "-a", "-h", "-t", "all", "-o", squeueFormat)
	if err != nil {
		return nil, err
	}
	details, err := c.run(ctx, "scontrol", "show", "job", "-a", "-o", "-d")
	if err != nil {
		return nil, err
	}
	v := &View{AsOf: asOf}
	if v.Nodes, err = parseNodes(nodes); err != nil {
		return nil, err
	}
	if v.Jobs, err = parseQueue(jobs); err != nil {
		return nil, err
	}
	addShares(v, details)
	return v, nil
}

// runner runs commands with times in UTC and in ISO form.
func runner(slurmConf string) func(context.Context, string, ...string) (string, error) {
	return func(ctx context.Context, name string, args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Env = append(os.Environ(), "TZ=UTC", "SLURM_TIME_FORMAT=standard", "LC_ALL=C")
		if slurmConf != "" {
			cmd.Env = append(cmd.Env, "SLURM_CONF="+slurmConf)
		}
		cmd.WaitDelay = time.Second
		out, err := cmd.Output()
		if err != nil {
			var exit *exec.ExitError
			if errors.As(err, &exit) && len(exit.Stderr) > 0 {
				return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(exit.Stderr)))
			}
			return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
		}
		return string(out), nil
	}
}
