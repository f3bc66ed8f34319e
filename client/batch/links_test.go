package batch

import (
	"os"
	"path/filepath"
	"testing"
)

// TestResultsFollowNoLinks: a result takes the place of a link that lies in its way, and leaves alone what the link leads to.
func TestResultsFollowNoLinks(t *testing.T) {
	dir := t.TempDir()
	victim, result := filepath.Join(dir, "victim"), filepath.Join(dir, "out", "a")
	if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Dir(result), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{victim, "../victim", "../nowhere", "a"} {
		if err := os.Symlink(target, result); err != nil {
			t.Fatal(err)
		}
		if err := Write(result, []byte("result")); err != nil {
			t.Errorf("a link to %s in the way: %v", target, err)
		}
		info, err := os.Lstat(result)
		if err != nil || !info.Mode().IsRegular() {
			t.Errorf("a link to %s is still there: %v, %v", target, info, err)
		}
		if text, err := os.ReadFile(victim); err != nil || string(text) != "mine" {
			t.Errorf("what a link to %s leads to is %q now: %v", target, text, err)
		}
		if err := os.Remove(result); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("a result was written through a link")
	}
}
