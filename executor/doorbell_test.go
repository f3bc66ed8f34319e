package executor_test

import (
	"strings"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/fabric"
)

// TestDoorbells: payloads on both sides of every threshold come through by either doorbell, and the trial at connect finds the
// one that the provider is known to do.
func TestDoorbells(t *testing.T) {
	found := "write"
	if strings.Contains(provider, "verbs") {
		found = "message"
	}
	for _, c := range []struct{ forced, want string }{{"message", "message"}, {"write", "write"}, {"", found}} {
		t.Run("forced "+c.forced, func(t *testing.T) {
			t.Setenv("GLEANER_DOORBELL", c.forced)
			conn := start(t, "functions.so").connect(fabric.Options{Carrier: "ofi"})
			for deadline := time.Now().Add(20 * time.Second); conn.Doorbell() != c.want && time.Now().Before(deadline); {
				echo(t, conn, 64) // the trial's answer comes when somebody polls
			}
			for _, size := range []int{0, 1, 64, 128, 129, 4096, 4097, 65536, 65537, 8 << 20} {
				echo(t, conn, size)
			}
			if got := conn.Doorbell(); got != c.want {
				t.Errorf("doorbell %q, want %q", got, c.want)
			}
		})
	}
}

// TestDoorbellsAfterACrash: the trial is repeated with the worker that takes over.
func TestDoorbellsAfterACrash(t *testing.T) {
	conn := start(t, "functions.so").connect(fabric.Options{Carrier: "ofi"})
	for range 3 {
		echo(t, conn, 4096)
		if _, err := conn.Invoke(within(t), []byte("s"), nil, 0); err == nil {
			t.Fatal("a crash went unnoticed")
		}
		echo(t, conn, 65536)
	}
}
