package state

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	empty := &State{Schema: Schema}
	if s, err := Load(path); err != nil || cmp.Diff(empty, s) != "" {
		t.Errorf("missing file: %+v, %v", s, err)
	}
	want := &State{
		Schema: Schema, Boot: "b", PublicKey: []byte{1}, Executors: []Executor{{Start: []byte{2}, Cores: "0-1", Since: time.Unix(5, 0).UTC()}},
		Holds: []Hold{{Job: 3, Cores: "4", Memory: 5, Since: time.Unix(6, 0).UTC(), Origin: "gate"}},
	}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if err := Save(path, text); err != nil {
		t.Fatal(err)
	}
	if s, err := Load(path); err != nil || cmp.Diff(want, s) != "" {
		t.Errorf("read back: %s, %v", cmp.Diff(want, s), err)
	}
	for name, text := range map[string]string{"cut short": `{"schema":1,"ex`, "of a later version": `{"schema":99}`, "empty": ""} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := Load(path); err == nil || cmp.Diff(empty, s) != "" {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
		if kept, err := os.ReadFile(path + ".unreadable"); err != nil || string(kept) != text {
			t.Errorf("%s: kept %q, %v", name, kept, err)
		}
	}
}

func TestWriterSavesTheLatest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	w := NewWriter(path, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	for _, text := range []string{"1", "2", "3"} {
		w.Set([]byte(text))
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "3" {
		t.Errorf("saved %q, %v", text, err)
	}
	if left, _ := filepath.Glob(path + ".new*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	w.Path = filepath.Join(t.TempDir(), "missing", "state.json")
	w.Set([]byte("4"))
	if err := w.Flush(); err == nil {
		t.Error("writing into a missing folder succeeded")
	}
}
