package cluster

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// daemon is one long-lived process of the cluster. Its role is "slurmctld", "brokerd", … and per node "slurmd/NODE",
// "launch/NODE" or "agentd/NODE".
type daemon struct {
	role   string
	path   string // "" when it is not installed
	args   []string
	cred   *syscall.Credential
	env    []string
	socket string // answers on this Unix socket when it is ready
	tcp    string // or at this address
	ours   bool   // built here, and left out when it is not
}

// daemons lists all of them in the order in which they start.
func (c *Cluster) daemons() []daemon {
	conf := c.SlurmConf()
	list := []daemon{
		{role: "munged", socket: c.MungeSocket(), args: []string{
			"--foreground", "--force", "--key-file=" + c.etc("munge.key"), "--socket=" + c.MungeSocket(),
			"--pid-file=" + c.path("munge", "munged.pid"), "--log-file=" + c.path("munge", "munged.log"),
			"--seed-file=" + c.path("munge", "munged.seed"), "--num-threads=4",
		}},
		{role: "slurmctld", args: []string{"-D", "-i", "-f", conf}, tcp: fmt.Sprintf("127.0.0.1:%d", c.Port)},
	}
	for i, node := range c.NodeNames() {
		list = append(list, daemon{role: "slurmd/" + node, args: []string{"-D", "-N", node, "-f", conf}, tcp: fmt.Sprintf("127.0.0.1:%d", c.Port+1+i)})
	}
	list = append(list, daemon{
		role: "slurmrestd", socket: c.RestSocket(), cred: brokerUser(),
		// It refuses to be root, and answers its own user: the broker.
		args: []string{"-f", conf, "-a", "rest_auth/local", "-s", "openapi/v0.0.36,openapi/v0.0.37,openapi/v0.0.38", "unix:" + c.RestSocket()},
	})
	for i := range list {
		list[i].path, _ = program(kind(list[i].role))
	}
	return append(list, c.ownDaemons()...)
}

func (c *Cluster) ownDaemons() []daemon {
	list := []daemon{{
		role: "brokerd", path: c.passable(c.lib("bin", "gleaner-brokerd")), tcp: c.Broker(), ours: true, cred: brokerUser(),
		args: []string{"--config", c.etc("broker.toml")},
	}}
	fair := fmt.Sprintf("--fair=%t", c.Mode == Virtual) // the machine has fewer cores than the nodes claim
	for _, node := range c.NodeNames() {
		launch := []string{
			"--socket", c.LaunchSocket(node), "--run-dir", c.RunDir(node), "--libexec", c.lib("libexec", "gleaner"),
			"--cgroup-parent", c.CgroupParent(), "--node", node, fair, "--agent-uid", strconv.Itoa(int(agentUser().Uid)),
		}
		for i := range c.GPUs {
			launch = append(launch, "--device", c.gpuFile(i))
		}
		list = append(list, daemon{
			role: "launch/" + node, path: c.lib("libexec", "gleaner", "launch"), socket: c.LaunchSocket(node), ours: true, args: launch,
		}, daemon{
			role: "agentd/" + node, path: c.passable(c.lib("bin", "gleaner-agentd")), socket: c.AgentSocket(node), ours: true, cred: agentUser(),
			args: []string{"--config", c.etc("agent-" + node + ".toml")},
		})
	}
	for i, d := range list {
		if path := c.Programs[kind(d.role)]; path != "" {
			list[i].path, list[i].env = c.passable(path), []string{"GLEANER_TEST_CLOCK=" + c.ClockFile(d.role)}
		}
	}
	return list
}

// skipped says why a daemon is not started, or "".
func (c *Cluster) skipped(d daemon) string {
	switch {
	case c.without(d.role):
		return "left out as asked"
	case d.ours && !executable(d.path):
		return "not built: " + d.path
	}
	return ""
}

// Skipped lists what the cluster runs without and why, one line each.
func (c *Cluster) Skipped() []string {
	var lines []string
	seen := map[string]bool{}
	for _, d := range c.daemons() {
		if why := c.skipped(d); why != "" && !seen[kind(d.role)] {
			seen[kind(d.role)] = true
			lines = append(lines, kind(d.role)+": "+why)
		}
	}
	if !c.hooked() {
		lines = append(lines, "hook: no Prolog and Epilog: not built, or left out")
	}
	if !c.gated() {
		lines = append(lines, "gate: spank_gleaner.so is not built, or left out")
	}
	return lines
}

// Roles lists the daemons that run or ought to.
func (c *Cluster) Roles() []string {
	var roles []string
	for _, d := range c.daemons() {
		if c.skipped(d) == "" {
			roles = append(roles, d.role)
		}
	}
	return roles
}

func kind(role string) string {
	kind, _, _ := strings.Cut(role, "/")
	return kind
}

func (c *Cluster) daemon(role string) (daemon, error) {
	for _, d := range c.daemons() {
		if d.role == role {
			return d, nil
		}
	}
	return daemon{}, fmt.Errorf("cluster %s has no role %q; it has %s", c.Name, role, strings.Join(c.Roles(), " "))
}

// ready says whether the daemon listens.
func (c *Cluster) ready(d daemon) bool {
	if d.socket != "" {
		return listensUnix(d.socket, c.children.sockets[d.role])
	}
	_, port, _ := strings.Cut(d.tcp, ":")
	return listensTCP(port)
}

// waitReady waits until a started daemon answers. A daemon that dies before is an error.
func (c *Cluster) waitReady(ctx context.Context, d daemon) error {
	died := false
	err := until(ctx, startTimeout, func() bool {
		died = c.PID(d.role) == 0
		return died || c.ready(d)
	})
	if died {
		return fmt.Errorf("%s ended at its start; see %s", d.role, c.Log(d.role))
	}
	if err != nil {
		return fmt.Errorf("wait for %s on %s%s: %w", d.role, d.socket, d.tcp, err)
	}
	return nil
}

// PID is the process of a role, or 0 when it does not run.
func (c *Cluster) PID(role string) int {
	r, err := readRecord(c.path("proc", fileName(role)+".json"))
	if err != nil || !r.alive() {
		return 0
	}
	return r.PID
}

// Kill sends a signal to the process of a role. After SIGKILL it waits until the process has gone, so that the role can be started again.
func (c *Cluster) Kill(role string, signal syscall.Signal) error {
	r, err := readRecord(c.path("proc", fileName(role)+".json"))
	if err != nil || !r.alive() {
		return fmt.Errorf("signal %s of cluster %s: it does not run", role, c.Name)
	}
	err = syscall.Kill(r.PID, signal)
	for until := time.Now().Add(killTime); signal == syscall.SIGKILL && r.alive() && time.Now().Before(until); {
		time.Sleep(time.Millisecond)
	}
	return err
}

// killTime is what a killed process may take to go on a busy machine.
const killTime = 10 * time.Second

// Stop ends the process of a role: SIGTERM, and SIGKILL when it has not gone after the grace that the daemons need.
func (c *Cluster) Stop(role string) error {
	r, err := readRecord(c.path("proc", fileName(role)+".json"))
	if err != nil {
		return err
	}
	endAll([]record{r}, stopGrace)
	return nil
}

// Start starts a role that does not run, and waits until it answers.
func (c *Cluster) Start(ctx context.Context, role string) error {
	d, err := c.daemon(role)
	if err != nil {
		return err
	}
	if why := c.skipped(d); why != "" {
		return fmt.Errorf("start %s: %s", role, why)
	}
	if pid := c.PID(role); pid != 0 {
		return fmt.Errorf("start %s: it runs already as process %d", role, pid)
	}
	if err := c.start(d); err != nil {
		return err
	}
	return c.waitReady(ctx, d)
}

// Restart ends a role, if it runs, and starts it again.
func (c *Cluster) Restart(ctx context.Context, role string) error {
	if c.PID(role) != 0 {
		if err := c.Stop(role); err != nil {
			return err
		}
	}
	return c.Start(ctx, role)
}
