package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/gleaner-hpc/gleaner/agent/confine"
	"github.com/gleaner-hpc/gleaner/config"
)

type guardJSON struct {
	Name    string `json:"name"`
	Promise string `json:"promise"`
	Given   bool   `json:"given"`
	Why     string `json:"why,omitempty"`
	Waived  bool   `json:"waived"`
}

type checkNodeJSON struct {
	Schema  string      `json:"schema"`
	Lends   bool        `json:"lends"`
	WhyNot  string      `json:"why_not,omitempty"`
	Guards  []guardJSON `json:"guards"`
	Missing []string    `json:"missing"` // neither given nor waived
}

func (a *app) checkNodeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "node", Short: "Check what this node can keep functions from doing; exit status 1 when it lends nothing for want of that", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			var waive []string
			if c, err := config.LoadAgent(a.confPath(), ""); err == nil {
				waive = c.Sandbox.Waive
			} else if !errors.Is(err, fs.ErrNotExist) {
				fmt.Fprintf(a.stderr, "gleaner: nothing counts as waived: %v\n", err)
			}
			return a.checkNode(os.DirFS("/"), waive)
		},
	}
}

// checkNode prints every guard of the machine with this file system.
func (a *app) checkNode(root fs.FS, waive []string) error {
	findings := confine.Look(root, waive)
	document := checkNodeJSON{Schema: "gleaner.check-node/1", WhyNot: confine.Objection(findings), Missing: []string{}}
	document.Lends = document.WhyNot == ""
	l := listing{header: []string{"guard", "given", "functions cannot", "note"}, csvNames: []string{"name", "given", "promise", "why", "waived"}}
	for _, f := range findings {
		given, note := "yes", f.Why
		switch {
		case f.Waived && !f.Given:
			given, note = "waived", f.Why
		case !f.Given:
			given = "NO"
			document.Missing = append(document.Missing, f.Name)
		}
		l.rows = append(l.rows, []string{f.Name, given, f.Promise, note})
		l.machine = append(l.machine, []string{f.Name, fmt.Sprint(f.Given), f.Promise, f.Why, fmt.Sprint(f.Waived)})
		document.Guards = append(document.Guards, guardJSON(f))
	}
	l.document = document
	if err := a.print(l); err != nil {
		return err
	}
	if !document.Lends {
		return &exitError{exitFailed, fmt.Errorf("this node lends nothing: %s", document.WhyNot)}
	}
	return nil
}
