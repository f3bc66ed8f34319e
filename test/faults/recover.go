package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// recoverWithin is how long after a fault's end everything has to work again.
const recoverWithin = 30 * time.Second

// slurmsOwn is why a slurmctld drains a node when it was killed before it saved a job's start: it starts the job anew, and slurmd, which runs
// it already, refuses.
const slurmsOwn = "Duplicate jobid"

// pids are the processes of all roles.
func (r *run) pids() map[string]int {
	found := map[string]int{}
	for _, role := range r.c.Roles() {
		found[role] = r.c.PID(role)
	}
	return found
}

// recovered waits until every daemon runs and is known to those that need it, and judges what Slurm thinks of its nodes.
func (r *run) recovered(ctx context.Context, f Fault, before map[string]int) {
	began := time.Now()
	for role, pid := range before {
		_, what, _ := strings.Cut(f.Kind, " ")
		if killed := strings.HasPrefix(f.Kind, "kill ") && strings.HasPrefix(role, what); r.c.PID(role) != pid && !killed {
			r.violated(fmt.Sprintf("%s died of it; see %s", role, r.c.Log(role)))
			if err := r.c.Start(ctx, role); err != nil {
				r.violated(err.Error())
			}
		}
	}
	last := ""
	for ctx.Err() == nil {
		if last = r.broken(ctx); last == "" {
			break
		}
		if time.Since(began) > recoverWithin {
			r.violated(fmt.Sprintf("%v after its end: %s", recoverWithin, last))
			r.mend(ctx)
			break
		}
		pause(ctx, 50*time.Millisecond)
	}
	took := float64(time.Since(began).Milliseconds())
	r.count(func(p *Report) { p.Kinds[f.Kind].RecoverMS = max(p.Kinds[f.Kind].RecoverMS, took) })
}

// mend brings the nodes back for the faults that follow.
func (r *run) mend(ctx context.Context) {
	_, _ = r.output(ctx, "scontrol", "update", "NodeName="+r.c.NodeList(), "State=RESUME")
}

// broken says what does not work yet, "" when everything does.
func (r *run) broken(ctx context.Context) string {
	said, err := r.output(ctx, "sinfo", "-h", "-N", "-o", "%N %T %E")
	if err != nil {
		return "sinfo: " + err.Error()
	}
	for line := range strings.Lines(said) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		state, reason, _ := strings.Cut(rest, " ")
		if strings.Contains(state, "drain") || strings.Contains(state, "down") || strings.Contains(state, "fail") || strings.HasSuffix(state, "*") {
			r.outOfService(name + " " + state + ": " + reason)
			if reason == slurmsOwn {
				r.mend(ctx)
			}
			return "node " + name + " is " + state + ": " + reason
		}
	}
	for _, node := range r.c.NodeNames() {
		for _, socket := range []string{r.c.AgentSocket(node), r.c.LaunchSocket(node), r.c.ExecutorSocket(node)} {
			if _, err := os.Lstat(socket); err != nil {
				return err.Error()
			}
		}
	}
	return r.unconnected(ctx)
}

// outOfService notes what Slurm did to a node.
func (r *run) outOfService(what string) {
	r.count(func(p *Report) {
		if line := r.current + ": " + what; !slices.Contains(p.Slurm, line) {
			p.Slurm = append(p.Slurm, line)
		}
	})
}

// unconnected names the nodes that the broker cannot use.
func (r *run) unconnected(ctx context.Context) string {
	said, err := r.output(ctx, "gleaner", "nodes", "--output", "json")
	if err != nil {
		return "gleaner nodes: " + err.Error() + ": " + said
	}
	var list struct {
		Nodes []struct {
			Name      string `json:"node"`
			Connected bool   `json:"connected"`
			State     string `json:"slurm_state"`
		} `json:"nodes"`
	}
	if err := json.Unmarshal([]byte(said), &list); err != nil {
		return fmt.Sprintf("gleaner nodes: %v: %s", err, said)
	}
	for _, node := range list.Nodes {
		if !node.Connected || node.State == "" || node.State == "unknown" {
			return fmt.Sprintf("the broker has node %s as connected %t, %q", node.Name, node.Connected, node.State)
		}
	}
	if len(list.Nodes) != nodes {
		return fmt.Sprintf("the broker knows %d nodes", len(list.Nodes))
	}
	return ""
}

// output runs a command in the cluster's environment and returns what it said on both outputs.
func (r *run) output(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 25*time.Second)
	defer cancel()
	cmd := r.c.Command(ctx, name, args...)
	cmd.Dir = r.c.Dir
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}
