package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/client"
)

func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain [LEASE|LEASE.TASK]", Short: "Tell why a lease or a task waits, was evicted, failed; alone, why your requests were denied", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{"0"} // no lease has this number: what was denied became none
			}
			request, err := parseTask(args[0])
			if err != nil {
				return err
			}
			broker, err := a.dial()
			if err != nil {
				return err
			}
			defer broker.Close()
			explanation, err := broker.Leases().Explain(c.Context(), request)
			if err != nil {
				return client.Describe("explain "+args[0], err)
			}
			return a.printExplanation(args[0], explanation)
		},
	}
}

// parseTask reads LEASE or LEASE.TASK.
func parseTask(s string) (*api.ExplainRequest, error) {
	lease, task, isTask := strings.Cut(s, ".")
	id, err := strconv.ParseUint(lease, 10, 64)
	request := &api.ExplainRequest{LeaseId: id}
	if isTask && err == nil {
		var index uint64
		index, err = strconv.ParseUint(task, 10, 64)
		request.Task = &index
	}
	if err != nil {
		return nil, usage("%q: want LEASE or LEASE.TASK, such as 42 or 42.7", s)
	}
	return request, nil
}

type explanationJSON struct {
	Schema  string      `json:"schema"`
	Subject string      `json:"subject"`
	Summary string      `json:"summary"`
	History []entryJSON `json:"history"`
	Advice  string      `json:"advice,omitempty"`
}

type entryJSON struct {
	Time string `json:"time"`
	What string `json:"what"`
	Why  string `json:"why,omitempty"`
}

func (a *app) printExplanation(subject string, e *api.Explanation) error {
	document := explanationJSON{"gleaner.explain/1", subject, e.GetSummary(), []entryJSON{}, e.GetAdvice()}
	l := listing{header: []string{"time", "what", "why"}}
	for _, h := range e.GetHistory() {
		document.History = append(document.History, entryJSON{rfc3339(h.GetTime()), h.GetWhat(), h.GetWhy()})
		l.rows = append(l.rows, []string{clock(h.GetTime()), h.GetWhat(), h.GetWhy()})
		l.machine = append(l.machine, []string{rfc3339(h.GetTime()), h.GetWhat(), h.GetWhy()})
	}
	l.document = document
	if a.output != "text" {
		return a.print(l)
	}
	fmt.Fprintln(a.stdout, e.GetSummary())
	if len(l.rows) > 0 {
		fmt.Fprintln(a.stdout)
		if err := a.print(l); err != nil {
			return err
		}
	}
	if e.GetAdvice() != "" {
		fmt.Fprintf(a.stdout, "\n%s\n", e.GetAdvice())
	}
	return nil
}
