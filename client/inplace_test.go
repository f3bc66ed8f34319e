package client

import (
	"errors"
	"strings"
	"testing"

	"github.com/gleaner-hpc/gleaner/api"
)

// TestInPlace: arguments are written anew for a run after an eviction, the result is read once, and what cannot be written is the
// task's final error. Over memory that an executor's connection lends this is tested in package executor.
func TestInPlace(t *testing.T) {
	began, first := make(chan struct{}, 2), make(chan struct{})
	w, c := newWorld(t, func(input []byte) ([]byte, error) {
		began <- struct{}{}
		if len(began) == 1 {
			<-first
		}
		return reverse(input)
	})
	l := acquire(t, c, Request{Buffer: 4096})
	victim := w.arrive()
	written, read := 0, []string{}
	call := l.Start(t.Context(), Task{InPlace: &InPlace{
		Bytes: 16,
		Write: func(args []byte) (int, error) { written++; return copy(args, "abc"), nil },
		Read:  func(result []byte) { read = append(read, string(result)) },
	}})
	eventually(t, "task runs", func() bool { return len(began) == 1 })
	w.remove(victim, api.EndReason_EVICTED, "evicted: job 12 needed cores 0-3")
	w.arrive()
	output, err := call.Result()
	close(first)
	if err != nil || output != nil || written != 2 || len(read) != 1 || read[0] != "cba" {
		t.Errorf("output %q, %v; written %d times, read %q", output, err, written, read)
	}

	for want, place := range map[string]*InPlace{
		"without Write":                  {},
		"17 bytes written, room for 16":  {Bytes: 16, Write: func([]byte) (int, error) { return 17, nil }},
		"no such matrix":                 {Write: func([]byte) (int, error) { return 0, errors.New("no such matrix") }},
		"the lease's buffer holds 4096,": {Bytes: 4097, Write: func([]byte) (int, error) { return 0, nil }},
	} {
		_, err := l.Start(t.Context(), Task{InPlace: place}).Result()
		var input *InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}
