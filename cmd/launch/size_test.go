package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// most bounds the lines of code, less blank ones and comments, that run with privilege and are ours: there are fewer. It only ever goes down.
const most = 1500

// TestSize counts what is linked into the launcher of this module's own.
func TestSize(t *testing.T) {
	out, err := exec.Command("go", "list", "-tags", "seccomp", "-deps", "-json=Dir,GoFiles,CgoFiles,EmbedFiles,Standard,Module", ".").Output()
	if err != nil {
		t.Skip("no go command: ", err)
	}
	total, packages := 0, 0
	for list := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			Dir                           string
			GoFiles, CgoFiles, EmbedFiles []string
			Module                        *struct{ Main bool }
		}
		if err := list.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if p.Module == nil || !p.Module.Main {
			continue
		}
		packages++
		for _, file := range append(append(p.GoFiles, p.CgoFiles...), p.EmbedFiles...) {
			text, err := os.ReadFile(filepath.Join(p.Dir, file))
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(text)) {
				if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
					total++
				}
			}
		}
	}
	t.Logf("%d lines in %d packages", total, packages)
	if packages < 3 || total >= most {
		t.Errorf("%d lines of our own in %d packages run as root, want fewer than %d", total, packages, most)
	}
}
