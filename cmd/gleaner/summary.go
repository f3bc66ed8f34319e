package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/gleaner-hpc/gleaner/client/batch"
)

// shownFailures bounds the failures that the text summary lists; --failed-list and JSON have all.
const shownFailures = 20

// printSummary tells how a map ended.
func (a *app) printSummary(s *batch.Summary) error {
	if s.Schema == "" {
		return nil
	}
	switch a.output {
	case "json":
		return a.printJSON(s)
	case "csv":
		return a.printCSV(listing{
			header: []string{"lease", "tasks", "ok", "failed", "skipped", "left", "retried", "evictions", "lost", "seconds"},
			rows: [][]string{{fmt.Sprint(s.Lease), fmt.Sprint(s.Tasks), fmt.Sprint(s.OK), fmt.Sprint(s.Failed), fmt.Sprint(s.Skipped), fmt.Sprint(s.Left),
				fmt.Sprint(s.Retried), fmt.Sprint(s.Evictions), fmt.Sprint(s.Lost), fmt.Sprintf("%.3f", s.Seconds)}},
		})
	}
	_, err := fmt.Fprint(a.stdout, summaryText(s))
	return err
}

func summaryText(s *batch.Summary) string {
	var b strings.Builder
	parts := []string{fmt.Sprintf("%d ok", s.OK), fmt.Sprintf("%d failed", s.Failed)}
	if s.Skipped > 0 {
		parts = append(parts, fmt.Sprintf("%d skipped (their results exist)", s.Skipped))
	}
	if s.Left > 0 {
		parts = append(parts, fmt.Sprintf("%d left", s.Left))
	}
	took := time.Duration(s.Seconds * float64(time.Second)).Round(time.Millisecond)
	fmt.Fprintf(&b, "%s: %s, in %s\n", plural(s.Tasks, "task"), strings.Join(parts, ", "), took)
	switch {
	case s.Evictions+s.Lost > 0:
		fmt.Fprintf(&b, "%s evicted by Slurm's jobs, %d lost otherwise; %s repeated\n", plural(int(s.Evictions), "executor"), s.Lost, plural(int(s.Retried), "run"))
	case s.Retried > 0:
		fmt.Fprintf(&b, "%s repeated\n", plural(int(s.Retried), "run"))
	}
	for n, f := range s.Failures {
		if n == shownFailures {
			fmt.Fprintf(&b, "… and %d more; --failed-list FILE names all\n", len(s.Failures)-n)
			break
		}
		fmt.Fprintf(&b, "failed: %s (%s): %s\n", f.Input, f.Task, f.Error)
	}
	return b.String()
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// writeSummary writes the files that were asked for.
func (a *app) writeSummary(f *mapFlags, s *batch.Summary) error {
	if s.Schema == "" {
		return nil
	}
	if f.summary != "" {
		text, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(f.summary, append(text, '\n'), 0o666); err != nil {
			return fmt.Errorf("summary: %w", err)
		}
	}
	if f.failedList != "" {
		var b strings.Builder
		for _, failure := range s.Failures {
			fmt.Fprintln(&b, failure.Input)
		}
		if err := os.WriteFile(f.failedList, []byte(b.String()), 0o666); err != nil {
			return fmt.Errorf("list of failed inputs: %w", err)
		}
	}
	return nil
}
