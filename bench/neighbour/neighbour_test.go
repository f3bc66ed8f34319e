package neighbour

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/bench"
)

// script is a host's program that says what it is told to: the n-th run takes the n-th time.
func script(t *testing.T, text string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "host")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	return []string{path}
}

func config(t *testing.T, host string) Config {
	return Config{
		Policy: "idle", Host: script(t, host), Hosts: []string{"cache"}, Functions: []string{"io"}, Pairs: 4, Work: time.Second, Slice: time.Millisecond, Load: 2, Patience: time.Minute,
		Executors: func() int { return 2 }, Progress: func(string) {},
	}
}

// TestPairs: a host that takes 100 ms alone and 110 ms beside functions is 10 % slower, whichever comes first in a pair.
func TestPairs(t *testing.T) {
	c := config(t, `echo "ready 1"; read -r line; echo 5
for ms in 100 110 110 100 100 110 110 100; do read -r line; echo ${ms}000000; done
`)
	c.Invoke = func(_ context.Context, input []byte) ([]byte, error) {
		if kind := binary.LittleEndian.Uint32(input); len(input) != 16 || Kinds[kind] != "io" {
			return nil, errors.New("wrong order")
		}
		return binary.LittleEndian.AppendUint64(nil, 5), nil
	}
	r, err := Run(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	cell := r.Cells[0]
	if cell.Pairs != 4 || cell.Calls < 4 || cell.Units != 5*uint64(cell.Calls) || cell.Least != 2 || len(cell.With) != 4 { //nolint:gosec // few
		t.Errorf("%+v", cell)
	}
	if want := (bench.Interval{Median: 0.1, Low: 0.1, High: 0.1}); cell.Slowdown != want || cell.Within || !cell.Told {
		t.Errorf("slowdown %+v", cell.Slowdown)
	}
}

// TestNothingLent: a policy that lends nothing beside the host is measured too, and its turns do not wait long for ever.
func TestNothingLent(t *testing.T) {
	c := config(t, "echo ready 1\nwhile read -r line; do echo 1000; done\n")
	c.Patience = time.Second
	c.Invoke = func(ctx context.Context, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }
	begin := time.Now()
	r, err := Run(context.Background(), c)
	if err != nil || r.Cells[0].Calls != 0 || !r.Cells[0].Within {
		t.Fatalf("%+v, %v", r, err)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("%d pairs took %v", c.Pairs, took)
	}
}

func TestFailures(t *testing.T) {
	const fine = "echo ready 1\nwhile read -r line; do echo 1000; done\n"
	tests := map[string]struct {
		host   string
		output []byte
		err    error
		want   string
	}{
		"host refuses":     {"echo no such kind >&2; exit 2\n", nil, nil, "no such kind"},
		"host dies":        {"echo ready 1\nread -r line; echo 1000\nread -r line; echo no space >&2; exit 1\n", make([]byte, 8), nil, "the host's program ended"},
		"host babbles":     {"echo ready 1\nwhile read -r line; do echo soon; done\n", make([]byte, 8), nil, `says "soon"`},
		"function refuses": {fine, nil, nil, "cannot do its work"},
		"invocation fails": {fine, nil, errors.New("lease ended"), "lease ended"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := config(t, test.host)
			c.Invoke = func(context.Context, []byte) ([]byte, error) { return test.output, test.err }
			if _, err := Run(context.Background(), c); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}
