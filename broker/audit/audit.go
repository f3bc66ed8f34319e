// Package audit keeps the audit log: one line of JSON for each lease that is granted or denied, each executor that is started or
// ends, and each lease that ends. The file is only ever appended to, mode 0600; a line stands in it before what it tells of can be
// seen. While it cannot be written, lines wait in memory, and what is beyond MaxWaiting is lost and counted in a line of its own.
// It decides nothing: what holds meanwhile is the broker's to say. It is not safe for concurrent use.
package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"syscall"
	"time"
)

// Schema is the value of each line's "schema".
const Schema = "gleaner.audit/1"

// MaxWaiting bounds the lines that wait for the file.
const MaxWaiting = 10_000

// Event says what a line tells of.
type Event string

// The events.
const (
	LeaseGranted    Event = "lease_granted"
	LeaseDenied     Event = "lease_denied"     // reason is the rule
	ExecutorStarted Event = "executor_started" // its node has been chosen and is about to be told
	ExecutorEnded   Event = "executor_ended"   // reason, as in gleaner explain
	LeaseEnded      Event = "lease_ended"      // reason: released, expired, job_ended, stopped
	LinesLost       Event = "lines_lost"       // detail says how many
)

// Entry is one line. Docs/security.md documents the keys.
type Entry struct {
	Schema   string    `json:"schema"`
	Time     time.Time `json:"time"`
	Event    Event     `json:"event"`
	Lease    uint64    `json:"lease,omitempty"`
	UID      uint32    `json:"uid"`
	User     string    `json:"user,omitempty"`
	Account  string    `json:"account,omitempty"`
	Job      uint32    `json:"job,omitempty"`
	Function string    `json:"function,omitempty"` // the C symbol
	Digest   string    `json:"digest,omitempty"`   // SHA-256 of its library, in hex
	Image    string    `json:"image,omitempty"`    // as it was asked for; its digest once an executor has found it
	Count    int       `json:"executors,omitempty"`
	Cores    int       `json:"cores,omitempty"`        // of each
	Memory   uint64    `json:"memory_bytes,omitempty"` // of each
	GPUs     int       `json:"gpus,omitempty"`         // of each
	Executor string    `json:"executor,omitempty"`
	Node     string    `json:"node,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Detail   string    `json:"detail,omitempty"`
}

// Log is the open file.
type Log struct {
	path    string
	file    *os.File
	waiting [][]byte // whole lines, but for the first, of which a part may be written
	lost    int
}

// Open opens or creates the file.
func Open(path string) (*Log, error) {
	l := &Log{path: path}
	return l, l.Reopen()
}

// Reopen opens the path again, after the file has been moved away. The old file stays in use when that fails.
func (l *Log) Reopen() error {
	file, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("open audit log (audit.file): %w", err)
	}
	if info, err := file.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		if err := file.Chmod(0o600); err != nil {
			_ = file.Close()
			return fmt.Errorf("close audit log to others (audit.file): %w", err)
		}
	}
	if l.file != nil {
		_ = l.file.Close()
	}
	l.file = file
	return nil
}

// Append writes what waits and then the entries, which wait in their turn when it returns an error.
func (l *Log) Append(entries []Entry) error {
	for i := range entries {
		l.queue(&entries[i])
	}
	for len(l.waiting) > 0 {
		n, err := l.file.Write(l.waiting[0])
		if l.waiting[0] = l.waiting[0][n:]; err != nil {
			return fmt.Errorf("write audit log (audit.file): %w", err)
		}
		l.waiting = l.waiting[1:]
		if len(l.waiting) == 0 && l.lost > 0 {
			lost := Entry{Time: time.Now().UTC(), Event: LinesLost, Detail: fmt.Sprintf("%d lines are missing before this one: the log could not be written", l.lost)}
			l.lost = 0
			l.queue(&lost)
		}
	}
	l.waiting = nil
	return nil
}

func (l *Log) queue(e *Entry) {
	if len(l.waiting) >= MaxWaiting {
		l.lost++
		return
	}
	e.Schema = Schema
	var line bytes.Buffer
	encoder := json.NewEncoder(&line)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(e); err != nil { // a time beyond the year 9999 alone
		l.lost++
		return
	}
	l.waiting = append(l.waiting, line.Bytes())
}

// Close closes the file; what waits is lost.
func (l *Log) Close() error { return l.file.Close() }
