// Package state is what an agent leaves to its successor: which executors run for whom, what jobs hold, and the records that the
// broker has not stored yet. One small JSON file, replaced atomically. What cannot be written is not lost at once: the agent goes on,
// and says so.
package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gleaner-hpc/gleaner/agent/session"
)

// Schema is the file's version.
const Schema = 1

// State is the file.
type State struct {
	Schema    int             `json:"schema"`
	Boot      string          `json:"boot"` // the kernel's boot id: processes and claims of another boot are gone
	PublicKey []byte          `json:"public_key,omitempty"`
	Executors []Executor      `json:"executors,omitempty"`
	Holds     []Hold          `json:"holds,omitempty"`
	Outbox    *session.Outbox `json:"outbox,omitempty"`
}

// Executor is one that was started and not seen to end.
type Executor struct {
	Start   []byte    `json:"start"`         // the broker's Start, encoded
	Box     string    `json:"box,omitempty"` // its sandbox, where that is not named like it
	Cores   string    `json:"cores"`
	GPUs    string    `json:"gpus,omitempty"`
	Since   time.Time `json:"since"`
	Address string    `json:"address,omitempty"` // once ready
	Local   string    `json:"local,omitempty"`
	Startup int64     `json:"startup_ns,omitempty"`
}

// Hold is what one Slurm job holds.
type Hold struct {
	Job       uint32    `json:"job"`
	Cores     string    `json:"cores,omitempty"`
	All       bool      `json:"all,omitempty"`
	CoreCount int       `json:"core_count,omitempty"`
	Memory    uint64    `json:"memory"`
	GPUs      string    `json:"gpus,omitempty"`
	Since     time.Time `json:"since"`
	Origin    string    `json:"origin"`
	Share     string    `json:"share,omitempty"` // its own word
}

// Load reads the file. A missing file is an empty state; one that cannot be read is moved aside, and the error says so.
func Load(path string) (*State, error) {
	empty := &State{Schema: Schema}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return empty, fmt.Errorf("read state: %w", err)
	}
	s := &State{}
	err = json.Unmarshal(text, s)
	if err == nil && s.Schema != Schema {
		err = fmt.Errorf("schema %d, this agent knows %d", s.Schema, Schema)
	}
	if err != nil {
		aside := path + ".unreadable"
		return empty, fmt.Errorf("read state %s (kept as %s): %w", path, aside, errors.Join(err, os.Rename(path, aside)))
	}
	return s, nil
}

// Save replaces the file. It is not synced: a state matters only as long as the kernel that wrote it runs.
func Save(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new*")
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write state %s: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// Writer saves states in the background, the latest one only.
type Writer struct {
	Path string
	Log  *slog.Logger

	mu     sync.Mutex
	latest []byte
	wake   chan struct{}
}

// NewWriter returns a writer for the file at path.
func NewWriter(path string, log *slog.Logger) *Writer {
	return &Writer{Path: path, Log: log, wake: make(chan struct{}, 1)}
}

// Set hands over a state. It does not block.
func (w *Writer) Set(text []byte) {
	w.mu.Lock()
	w.latest = text
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Run writes until ctx ends. Flush then writes what is left.
func (w *Writer) Run(ctx context.Context) error {
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		}
		err := w.Flush()
		if (err != nil) != failing {
			failing = err != nil
			w.Log.Warn("state file", "writable", !failing, "error", err)
		}
	}
}

// Flush writes the latest state if it is not written yet.
func (w *Writer) Flush() error {
	w.mu.Lock()
	text := w.latest
	w.latest = nil
	w.mu.Unlock()
	if text == nil {
		return nil
	}
	return Save(w.Path, text)
}
