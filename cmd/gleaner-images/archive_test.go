package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func pack(t testing.TB, members ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(members); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: members[i], Mode: 0o644, Size: int64(len(members[i+1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, members[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestNamesAreTakenOut(t *testing.T) {
	for name, row := range map[string]struct {
		members []string
		kind    kind
	}{
		"OCI":     {[]string{"./index.json", `{"manifests":[{"digest":"sha256:1","annotations":{"org.opencontainers.image.ref.name":"python:3"}}]}`, "blobs/x", "y"}, saved},
		"Docker":  {[]string{"layer.tar", "x", "manifest.json", `[{"Config":"c","RepoTags":["python:3"],"Layers":["layer.tar"]}]`, "repositories", `{"python":{"3":"c"}}`}, saved},
		"tarball": {[]string{"bin/sh", "x", "usr/share/index.json", "python:3 is no name here"}, tarball},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			got, err := copyWithoutNames(&out, bytes.NewReader(pack(t, row.members...)), 1<<20)
			if err != nil || got != row.kind {
				t.Fatalf("kind %d, %v; want %d", got, err, row.kind)
			}
			if has := strings.Contains(out.String(), "python"); has != (row.kind == tarball) {
				t.Errorf("a name is in the copy: %t\n%q", has, out.String())
			}
		})
	}
}

func TestCorrupt(t *testing.T) {
	whole := pack(t, "index.json", `{}`, "a", strings.Repeat("x", 5000))
	for name, text := range map[string][]byte{"empty": nil, "cut": whole[:3000], "noise": bytes.Repeat([]byte("noise"), 1000), "gzip of nothing": {0x1f, 0x8b, 0}} {
		if _, err := copyWithoutNames(io.Discard, bytes.NewReader(text), 1<<20); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := copyWithoutNames(io.Discard, bytes.NewReader(whole), 2000); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("too large: %v", err)
	}
}

// TestOpenAs: a file is opened with the user's ids, and root has its own again afterwards.
func TestOpenAs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, which the helper is")
	}
	dir := t.TempDir()
	for d := dir; d != "/" && d != "."; d = filepath.Dir(d) {
		if info, err := os.Stat(d); err == nil && info.Mode()&1 == 0 {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(file, 0, 61500); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name   string
		groups []uint32
		want   error
	}{{"a stranger", nil, os.ErrPermission}, {"by a group", []uint32{61500}, nil}} {
		a, err := openAs(file, 61501, 61501, row.groups)
		if !errors.Is(err, row.want) {
			t.Errorf("%s: %v", row.name, err)
		}
		if a != nil {
			a.close()
		}
	}
	if _, err := os.ReadFile(file); err != nil {
		t.Errorf("root afterwards: %v", err)
	}
	if _, err := openAs(dir, 61501, 61501, nil); err == nil {
		t.Error("a folder is taken for an archive")
	}
}

func TestNewest(t *testing.T) {
	if got := newest([]string{"GLIBC_2.9", "GLIBC_2.34", "GLIBC_PRIVATE", "GLIBC_2.2.5", "GCC_3.0"}); got != (glibc{2, 34}) {
		t.Errorf("got %v", got)
	}
}

func FuzzCopyWithoutNames(f *testing.F) {
	f.Add(pack(f, "index.json", `{"manifests":[{"annotations":{}}]}`))
	f.Add(pack(f, "manifest.json", `[{"Layers":[]}]`))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = copyWithoutNames(io.Discard, bytes.NewReader(b), 1<<20) })
}
