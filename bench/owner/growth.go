package owner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/bench"
	"github.com/gleaner-hpc/gleaner/bench/program"
	"github.com/gleaner-hpc/gleaner/client"
)

// GrowthSchema is the version of the document that Grow makes.
const GrowthSchema = "gleaner.bench.growth/1"

// Growth says what is measured, and where.
type Growth struct {
	Client       *client.Client
	Resident     *client.Function // contrib/functions/resident.c
	Node         string           // as slurm.conf names it
	CgroupParent string
	Policy       string   // name of the broker's policy, for the document
	Job          []string // command that starts bench/owner/jobs/grow.c as a job of its own, the only one on the node; the rate is added
	Executors    int      // of one core each, with all that is lent between them
	Rate         uint64   // bytes per second
	Rounds       int      // with executors, and as many without
	Progress     io.Writer
}

// Figure is one line of the result.
type Figure struct {
	Name     string        `json:"name"`
	What     string        `json:"what"`
	Measured bench.Summary `json:"measured"`
	Baseline bench.Summary `json:"baseline"` // of the same job with nothing lent
	Bound    Bound         `json:"bound"`
	Within   bool          `json:"within"`
	Samples  []float64     `json:"samples_ms"`
	BaseEach []float64     `json:"baseline_ms"`
}

// GrowthResult is the document.
type GrowthResult struct {
	Schema     string        `json:"schema"`
	Time       time.Time     `json:"time"`
	Node       string        `json:"node"`
	Policy     string        `json:"policy"`
	Machine    bench.Machine `json:"machine"`
	Rate       uint64        `json:"bytes_per_second"`
	Allocation uint64        `json:"allocation_bytes"`
	Limit      uint64        `json:"limit_bytes"`          // of the job's cgroup; far above the allocation where Slurm does not constrain it
	Borrowed   uint64        `json:"least_borrowed_bytes"` // in any round
	Killed     uint64        `json:"oom_kills"`            // of anything on the machine while the job grew
	Hits       uint64        `json:"limits_hit"`           // while the job grew: that somebody had to free memory to get some, on the machine or in the job's cgroups
	Invalid    []string      `json:"invalid_rounds"`       // why
	Figures    []*Figure     `json:"figures"`
}

const (
	lastStep  = 128 << 20 // of its allocation, which the job leaves: page tables, slurmstepd
	leastLoan = 256 << 20 // to each executor, that is worth a round
	steady    = 1500 * time.Millisecond
	patience  = 2 * time.Minute
	giveUp    = 3 * time.Second // for executors that are still there when the job has grown
)

// Grow measures. What has been measured when an error ends the run is in the result.
func Grow(ctx context.Context, g Growth) (*GrowthResult, error) {
	r := &GrowthResult{Schema: GrowthSchema, Time: time.Now().UTC(), Node: g.Node, Policy: g.Policy, Rate: g.Rate, Invalid: []string{}, Figures: []*Figure{
		{Name: "step", What: "longest step of 1 MiB", Bound: Bound{Max: 50}},
		{Name: "step_at", What: "when it began, from the growth's beginning"},
		{Name: "behind", What: "furthest behind the schedule"},
		{Name: "back", What: "lent memory back", Bound: Bound{Max: 200}},
		{Name: "past", What: "of it after the job's need, negative: before"},
	}}
	defer func() { r.Machine = bench.Here() }()
	p, pid, err := program.Start(ctx, "the job", append(slices.Clone(g.Job), strconv.FormatUint(g.Rate, 10))...)
	if err != nil {
		return r, err
	}
	j := &growing{Program: p}
	if err = j.locate(pid); err == nil {
		r.Limit, _ = amount(j.folder, limitFiles)
		err = g.rounds(ctx, j, r)
	}
	for _, f := range r.Figures {
		f.Within = f.Measured.Samples > 0 && f.Bound.holds(f.Measured)
	}
	return r, errors.Join(err, p.End())
}

// rounds takes growths with and without executors in turns.
func (g Growth) rounds(ctx context.Context, j *growing, r *GrowthResult) error {
	var with, without [5][]time.Duration
	defer func() {
		for i, f := range r.Figures {
			f.Measured, f.Baseline = bench.Summarize(with[i]), bench.Summarize(without[i])
			f.Samples, f.BaseEach = milliseconds(with[i]), milliseconds(without[i])
		}
	}()
	node, err := g.lendable(ctx)
	if err != nil {
		return err
	}
	r.Allocation = node.GetSlurm().GetMemoryBytes()
	if _, err := g.grow(j, &GrowthResult{Allocation: r.Allocation}, course{}); err != nil { // the first warms up
		return err
	}
	for round := range g.Rounds {
		if g.Progress != nil {
			fmt.Fprintf(g.Progress, "measuring: growth %d of %d\n", round+1, g.Rounds)
		}
		alone, err := g.grow(j, r, course{})
		if err != nil {
			return err
		}
		for i, d := range alone.costs {
			without[i] = append(without[i], d)
		}
		beside, why, err := g.beside(ctx, j, r)
		if err != nil {
			return err
		}
		late, past, told := beside.back()
		if why == "" && !told {
			why = "the job did not grow into what was lent"
		}
		if why != "" {
			r.Invalid = append(r.Invalid, why)
			continue
		}
		for i, d := range append(beside.costs[:], late, past) {
			with[i] = append(with[i], d)
		}
	}
	return nil
}

func milliseconds(samples []time.Duration) []float64 {
	var each []float64
	for _, d := range samples {
		each = append(each, bench.Milliseconds(d))
	}
	return each
}

// beside lets executors borrow what the job lends, and then the job grow. why says what made the round worthless.
func (g Growth) beside(ctx context.Context, j *growing, r *GrowthResult) (done growth, why string, err error) {
	node, err := g.lendable(ctx)
	if err != nil {
		return done, "", err
	}
	count := uint64(g.Executors) //nolint:gosec // few
	each := node.GetFree().GetMemoryBytes() / count >> 20 << 20
	h, err := acquire(ctx, g.Client, g.Resident, g.Executors, count*(each-executorsOwn))
	if err != nil {
		return done, "", err
	}
	defer func() { err = errors.Join(err, h.release()) }()
	if err = h.fill(ctx); err != nil {
		return done, "", err
	}
	if node, err = g.status(ctx); err != nil {
		return done, "", err
	}
	total, leased := node.GetTotal().GetMemoryBytes(), node.GetLeased().GetMemoryBytes()
	c := course{allocation: r.Allocation, each: each, own: total - min(total, node.GetSlurm().GetMemoryBytes())}
	borrowed := c.borrowed(g.Executors)
	if leased < count*each || borrowed == 0 {
		return done, fmt.Sprintf("nothing was borrowed: %d MiB leased, %d MiB allocated to the job, %d MiB in all", leased>>20, r.Allocation>>20, total>>20), nil
	}
	if r.Borrowed == 0 || borrowed < r.Borrowed {
		r.Borrowed = borrowed
	}
	done, err = g.grow(j, r, c)
	return done, "", err
}

// growth is one, and what it cost the job by the job's own clock.
type growth struct {
	course
	costs [3]time.Duration // longest step, when it began, how far behind the job fell
}

// grow has the job grow to nearly its allocation and let go again, watched by the cgroup file system alone.
func (g Growth) grow(j *growing, r *GrowthResult, c course) (growth, error) {
	before := short(j.folder)
	w := watch(j.folder, holders(cgroupRoot, g.CgroupParent, g.Node, c.each/2))
	answer, err := j.Ask(strconv.FormatUint(r.Allocation-min(r.Allocation, j.base+lastStep), 10))
	c.looks = w.end(giveUp)
	after := short(j.folder)
	r.Killed, r.Hits = r.Killed+after.kills-before.kills, r.Hits+max(after.hits, before.hits)-before.hits // a job that was killed has no cgroup left
	if err != nil {
		return growth{}, fmt.Errorf("the job did not survive its growth (%d kills for lack of memory): %w", after.kills-before.kills, err)
	}
	var told struct {
		Began   int64 `json:"began_ns"`
		Longest int64 `json:"longest_step_ns"`
		When    int64 `json:"longest_step_at_ns"`
		Behind  int64 `json:"behind_ns"`
	}
	if err := json.Unmarshal([]byte(answer), &told); err != nil {
		return growth{}, fmt.Errorf("the job says %q: %w", answer, err)
	}
	c.began = time.Duration(told.Began)
	_, err = j.Ask("0")
	return growth{c, [3]time.Duration{time.Duration(told.Longest), time.Duration(told.When), time.Duration(told.Behind)}}, err
}

// lendable waits until the node lends a good part of the job's memory, and no more than before.
func (g Growth) lendable(ctx context.Context) (*api.NodeStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var free uint64
	since := time.Now()
	for {
		node, err := g.status(ctx)
		if err != nil {
			return nil, err
		}
		if now := node.GetFree().GetMemoryBytes(); now != free {
			free, since = now, time.Now()
		}
		if free/leastLoan >= uint64(g.Executors) && time.Since(since) >= steady { //nolint:gosec // few
			return node, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("node %s lends %d MiB after %v, want %d for each executor; does the policy lend what jobs leave, and does the job share? %s",
				g.Node, free>>20, patience, leastLoan>>20, node.GetWhyNot())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (g Growth) status(ctx context.Context) (*api.NodeStatus, error) {
	response, err := g.Client.Cluster().Nodes(ctx, &api.NodesRequest{})
	if err != nil {
		return nil, client.Describe("list nodes", err)
	}
	i := slices.IndexFunc(response.GetNodes(), func(n *api.NodeStatus) bool { return n.GetNode() == g.Node })
	if i < 0 {
		return nil, fmt.Errorf("the broker knows no node %s", g.Node)
	}
	return response.GetNodes()[i], nil
}

// growing is the job.
type growing struct {
	*program.Program
	folder string // its cgroup
	base   uint64 // what it uses before it grows
}

func (j *growing) locate(pid string) error {
	text, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		return fmt.Errorf("find the job, which has to run on this node: %w", err)
	}
	if j.folder = jobFolder(string(text)); j.folder == "" {
		return fmt.Errorf("process %s is in no job's cgroup: %s", pid, text)
	}
	j.base, _ = amount(j.folder, usageFiles)
	return nil
}
