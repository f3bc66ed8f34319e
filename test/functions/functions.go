// Package functions compiles the functions that the end-to-end and the fault suite run on executors.
package functions

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed testdata/functions.c
var source []byte

// Build compiles the library into a new folder below dir, where every user can read it, and returns its path.
func Build(dir string) (string, error) {
	dir, err := os.MkdirTemp(dir, "functions")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	text, lib := filepath.Join(dir, "functions.c"), filepath.Join(dir, "functions.so")
	if err := os.WriteFile(text, source, 0o644); err != nil {
		return "", err
	}
	out, err := exec.Command("gcc", "-O1", "-fPIC", "-shared", "-o", lib, text).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("gcc: %w: %s", err, out)
	}
	return lib, nil
}
