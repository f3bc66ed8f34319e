package executor_test

import (
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/fabric"
)

// An executor that has nothing to do holds little of its own program (6 MiB), and serves on.
func TestCalm(t *testing.T) {
	b := start(t, "functions.so")
	c := b.connect(fabric.Options{})
	for round := range 3 {
		until := time.Now().Add(10 * time.Second)
		for resident := residentKiB(t, b.process.Process.Pid); resident > 4<<10; resident = residentKiB(t, b.process.Process.Pid) {
			if time.Now().After(until) {
				t.Fatalf("round %d: %d KiB are resident", round, resident)
			}
			time.Sleep(5 * time.Millisecond)
		}
		echo(t, c, 64)
		closeQuietly(b.connect(fabric.Options{})) // which is the supervisor's to serve
	}
}
