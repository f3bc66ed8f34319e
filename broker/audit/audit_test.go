package audit

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func read(t *testing.T, path string) []Entry {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var entries []Entry
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var e Entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		if e.Schema != Schema {
			t.Errorf("schema %q", e.Schema)
		}
		entries = append(entries, e)
	}
	return entries
}

func TestAppendAndRotate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := os.WriteFile(path, []byte("{\"schema\":\"gleaner.audit/1\"}\n"), 0o644); err != nil { // of an earlier broker, too open
		t.Fatal(err)
	}
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %04o", info.Mode().Perm())
	}
	now := time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)
	if err := l.Append([]Entry{{Time: now, Event: LeaseGranted, Lease: 7, UID: 1000, Detail: "<a> & \n b"}}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); len(got) != 2 || got[1].Lease != 7 || got[1].Detail != "<a> & \n b" || !got[1].Time.Equal(now) {
		t.Errorf("got %+v", got)
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Reopen(), l.Append([]Entry{{Event: LeaseEnded, Lease: 7}})); err != nil {
		t.Fatal(err)
	}
	if old, got := read(t, path+".1"), read(t, path); len(old) != 2 || len(got) != 1 || got[0].Event != LeaseEnded {
		t.Errorf("got %+v after %+v", got, old)
	}
}

// A link in the file's place would have the broker write elsewhere.
func TestNoLink(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(dir, "target"), filepath.Join(dir, "audit.jsonl")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(dir, "audit.jsonl")); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("got %v", err)
	}
}

func TestFullDisk(t *testing.T) {
	l, err := Open("/dev/full")
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	if err := l.Append([]Entry{{Event: LeaseGranted, Lease: 1}}); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "audit.file") {
		t.Errorf("got %v", err)
	}
	for range MaxWaiting + 2 {
		_ = l.Append([]Entry{{Event: LeaseEnded, Lease: 2}})
	}
	l.path = filepath.Join(t.TempDir(), "audit.jsonl") // there is room again
	if err := errors.Join(l.Reopen(), l.Append(nil)); err != nil {
		t.Fatal(err)
	}
	got := read(t, l.path)
	if len(got) != MaxWaiting+1 || got[0].Event != LeaseGranted || got[MaxWaiting].Event != LinesLost || !strings.HasPrefix(got[MaxWaiting].Detail, "3 lines") {
		t.Errorf("%d lines, the last %+v", len(got), got[len(got)-1])
	}
}
