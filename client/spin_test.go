package client

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseSpin(t *testing.T) {
	tests := map[string]struct {
		want time.Duration
		err  string
	}{
		"":       {0, ""},
		"always": {SpinAlways, ""},
		"never":  {SpinNever, ""},
		"0":      {SpinNever, ""},
		"0s":     {SpinNever, ""},
		"50us":   {50 * time.Microsecond, ""},
		"2ms":    {2 * time.Millisecond, ""},
		"10s":    {10 * time.Second, ""},
		"11s":    {0, "at most 10s"},
		"-1ns":   {0, "want always, never"},
		"50":     {0, "want always, never"},
		"Always": {0, "want always, never"},
	}
	for text, test := range tests {
		t.Run(text, func(t *testing.T) {
			got, err := ParseSpin(text)
			if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("got %v, %v; want %v, %q", got, err, test.want, test.err)
			}
		})
	}
}

// What a lease asks for reaches its data paths.
func TestPath(t *testing.T) {
	w, c := newWorld(t, reverse)
	l := acquire(t, c, Request{Buffer: 2 << 20, Tasks: TaskOptions{Spin: SpinNever, Room: 3}})
	w.arrive()
	if output, err := l.Invoke(t.Context(), []byte("abcd")); err != nil || string(output) != "dcb" {
		t.Errorf("got %q, %v: room for a result is 3 bytes", output, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if want := (Path{Buffer: 2 << 20, Spin: SpinNever}); w.path != want {
		t.Errorf("the path was %+v, want %+v", w.path, want)
	}
}

func TestFormatSpinIsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.OneOf(rapid.Just(SpinAlways), rapid.Just(SpinNever), rapid.Just(time.Duration(0)),
			rapid.Map(rapid.Int64Range(1, int64(maxSpin)), func(n int64) time.Duration { return time.Duration(n) })).Draw(t, "spin")
		if got, err := ParseSpin(FormatSpin(want)); err != nil || got != want {
			t.Errorf("%v came back as %v, %v", want, got, err)
		}
	})
}
