// Package verbs runs the data path's suite on a verbs device for which no hardware is needed: soft-RoCE in a virtual machine. The
// suite itself is that of packages fabric and executor; run builds it here and runs it there.
package verbs

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

func TestSoftRoCE(t *testing.T) {
	if testing.Short() {
		t.Skip("a virtual machine takes a minute")
	}
	out, err := exec.CommandContext(t.Context(), "./run").CombinedOutput()
	text := strings.TrimSpace(string(out))
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 77 {
		t.Skip(text[strings.LastIndex(text, "\n")+1:])
	}
	t.Log(text)
	if err != nil {
		t.Fatal(err)
	}
}
