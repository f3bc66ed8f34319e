package executor_test

import (
	"testing"
	"time"

	wire "github.com/gleaner-hpc/gleaner/api/executor"
	"github.com/gleaner-hpc/gleaner/api/jsonframe"
	"github.com/gleaner-hpc/gleaner/fabric"
)

// heard waits for a usage frame that fits.
func (b *bench) heard(t *testing.T, fits func(wire.Usage) bool) wire.Usage {
	t.Helper()
	_ = b.agent.SetReadDeadline(time.Now().Add(20 * time.Second))
	var last *wire.Usage
	for {
		var f wire.FromExecutor
		if err := jsonframe.Read(b.agent, &f); err != nil {
			t.Fatalf("%v; the last usage was %+v", err, last)
		}
		if f.Usage != nil && fits(*f.Usage) {
			return *f.Usage
		}
		last = f.Usage
	}
}

// Who polls without end is charged for all of the time, who never polls for next to none; serving is no polling.
func TestSpinIsObeyedAndCounted(t *testing.T) {
	const calls, idle = 5, 400 * time.Millisecond
	tests := map[string]struct {
		spin        time.Duration
		least, most float64 // polled, as a part of the time
	}{
		"always": {fabric.SpinAlways, 0.5, 1.01},
		"never":  {fabric.SpinNever, 0, 0.3},
		"50us":   {50 * time.Microsecond, 0, 0.3},
		"5s":     {5 * time.Second, 0.5, 1.01},
	}
	for _, carrier := range carriers {
		for name, test := range tests {
			t.Run(carrier+"/"+name, func(t *testing.T) {
				b := start(t, "functions.so")
				c := b.connect(fabric.Options{Carrier: carrier, Spin: test.spin})
				began := time.Now()
				for range calls { // of 20 ms each
					if _, err := c.Invoke(within(t), []byte("w"), make([]byte, 1), 0); err != nil {
						t.Fatal(err)
					}
				}
				<-time.After(idle) // in which nothing is asked of it: what is measured
				took := time.Since(began)
				_ = c.Close()
				u := b.heard(t, func(u wire.Usage) bool { return u.Invocations == calls })
				spun := time.Duration(u.SpinNS)
				if spun < time.Duration(test.least*float64(idle)) || spun > time.Duration(test.most*float64(took)) {
					t.Errorf("polled for %v of %v", spun, took)
				}
				if busy := time.Duration(u.BusyNS); busy < calls*19*time.Millisecond || busy+spun > took+100*time.Millisecond {
					t.Errorf("%v inside of the function and %v polled in %v, want %d times 20 ms", busy, spun, took, calls)
				}
			})
		}
	}
}

// What ended workers did is not forgotten.
func TestUsageOutlivesAWorker(t *testing.T) {
	b := start(t, "functions.so")
	c := b.connect(fabric.Options{Carrier: "ring"})
	echo(t, c, 64)
	if _, err := c.Invoke(within(t), []byte("a"), make([]byte, 1), 0); err == nil {
		t.Fatal("the function did not abort")
	}
	echo(t, c, 64)
	_ = c.Close()
	b.heard(t, func(u wire.Usage) bool { return u.Invocations == 2 && u.BusyNS > 0 })
}
