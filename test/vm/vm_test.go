// Package vm runs suites in a virtual machine with pure cgroup v2, which this host may not have; see run.
package vm

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// TestSandboxOnV2 is the suite of executor/sandbox.
func TestSandboxOnV2(t *testing.T) {
	if testing.Short() {
		t.Skip("a virtual machine takes a minute")
	}
	out, err := exec.CommandContext(t.Context(), "./sandbox").CombinedOutput()
	text := strings.TrimSpace(string(out))
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 77 {
		t.Skip(text[strings.LastIndex(text, "\n")+1:])
	}
	t.Log(text)
	if err != nil {
		t.Fatal(err)
	}
}
