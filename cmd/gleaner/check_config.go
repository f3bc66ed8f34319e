package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gleaner-hpc/gleaner/broker/rules"
	"github.com/gleaner-hpc/gleaner/config"
)

type findingJSON struct {
	File string `json:"file"`
	Line int    `json:"line,omitempty"`
	Text string `json:"text"`
}

type checkConfigJSON struct {
	Schema   string        `json:"schema"`
	File     string        `json:"file"`
	Findings []findingJSON `json:"findings"`
}

func (a *app) checkConfigCommand() *cobra.Command {
	return &cobra.Command{
		Use: "config FILE", Short: "Check an agent.toml or broker.toml; every finding has file and line",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage("check which file? One agent.toml, broker.toml or client.toml at a time")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return a.checkConfig(args[0]) },
	}
}

// checkConfig prints what is wrong with a file, each finding on a line that begins with file and line, as editors read it.
func (a *app) checkConfig(file string) error {
	err := config.Check(file)
	if c, notBroker := config.LoadBroker(file); err == nil && notBroker == nil {
		if _, e := rules.Compile(c); e != nil {
			err = &config.Error{File: file, Text: e.Error()}
		}
	}
	found := findings(err)
	if err != nil && len(found) == 0 {
		return &exitError{exitUsage, err} // no file that could be checked
	}
	if a.output == "text" {
		for _, f := range found {
			fmt.Fprintln(a.stderr, (&config.Error{File: f.File, Line: f.Line, Text: f.Text}).Error())
		}
		if len(found) == 0 {
			_, err = fmt.Fprintf(a.stdout, "%s: no errors\n", file)
			return err
		}
	} else if err := a.print(checked(file, found)); err != nil {
		return err
	}
	if len(found) > 0 {
		return &exitError{exitUsage, nil}
	}
	return nil
}

func checked(file string, found []findingJSON) listing {
	l := listing{header: []string{"file", "line", "text"}, document: checkConfigJSON{Schema: "gleaner.check-config/1", File: file, Findings: found}}
	for _, f := range found {
		l.rows = append(l.rows, []string{f.File, fmt.Sprint(f.Line), f.Text})
	}
	return l
}

// findings takes an error apart into what was found in the file; nothing when it is of another kind.
func findings(err error) []findingJSON {
	found := []findingJSON{}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, part := range joined.Unwrap() {
			found = append(found, findings(part)...)
		}
		return found
	}
	if at, ok := errors.AsType[*config.Error](err); ok {
		found = append(found, findingJSON{at.File, at.Line, at.Text})
	}
	return found
}
