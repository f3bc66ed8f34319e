package owner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/gleaner-hpc/gleaner/bench"
	"github.com/gleaner-hpc/gleaner/client"
)

// StartSchema is the version of the document that JobStart makes.
const StartSchema = "gleaner.bench.job-start/1"

// StartConfig says how jobs are started with and without Gleaner.
type StartConfig struct {
	Client    *client.Client
	Resident  *client.Function
	With      string // slurm.conf of the cluster with Gleaner
	Without   string // slurm.conf of one that is the same but for Gleaner
	Pairs     int    // with nothing to evict
	Evictions int    // pairs with the node full of executors
	Executors int
	Progress  io.Writer
}

// Start is one line of the result: what Gleaner adds to srun.
type Start struct {
	Name    string        `json:"name"`
	What    string        `json:"what"`
	With    bench.Summary `json:"with"`
	Without bench.Summary `json:"without"`
	// AddedMedian is the median of the differences of the pairs, AddedMax the largest.
	AddedMedian float64   `json:"added_median_ms"`
	AddedMax    float64   `json:"added_max_ms"`
	Ratio       float64   `json:"ratio_p50"`
	Bound       float64   `json:"bound_ms"` // for the median of what is added
	Within      bool      `json:"within"`
	Samples     []float64 `json:"with_ms"`
	Base        []float64 `json:"without_ms"`
}

// StartResult is the document.
type StartResult struct {
	Schema  string        `json:"schema"`
	Time    time.Time     `json:"time"`
	Machine bench.Machine `json:"machine"`
	Starts  []Start       `json:"starts"`
}

// JobStart measures pairs of srun, one with and one without Gleaner, in turns; every other pair begins with the other one.
func JobStart(ctx context.Context, c StartConfig) (*StartResult, error) {
	r := &StartResult{Schema: StartSchema, Time: time.Now().UTC()}
	defer func() { r.Machine = bench.Here() }()
	for _, conf := range []string{c.With, c.Without} { // the first of each cluster pays for what later ones find ready
		if _, err := srun(ctx, conf); err != nil {
			return r, err
		}
	}
	if c.Pairs > 0 {
		s := Start{Name: "nothing", What: "srun -N1 --exclusive true, nothing to evict", Bound: 3}
		err := c.pairs(ctx, &s, c.Pairs, nil)
		r.Starts = append(r.Starts, s)
		if err != nil {
			return r, err
		}
	}
	if c.Evictions == 0 {
		return r, nil
	}
	h, err := acquire(ctx, c.Client, c.Resident, c.Executors, 0)
	if err != nil {
		return r, err
	}
	s := Start{Name: "evicting", What: fmt.Sprintf("srun -N1 --exclusive true, %d executors evicted", c.Executors), Bound: 10}
	err = c.pairs(ctx, &s, c.Evictions, h)
	r.Starts = append(r.Starts, s)
	return r, errors.Join(err, h.release())
}

func (c StartConfig) pairs(ctx context.Context, s *Start, count int, h *harvest) error {
	if c.Progress != nil {
		fmt.Fprintf(c.Progress, "measuring: %d pairs: %s\n", count, s.What)
	}
	var with, without, added []time.Duration
	defer func() { s.finish(with, without, added) }()
	for i := range count {
		var took [2]time.Duration
		for j := range 2 {
			gleaner := (i+j)%2 == 0
			which, conf := 1, c.Without
			if gleaner {
				which, conf = 0, c.With
			}
			if h != nil && gleaner {
				if err := h.evictable(ctx); err != nil {
					return err
				}
			}
			d, err := srun(ctx, conf)
			if err != nil {
				return err
			}
			took[which] = d
		}
		with, without, added = append(with, took[0]), append(without, took[1]), append(added, took[0]-took[1])
	}
	return nil
}

// evictable waits until the node is full, and checks that the job before has evicted what was there.
func (h *harvest) evictable(ctx context.Context) error {
	evicted := h.lease.Counts().Evicted
	if err := h.fill(ctx); err != nil {
		return err
	}
	if h.expected > evicted {
		return fmt.Errorf("a job evicted %d executors, expected %d", evicted, h.expected)
	}
	h.expected = evicted + uint64(h.executors)
	return nil
}

func srun(ctx context.Context, conf string) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, "srun", "-Q", "-N1", "--exclusive", "true")
	for _, pair := range os.Environ() {
		if !strings.HasPrefix(pair, "SLURM") {
			cmd.Env = append(cmd.Env, pair)
		}
	}
	cmd.Env = append(cmd.Env, "SLURM_CONF="+conf)
	begin := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("srun with %s: %w: %s", conf, err, out)
	}
	return time.Since(begin), nil
}

func (s *Start) finish(with, without, added []time.Duration) {
	s.With, s.Without = bench.Summarize(with), bench.Summarize(without)
	s.AddedMedian, s.AddedMax = bench.Milliseconds(bench.Median(added)), bench.Summarize(added).Max
	s.Ratio = bench.Ratio(s.With.P50, s.Without.P50)
	s.Within = len(added) > 0 && s.AddedMedian <= s.Bound
	for i := range with {
		s.Samples = append(s.Samples, bench.Milliseconds(with[i]))
		s.Base = append(s.Base, bench.Milliseconds(without[i]))
	}
}
