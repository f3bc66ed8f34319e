package fabric

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestErrorsAreMatched(t *testing.T) {
	crash := fmt.Errorf("task 3: %w", &FunctionError{Kind: Crashed, Signal: 11, Detail: "somewhere"})
	if !errors.Is(crash, &FunctionError{Kind: Crashed}) || errors.Is(crash, &FunctionError{Kind: Exited}) {
		t.Error("kinds are not told apart")
	}
	if got, want := crash.Error(), "task 3: function crashed (signal 11, segmentation fault): somewhere"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(&RefusedError{Code: RefusedExpired, Text: "x"}, &RefusedError{Code: RefusedExpired}) {
		t.Error("refusals are not matched")
	}
}

func TestDialWithoutExecutor(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	cases := map[string]struct {
		endpoint Endpoint
		options  Options
		is       func(error) bool
	}{
		"nobody listens":  {Endpoint{Address: named(closed)}, Options{}, isGone},
		"no address":      {Endpoint{}, Options{}, isGone},
		"ring elsewhere":  {Endpoint{Address: named(closed), Local: filepath.Join(t.TempDir(), "none.sock")}, Options{Carrier: "ring"}, isGone},
		"never answers":   {Endpoint{Address: named(silent)}, Options{}, func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
		"unknown carrier": {Endpoint{Address: named(silent)}, Options{Carrier: "pigeon"}, func(err error) bool { return !isGone(err) }},
		"too many slots":  {Endpoint{Address: named(silent)}, Options{Slots: 65}, func(err error) bool { return !isGone(err) }},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
			defer cancel()
			c, err := Dial(ctx, test.endpoint, Code{Symbol: "f", Library: []byte("x")}, test.options)
			if c != nil || err == nil || !test.is(err) {
				t.Errorf("got %v, %v", c, err)
			}
		})
	}
}

// named is a listener's address with a fingerprint.
func named(l net.Listener) string { return l.Addr().String() + "#" + strings.Repeat("A", 43) }

func isGone(err error) bool {
	var gone *GoneError
	return errors.As(err, &gone)
}

func TestDialIsCancelled(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		if conn, err := silent.Accept(); err == nil {
			cancel()
			_ = conn.Close()
		}
	}()
	if _, err := Dial(ctx, Endpoint{Address: named(silent)}, Code{Symbol: "f", Library: []byte("x")}, Options{}); err == nil {
		t.Error("dialled")
	}
	cancel()
}
