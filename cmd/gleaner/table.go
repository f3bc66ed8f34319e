package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// listing is one kind of output in each of its forms.
type listing struct {
	header   []string
	numeric  map[int]bool // columns, from 0, that are set to the right
	rows     [][]string   // as people read them
	machine  [][]string   // the same for CSV: plain units; nil means rows
	csvNames []string     // CSV's header; nil means header
	document any          // JSON, with a schema field
}

func (a *app) print(l listing) error {
	switch a.output {
	case "json":
		return a.printJSON(l.document)
	case "csv":
		return a.printCSV(l)
	case "html":
		return usage("output html is for report, simulate and estimate alone")
	}
	w := table.NewWriter()
	w.SetStyle(table.StyleDefault)
	w.Style().Options = table.OptionsNoBordersAndSeparators
	w.Style().Box.PaddingLeft = ""
	w.Style().Box.PaddingRight = "  "
	w.Style().Format.Header = text.FormatUpper
	w.SuppressTrailingSpaces()
	w.AppendHeader(row(l.header))
	for _, r := range l.rows {
		w.AppendRow(row(r))
	}
	var columns []table.ColumnConfig
	for n := range l.header {
		if l.numeric[n] {
			columns = append(columns, table.ColumnConfig{Number: n + 1, Align: text.AlignRight, AlignHeader: text.AlignRight})
		}
	}
	w.SetColumnConfigs(columns)
	_, err := fmt.Fprintln(a.stdout, w.Render())
	return err
}

func row(cells []string) table.Row {
	r := make(table.Row, len(cells))
	for i, c := range cells {
		r[i] = c
	}
	return r
}

func (a *app) printJSON(document any) error {
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	return e.Encode(document)
}

func (a *app) printCSV(l listing) error {
	w := csv.NewWriter(a.stdout)
	header, rows := l.csvNames, l.machine
	if header == nil {
		header = l.header
	}
	if rows == nil {
		rows = l.rows
	}
	if err := w.Write(header); err != nil {
		return err
	}
	return w.WriteAll(rows)
}

// clock formats a time as Slurm does, in local time; an unset one is empty.
func clock(t *timestamppb.Timestamp) string {
	if t == nil || (t.GetSeconds() == 0 && t.GetNanos() == 0) {
		return ""
	}
	return t.AsTime().Local().Format("2006-01-02T15:04:05")
}

// rfc3339 formats a time for machines.
func rfc3339(t *timestamppb.Timestamp) string {
	if clock(t) == "" {
		return ""
	}
	return t.AsTime().UTC().Format(time.RFC3339Nano)
}
