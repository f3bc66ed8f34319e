package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestPolicyTest(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "nights")
	if out, err := exec.Command("go", "build", "-o", good, "../../contrib/policies/nights").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	none := filepath.Join(dir, "none")
	if err := os.WriteFile(none, []byte("#!/bin/sh\necho hello\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		args []string
		code int
		want string // in what is written
	}{
		"conforms":   {[]string{good, "--deadline", "30s", "--cases", "20"}, exitOK, "sha256 = "},
		"json":       {[]string{good, "--deadline", "30s", "--cases", "20", "--output", "json"}, exitOK, `"schema": "gleaner.policy-test/1"`},
		"late":       {[]string{good, "--deadline", "1ns"}, exitFailed, "no answer within 1ns"},
		"no plugin":  {[]string{none}, exitFailed, "does not begin as a policy"},
		"no file":    {[]string{filepath.Join(dir, "absent")}, exitUsage, "no such file"},
		"no cases":   {[]string{good, "--cases", "0"}, exitUsage, "want more than 0"},
		"no program": {nil, exitUsage, "see 'gleaner policy test --help'"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &out, getenv: func(string) string { return "" }}
			code := a.main(t.Context(), append([]string{"policy", "test"}, test.args...))
			if code != test.code || !strings.Contains(strings.ToLower(out.String()), strings.ToLower(test.want)) {
				t.Errorf("exit %d, want %d with %q:\n%s", code, test.code, test.want, out.String())
			}
		})
	}
}
