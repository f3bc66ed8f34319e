package owner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/gleaner-hpc/gleaner/bench"
)

// hung measures the gate's own force: the agent is stopped, and the hook, which has the gate's code in it, claims the node.
func hung(ctx context.Context, c Config, g *gateway) (*Scenario, error) {
	if c.HungRounds == 0 || c.Hook == "" {
		return nil, nil
	}
	ack := bench.Milliseconds(c.AckDeadline)
	s := &Scenario{
		Name: "agent stopped", What: fmt.Sprintf("gate with the agent stopped (SIGSTOP), %d executors ended by force", c.Executors),
		Against: "the same program with the agent running and nothing to evict", Bound: Bound{P50: ack + 20}, Evicted: c.Executors,
	}
	c.say("%d rounds: %s", c.HungRounds, s.What)
	pid, err := agentPID(c.Socket)
	if err != nil {
		return s, err
	}
	var samples series
	defer s.finish(&samples)
	return s, c.harvested(ctx, 0, c.HungRounds, func() error {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return fmt.Errorf("stop the agent: %w", err)
		}
		took, err := c.hook(ctx, "prolog")
		s.Left = s.Left.max(leftover(cgroupRoot, c.CgroupParent, c.Node))
		if err = errors.Join(err, syscall.Kill(pid, syscall.SIGCONT)); err != nil {
			return err
		}
		// The claim that nobody waits for any more is still in the socket: the agent takes it, and the release after it.
		base, err := c.hook(ctx, "prolog")
		_, err2 := c.hook(ctx, "epilog")
		samples.add(trip{done: took}, base)
		return errors.Join(err, err2)
	})
}

// hook runs Prolog or Epilog as slurmd does at a site without the gate.
func (c Config) hook(ctx context.Context, context string) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, c.Hook, context, "conf=/dev/null", "socket="+c.Socket, "cgroup="+c.CgroupParent, "mode=blunt",
		"ack="+strconv.FormatInt(c.AckDeadline.Milliseconds(), 10))
	cmd.Env = append(os.Environ(), "SLURMD_NODENAME="+c.Node, "SLURM_JOB_ID="+strconv.Itoa(firstJob))
	begin := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("run %s: %w: %s", c.Hook, err, out)
	}
	return time.Since(begin), nil
}
