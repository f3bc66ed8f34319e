package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// benchCommand holds the measurements. Each prints a table, or with --output json or -o FILE a document with all figures.
func (a *app) benchCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "bench", Short: "Measure this installation",
		RunE: func(*cobra.Command, []string) error { return usage("measure what? See 'gleaner bench --help'") },
	}
	c.AddCommand(a.benchCommands()...)
	return c
}

func (a *app) benchCommands() []*cobra.Command {
	return []*cobra.Command{a.benchEvictCommand(), a.benchJobStartCommand(), a.benchInvokeCommand(), a.benchColdCommand(), a.benchSimulateCommand(), a.benchNeighbourCommand(), a.benchGrowthCommand(), a.benchChildCommand()}
}

// deliver prints a measurement's table and writes its document to the file out. Of several errors it returns the measurement's own.
func (a *app) deliver(out string, l listing, measured error) error {
	return cmp.Or(measured, writeDocument(out, l.document), a.print(l))
}

// writeDocument puts a measurement's document into a file; "" means none.
func writeDocument(path string, document any) error {
	if path == "" {
		return nil
	}
	text, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write measurements: %w", err)
	}
	return nil
}
