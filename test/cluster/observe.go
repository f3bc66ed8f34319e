package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// listensUnix looks for a listening socket without connecting to it: daemons log a caller that says nothing. A daemon that binds
// elsewhere and renames is known by a socket that is not the one from before its start.
func listensUnix(path string, before os.FileInfo) bool {
	const flags, name = 3, 7
	text, _ := os.ReadFile("/proc/net/unix")
	bound := false
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) <= name || fields[name] != path {
			continue
		}
		if fields[flags] == "00010000" { // __SO_ACCEPTCON
			return true
		}
		bound = true
	}
	now, err := os.Stat(path)
	if err != nil || bound || now.Mode()&os.ModeSocket == 0 {
		return false
	}
	return before == nil || !os.SameFile(before, now) || !before.ModTime().Equal(now.ModTime())
}

func listensTCP(port string) bool {
	const local, state = 1, 3
	number, err := strconv.Atoi(port)
	if err != nil {
		return false
	}
	suffix := fmt.Sprintf(":%04X", number)
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, _ := os.ReadFile(file)
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) > state && strings.HasSuffix(fields[local], suffix) && fields[state] == "0A" { // TCP_LISTEN
				return true
			}
		}
	}
	return false
}

// waitIdle waits until slurmctld calls every node idle.
func (c *Cluster) waitIdle(ctx context.Context) error {
	var said string
	err := until(ctx, startTimeout, func() bool {
		out, err := c.Command(ctx, "sinfo", "-h", "-t", "idle", "-o", "%D %T").CombinedOutput()
		said = strings.TrimSpace(string(out))
		return err == nil && said == fmt.Sprintf("%d idle", c.Nodes)
	})
	if err != nil {
		return fmt.Errorf("wait for %d idle nodes: %w; sinfo says %q", c.Nodes, err, said)
	}
	return nil
}

// waitConnected waits until the broker has heard of every node from its agent and from slurmctld, where all of them run.
func (c *Cluster) waitConnected(ctx context.Context) error {
	if !executable(c.lib("bin", "gleaner")) || c.PID("brokerd") == 0 || c.PID("agentd/"+c.NodeNames()[0]) == 0 {
		return nil
	}
	var said string
	err := until(ctx, startTimeout, func() bool {
		out, err := c.Command(ctx, "gleaner", "nodes", "--output", "json").CombinedOutput()
		said = string(out)
		return err == nil && connected(out) == c.Nodes
	})
	if err != nil {
		return fmt.Errorf("wait until the broker knows %d nodes: %w; gleaner nodes says %s", c.Nodes, err, said)
	}
	return nil
}

func connected(answer []byte) int {
	var list struct {
		Nodes []struct {
			Connected bool   `json:"connected"`
			State     string `json:"slurm_state"`
		} `json:"nodes"`
	}
	if json.Unmarshal(answer, &list) != nil {
		return 0
	}
	count := 0
	for _, node := range list.Nodes {
		if node.Connected && node.State != "" && node.State != "unknown" {
			count++
		}
	}
	return count
}

// LogTails is the end of each daemon's log, for the text of an error.
func (c *Cluster) LogTails(lines int) string {
	var b strings.Builder
	files, _ := filepath.Glob(c.path("log", "*.log"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || len(text) == 0 {
			continue
		}
		all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
		all = all[max(0, len(all)-lines):]
		fmt.Fprintf(&b, "--- %s\n%s\n", filepath.Base(file), strings.Join(all, "\n"))
	}
	return b.String()
}

// until asks ok every 20 ms until it holds, ctx ends or the time is over.
func until(ctx context.Context, limit time.Duration, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}
