package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/gleaner-hpc/gleaner/policies"
	"github.com/gleaner-hpc/gleaner/policies/plugin"
	"github.com/gleaner-hpc/gleaner/policies/policytest"
)

// policyStart is how long a plugin may take to begin.
const policyStart = 15 * time.Second

func (a *app) policyCommand() *cobra.Command {
	policy := &cobra.Command{
		Use: "policy", Short: "Try a site's own policy",
		RunE: func(*cobra.Command, []string) error { return usage("which? See 'gleaner policy --help'") },
	}
	var cases int
	var deadline time.Duration
	test := &cobra.Command{
		Use: "test BINARY", Short: "Run the conformance suite against a policy plugin, and print its checksum for broker.toml",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage("want one program; see 'gleaner policy test --help'")
			}
			return nil
		},
		Long: `Starts the plugin as the broker would, asks it about clusters, requests and executors drawn at random (the same each time), and checks
its answers: an offer for each node of no more than is free and nobody's, picks that fit, an order of all executors, the same answer
to the same question, each within the deadline. Nothing is lent, placed or evicted.`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.policyTest(c.Context(), args[0], cases, deadline)
		},
	}
	test.Flags().IntVar(&cases, "cases", 200, "questions of each kind")
	test.Flags().DurationVar(&deadline, "deadline", policies.DefaultDeadline, "for each answer; the broker's is policy.deadline")
	policy.AddCommand(test)
	return policy
}

func (a *app) policyTest(ctx context.Context, path string, cases int, deadline time.Duration) error {
	if cases < 1 || deadline <= 0 {
		return usage("cases and deadline: want more than 0")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	p, stop, err := startPolicy(ctx, path)
	if err != nil {
		return err
	}
	defer stop()
	return a.policyResults(path, policytest.Conform(p, deadline, cases))
}

// startPolicy starts a site's policy and waits until it answers; stop ends it.
func startPolicy(ctx context.Context, path string) (p *plugin.Plugin, stop func(), err error) {
	started := make(chan struct{}, 1)
	p, err = plugin.New(plugin.Config{Path: path, Started: func() {
		select {
		case started <- struct{}{}:
		default:
		}
	}})
	if err != nil {
		return nil, nil, &exitError{exitUsage, err}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	var end error
	go func() { end = p.Once(ctx); close(ended) }()
	stop = func() { cancel(); <-ended }
	select {
	case <-started:
		return p, stop, nil
	case <-ended:
		cancel()
		return nil, nil, fmt.Errorf("%s does not begin as a policy: %w", path, end)
	case <-time.After(policyStart):
		stop()
		return nil, nil, fmt.Errorf("%s has not begun as a policy within %s", path, policyStart)
	}
}

func (a *app) policyResults(path string, results []policytest.Result) error {
	sum, err := plugin.Sum(path)
	if err != nil {
		return err
	}
	l := listing{header: []string{"question", "cases", "slowest", "result"}, numeric: map[int]bool{1: true, 2: true}, document: policyDocument(path, sum, results)}
	var failed []policytest.Result
	for _, r := range results {
		if r.Err != nil {
			failed = append(failed, r)
		}
		l.rows = append(l.rows, []string{r.Name, strconv.Itoa(r.Cases), r.Slowest.Round(10 * time.Microsecond).String(), resultWord(r.Err)})
		l.machine = append(l.machine, []string{r.Name, strconv.Itoa(r.Cases), fmt.Sprint(r.Slowest.Seconds()), resultWord(r.Err)})
	}
	l.csvNames = []string{"question", "cases", "slowest_seconds", "result"}
	if err := a.print(l); err != nil {
		return err
	}
	if len(failed) > 0 {
		for _, r := range failed {
			fmt.Fprintf(a.stderr, "gleaner: %s: %v\n", r.Name, r.Err)
		}
		return &exitError{exitFailed, errors.New("the policy does not conform; the broker would answer in its place")}
	}
	if a.output == "text" {
		_, err = fmt.Fprintf(a.stdout, "\nFor broker.toml:\n[policy]\nplugin = %q\nsha256 = %q\n", path, sum)
	}
	return err
}

func resultWord(err error) string {
	if err != nil {
		return "failed"
	}
	return "ok"
}

func policyDocument(path, sum string, results []policytest.Result) any {
	type part struct {
		Question       string  `json:"question"`
		Cases          int     `json:"cases"`
		SlowestSeconds float64 `json:"slowest_seconds"`
		Error          string  `json:"error,omitempty"`
	}
	document := struct {
		Schema  string `json:"schema"`
		Plugin  string `json:"plugin"`
		SHA256  string `json:"sha256"`
		Results []part `json:"results"`
	}{Schema: "gleaner.policy-test/1", Plugin: path, SHA256: sum}
	for _, r := range results {
		p := part{Question: r.Name, Cases: r.Cases, SlowestSeconds: r.Slowest.Seconds()}
		if r.Err != nil {
			p.Error = r.Err.Error()
		}
		document.Results = append(document.Results, p)
	}
	return document
}
