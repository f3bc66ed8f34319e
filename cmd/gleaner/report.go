package main

import (
	"bytes"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/client"
	"github.com/gleaner-hpc/gleaner/client/batch"
	"github.com/gleaner-hpc/gleaner/report"
)

func (a *app) reportCommand() *cobra.Command {
	var since, until, out string
	c := &cobra.Command{
		Use: "report", Short: "Make the utilization report: what was gained, and what it cost Slurm's jobs", Args: cobra.NoArgs,
		Long: `Make the utilization report of an interval. Times take Slurm's forms: now-1hour, today, 08:00, 2026-11-01, 2026-11-01T08:00.
--output html makes one file that needs no network.`,
		Example: "  gleaner report --since now-7days --output html -o report.html",
		RunE: func(c *cobra.Command, _ []string) error {
			now := time.Now()
			from, err := parseTime(since, now)
			if err != nil {
				return &exitError{exitUsage, err}
			}
			to, err := parseTime(until, now)
			if err != nil {
				return &exitError{exitUsage, err}
			}
			if !from.Before(to) {
				return usage("--since %s is not before --until %s", since, until)
			}
			broker, err := a.dial()
			if err != nil {
				return err
			}
			defer broker.Close()
			response, err := broker.Cluster().Report(c.Context(), &api.ReportRequest{Since: timestamppb.New(from), Until: timestamppb.New(to)})
			if err != nil {
				return client.Describe("make the report", err)
			}
			return a.render(response.GetJson(), out)
		},
	}
	c.Flags().StringVar(&since, "since", "now-1day", "start")
	c.Flags().StringVar(&until, "until", "now", "end")
	c.Flags().StringVarP(&out, "out", "o", "", "file to write to instead of standard output")
	return c
}

// render writes the report in the form that was asked for.
func (a *app) render(document []byte, out string) error {
	r, err := report.Decode(document)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	write := r.WriteText
	switch a.output {
	case "json":
		write = r.WriteJSON
	case "csv":
		write = r.WriteCSV
	case "html":
		write = r.WriteHTML
	}
	if err := write(&text); err != nil {
		return err
	}
	if out != "" {
		return batch.Write(out, text.Bytes())
	}
	_, err = a.stdout.Write(text.Bytes())
	return err
}
