// Package vm runs suites in a virtual machine with pure cgroup v2, which this host may not have; see run.
package vm

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// Suite runs a script that uses test/vm/run, and skips with its last line as the reason where no such machine can be had.
func Suite(t *testing.T, script string) {
	if testing.Short() {
		t.Skip("a virtual machine takes a minute")
	}
	out, err := exec.CommandContext(t.Context(), script).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 77 {
		t.Skip(text[strings.LastIndex(text, "\n")+1:])
	}
	t.Log(text)
	if err != nil {
		t.Fatal(err)
	}
}
