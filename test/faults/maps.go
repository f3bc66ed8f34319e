package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	tasksPerMap = 30
	// leaseTTL is how long a lease lives of which a killed broker could not tell its holder.
	leaseTTL = "12s"
	// mapWithin bounds a map. Its work is a few seconds; the rest is for faults and for jobs that take every node.
	mapWithin = 2 * time.Minute
)

// maps runs one function job after the other until ctx ends; the last one is waited for.
func (r *run) maps(ctx context.Context, worker int) {
	random := rand.New(rand.NewPCG(r.cfg.Seed, 100+uint64(worker)))
	for n := 0; ctx.Err() == nil; n++ {
		dir := filepath.Join(r.folder, fmt.Sprintf("map-%d-%d", worker, n))
		args := []string{"--executors", strconv.Itoa(2 + random.IntN(5)), "--mem-per-executor", "128M", "--ttl", leaseTTL}
		pause(ctx, 50*time.Millisecond)
		if err := r.oneMap(dir, args); err != nil {
			r.violated(fmt.Sprintf("map %d-%d: %v", worker, n, err))
			if ctx.Err() == nil {
				continue // its folder stays to be looked at
			}
		}
		_ = os.RemoveAll(dir)
	}
}

func (r *run) oneMap(dir string, more []string) error {
	if err := os.Mkdir(dir, 0o777); err != nil {
		return err
	}
	args := []string{"map", r.lib + ":slow"}
	for n := range tasksPerMap {
		input := filepath.Join(dir, fmt.Sprintf("in-%03d.txt", n))
		if err := os.WriteFile(input, []byte(taskText(dir, n)), 0o644); err != nil {
			return err
		}
		args = append(args, input)
	}
	args = append(append(args, "--out", filepath.Join(dir, "{stem}.out"), "--summary", filepath.Join(dir, "summary.json")), more...)
	ctx, cancel := context.WithTimeout(context.Background(), mapWithin)
	defer cancel()
	cmd := r.c.Command(ctx, "gleaner", args...)
	var out bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = r.c.Dir, &out, &out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) } // it says where it hangs
	cmd.WaitDelay = 5 * time.Second
	began := time.Now()
	err := cmd.Run()
	if ctx.Err() != nil {
		_ = os.WriteFile(filepath.Join(dir, "said"), out.Bytes(), 0o644)
		return fmt.Errorf("it does not end within %v:\n%s", mapWithin, head(out.String(), 4000))
	}
	return r.judgeMap(dir, err, out.String(), time.Since(began))
}

func taskText(dir string, n int) string { return fmt.Sprintf("task %d of %s", n, dir) }

type mapSummary struct {
	Lease                            uint64
	Tasks, OK, Failed, Skipped, Left int
	Retried, Evictions, Lost         int
	Ended                            string
	Failures                         []struct{ Task, Input, Error string }
}

// judgeMap: each task has one result, which is right, or one final error.
func (r *run) judgeMap(dir string, exit error, said string, took time.Duration) error {
	text, err := os.ReadFile(filepath.Join(dir, "summary.json"))
	if err != nil || len(text) == 0 { // it never began
		r.count(func(p *Report) {
			p.Maps.Begun++
			p.Maps.Refused++
			p.Errors[refusal(said)]++
		})
		if results, _ := filepath.Glob(filepath.Join(dir, "*.out")); exit == nil || len(results) > 0 || strings.TrimSpace(said) == "" {
			return fmt.Errorf("no summary, yet exit \"%s\", %d results, and the words %q", ending(exit), len(results), said)
		}
		return nil
	}
	var s mapSummary
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("summary: %w: %s", err, text)
	}
	if s.Lease == 0 && s.Left == s.Tasks && exit != nil && s.Ended != "" {
		r.count(func(p *Report) { p.Maps.Begun++; p.Maps.Refused++; p.Errors[refusal(s.Ended)]++ })
		return nil
	}
	r.count(func(p *Report) {
		m := &p.Maps
		m.Begun++
		if s.OK == tasksPerMap {
			m.Right++
		}
		m.Tasks, m.OK, m.Failed, m.Left = m.Tasks+s.Tasks, m.OK+s.OK, m.Failed+s.Failed, m.Left+s.Left
		m.Retried, m.Evictions, m.Lost = m.Retried+s.Retried, m.Evictions+s.Evictions, m.Lost+s.Lost
		m.Longest = max(m.Longest, took.Seconds())
	})
	right, wrong := results(dir)
	switch {
	case wrong != "":
		return fmt.Errorf("%s", wrong)
	case s.Tasks != tasksPerMap || s.OK+s.Failed+s.Skipped+s.Left != s.Tasks || len(s.Failures) != s.Failed:
		return fmt.Errorf("the summary does not add up: %s", text)
	case right != s.OK:
		return fmt.Errorf("%d results for %d tasks that are said to be right", right, s.OK)
	case (exit == nil) != (s.OK == s.Tasks):
		return fmt.Errorf("exit \"%s\" with %d of %d tasks right", ending(exit), s.OK, s.Tasks)
	case s.Failed > 0:
		return fmt.Errorf("%d tasks failed for what is not their fault, the first with %q", s.Failed, s.Failures[0].Error)
	case s.Left > 0:
		return fmt.Errorf("%d tasks are left: %s", s.Left, s.Ended)
	}
	return nil
}

func ending(exit error) string {
	if exit == nil {
		return "0"
	}
	return exit.Error()
}

// results counts the right ones and describes a wrong one.
func results(dir string) (right int, wrong string) {
	for n := range tasksPerMap {
		got, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("in-%03d.out", n)))
		if err != nil {
			continue
		}
		want := []byte(taskText(dir, n))
		slices.Reverse(want)
		if !bytes.Equal(got, want) {
			return right, fmt.Sprintf("task %d: result %q, want %q", n, got, want)
		}
		right++
	}
	return right, ""
}

// refusal is the first line of what a map said that could not begin, without addresses.
func refusal(said string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(said), "\n")
	return head(strings.TrimSpace(line), 120)
}

func head(s string, n int) string { return s[:min(len(s), n)] }
