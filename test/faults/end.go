package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/gleaner-hpc/gleaner/test/cluster"
)

// endWithin is longer than the 30 s after which the agent believes slurmctld that a job is gone whose Epilog could not tell it: after the last
// map and job nothing may be left then, and everything has to be free again.
const endWithin = 50 * time.Second

// end judges what is left when all work is over, and takes the cluster down.
func (r *run) end() {
	ctx := context.Background()
	r.count(func(*Report) { r.current = "the end" })
	r.within("left behind", func() string { return strings.Join(r.c.Leftovers(), ", ") })
	r.within("not free again", func() string { return r.unfree(ctx) })
	if wrong := r.sums(ctx); wrong != "" {
		r.violated(wrong)
	}
	r.report.Seconds = time.Since(r.began).Seconds()
	if len(r.report.Violations) > 0 && r.cfg.Keep != "" {
		_ = os.RemoveAll(r.cfg.Keep)
		_ = os.MkdirAll(r.cfg.Keep, 0o755)
		_ = exec.Command("cp", "-r", filepath.Join(r.c.Dir, "log"), r.folder, r.cfg.Keep).Run()
	}
	if err := r.c.Down(); err != nil {
		r.violated(err.Error())
	}
	if traces := cluster.Traces(r.c.Dir); len(traces) > 0 {
		r.violated("left behind by the cluster: " + strings.Join(traces, ", "))
	}
}

// within waits until wrong says nothing any more.
func (r *run) within(what string, wrong func() string) {
	last := ""
	for began := time.Now(); time.Since(began) < endWithin; {
		if last = wrong(); last == "" {
			return
		}
		pause(context.Background(), 100*time.Millisecond)
	}
	r.violated(fmt.Sprintf("%v after the last map and job, %s: %s", endWithin, what, last))
}

// unfree names a node that the broker does not have as free as it is.
func (r *run) unfree(ctx context.Context) string {
	said, err := r.output(ctx, "gleaner", "nodes", "--output", "json")
	var list struct {
		Nodes []struct {
			Node      string
			Admitting bool
			WhyNot    string `json:"why_not"`
			Free      struct{ Cores, GPUs int }
		}
	}
	if err == nil {
		err = json.Unmarshal([]byte(said), &list)
	}
	if err != nil {
		return fmt.Sprintf("gleaner nodes: %v: %s", err, said)
	}
	for _, n := range list.Nodes {
		if !n.Admitting || n.Free.Cores != cpus || n.Free.GPUs != 2 {
			return fmt.Sprintf("%s: admitting %t (%s), %d cores and %d GPUs free", n.Node, n.Admitting, n.WhyNot, n.Free.Cores, n.Free.GPUs)
		}
	}
	return ""
}

// sums says what is wrong with the report's sums.
func (r *run) sums(ctx context.Context) string {
	said, err := r.output(ctx, "gleaner", "report", "--output", "json")
	var page struct {
		CPU map[string]int64 `json:"cpu_ms"`
	}
	if err == nil {
		err = json.Unmarshal([]byte(said), &page)
	}
	if err != nil {
		return fmt.Sprintf("gleaner report: %v: %s", err, head(said, 1000))
	}
	sum := int64(0)
	for _, slice := range []string{"allocated", "harvested", "down", "planned_down", "planned", "idle"} {
		sum += page.CPU[slice]
	}
	if sum != page.CPU["reported"] || page.CPU["harvested"] == 0 {
		return fmt.Sprintf("the report's slices %v add up to %d", page.CPU, sum)
	}
	return ""
}
