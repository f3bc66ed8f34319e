package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// aim is the node of the fault under way, at which jobs are thrown.
type aim struct {
	mu   sync.Mutex
	node string
}

func (a *aim) at(node string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.node = node
}

func (a *aim) get() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.node
}

// shape is what a job gets on each of its nodes, as asked for.
type shape struct {
	options []string
	nodes   int
	cpus    int // per node
	mib     int64
}

// shapes are those of all jobs submitted so far.
type shapes struct {
	mu sync.Mutex
	of map[uint32]shape
}

func (s *shapes) set(job uint32, sh shape) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = map[uint32]shape{}
	}
	if old, twice := s.of[job]; twice { // a killed slurmctld forgets its youngest jobs, which may still run, and uses their numbers again
		sh.cpus, sh.mib = min(sh.cpus, old.cpus), min(sh.mib, old.mib)
	}
	s.of[job] = sh
}

func (s *shapes) get(job uint32) (shape, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh, ok := s.of[job]
	return sh, ok
}

func draw(random *rand.Rand) shape {
	k := 1 + random.IntN(cpus)
	return []shape{
		{options: []string{"--exclusive", "-N1", "--mem=1000"}, nodes: 1, cpus: cpus, mib: 1000},
		{options: []string{"--exclusive", "-N2", "--mem=1000"}, nodes: 2, cpus: cpus, mib: 1000},
		{options: []string{"-N1", "-n1", fmt.Sprintf("-c%d", k), "--mem=500"}, nodes: 1, cpus: k, mib: 500},
		{options: []string{"-N2", "--ntasks-per-node=3", "--mem=3300"}, nodes: 2, cpus: 3, mib: 3300},
		{options: []string{"-N1", "-n1", "-c1", "--mem=3600"}, nodes: 1, cpus: 1, mib: 3600},
		{options: []string{"-N1", "-n1", "-c2", "--mem=300", "--gres=gpu:1"}, nodes: 1, cpus: 2, mib: 300},
	}[random.IntN(6)]
}

// jobs submits one batch job after the other until ctx ends, mostly onto nodes that host executors.
func (r *run) jobs(ctx context.Context, worker int) {
	random := rand.New(rand.NewPCG(r.cfg.Seed, 200+uint64(worker)))
	for n := 0; ctx.Err() == nil; n++ {
		sh := draw(random)
		node := r.c.NodeNames()[random.IntN(nodes)]
		if at := r.aim.get(); at != "" && random.IntN(3) > 0 {
			node = at
		} else if random.IntN(3) > 0 {
			node = r.node(Fault{Node: random.IntN(nodes), Hosts: true})
		}
		length, cancel := between(random, 0, 700*time.Millisecond), random.IntN(5)
		dir := filepath.Join(r.folder, fmt.Sprintf("job-%d-%d", worker, n))
		if err := r.oneJob(ctx, dir, sh, node, length, cancel); err != nil {
			r.violated(fmt.Sprintf("job in %s: %v", dir, err))
		}
		pause(ctx, between(random, 0, 300*time.Millisecond))
	}
}

// lostAfter is how long a job is waited for across the death of slurmctld or slurmd: Slurm forgets, repeats or holds back what was not
// saved yet.
const lostAfter = 15 * time.Second

// jobWithin bounds a job from its submission to its end, whatever happens to Slurm meanwhile.
const jobWithin = 100 * time.Second

func (r *run) oneJob(ctx context.Context, dir string, sh shape, node string, length time.Duration, cancel int) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte(r.script(dir, sh, length)), 0o755); err != nil {
		return err
	}
	args := append([]string{"--parsable", "-t", "1", "-o", filepath.Join(dir, "said"), "-D", dir}, sh.options...)
	if sh.nodes == 1 {
		args = append(args, "-w", node)
	}
	said, err := r.output(ctx, "sbatch", append(args, script)...)
	id, err2 := strconv.ParseUint(lastLine(said), 10, 32)
	if err != nil || err2 != nil {
		r.count(func(p *Report) { p.Jobs.Refused++ })
		return nil
	}
	kills := r.slurmKills.Load()
	r.shapes.set(uint32(id), sh)
	r.count(func(p *Report) { p.Jobs.Submitted++ })
	if cancel == 0 {
		pause(ctx, length)
		r.count(func(p *Report) { p.Jobs.Cancelled++ })
		_, _ = r.output(ctx, "scancel", strconv.FormatUint(id, 10))
	}
	state := ""
	for began := time.Now(); time.Since(began) < jobWithin; {
		if state = r.state(ctx, id); over[state] {
			r.findings(dir)
			return nil
		}
		if time.Since(began) > lostAfter && r.slurmKills.Load() != kills {
			r.count(func(p *Report) { p.Jobs.Lost++ })
			_, _ = r.output(ctx, "scancel", strconv.FormatUint(id, 10))
			r.findings(dir)
			return nil
		}
		pause(context.WithoutCancel(ctx), 100*time.Millisecond)
	}
	_, _ = r.output(ctx, "scancel", strconv.FormatUint(id, 10))
	return fmt.Errorf("job %d is %s %v after its submission", id, state, jobWithin)
}

// script looks first of all, then once on each node, and once more before it ends.
func (r *run) script(dir string, sh shape, length time.Duration) string {
	witness := filepath.Join(r.c.Build, "tools", "witness") + " -parent " + r.c.CgroupParent() + " -patience 20s -out " + dir
	text := "#!/bin/sh\n" + witness + "/first\n"
	if sh.nodes > 1 {
		text += fmt.Sprintf("srun -N%d -n%d --mem=0 %s/steps\n", sh.nodes, sh.nodes, witness)
	}
	text += fmt.Sprintf("sleep %.3f\n%s/last\n", length.Seconds(), witness)
	for _, folder := range []string{"first", "steps", "last"} {
		_ = os.Mkdir(filepath.Join(dir, folder), 0o777)
	}
	return text
}

var over = map[string]bool{
	"COMPLETED": true, "CANCELLED": true, "FAILED": true, "TIMEOUT": true, "NODE_FAIL": true, "OUT_OF_MEMORY": true, "BOOT_FAIL": true, "DEADLINE": true,
}

func (r *run) state(ctx context.Context, id uint64) string {
	said, err := r.output(ctx, "scontrol", "show", "job", "-o", strconv.FormatUint(id, 10))
	if err != nil {
		if strings.Contains(said, "Invalid job id") {
			return "CANCELLED"
		}
		return "unknown: " + said
	}
	for field := range strings.FieldsSeq(said) {
		if state, ok := strings.CutPrefix(field, "JobState="); ok {
			return state
		}
	}
	return "unknown: " + said
}

// findings judges what the witness wrote.
func (r *run) findings(dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "*", "*.json"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		var finding struct {
			OwnerFirst bool     `json:"owner_first"`
			Untold     bool     `json:"untold"`
			Violations []string `json:"violations"`
		}
		if err == nil {
			err = json.Unmarshal(text, &finding)
		}
		if err != nil {
			r.violated(fmt.Sprintf("%s: %v: %s", file, err, text))
			continue
		}
		r.count(func(p *Report) {
			p.Jobs.Findings++
			if finding.OwnerFirst {
				p.Jobs.OwnerFirst++
			}
			if finding.Untold {
				p.Jobs.Untold++
			}
		})
		if !finding.OwnerFirst && !finding.Untold {
			r.violated(fmt.Sprintf("the owner did not come first: %s: %s", strings.TrimPrefix(file, r.folder+"/"), text))
		}
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
