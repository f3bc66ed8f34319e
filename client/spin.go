package client

import (
	"fmt"
	"time"

	"github.com/gleaner-hpc/gleaner/fabric"
)

// Budgets of TaskOptions.Spin that are no time.
const (
	SpinAlways = fabric.SpinAlways // never sleep: the least latency, for a core's time on each side
	SpinNever  = fabric.SpinNever  // sleep at once: no time is spent waiting, for 20 to 40 µs at each end of a call
)

// maxSpin is where a budget stops being one: waiting for longer is SpinAlways, and meant as such.
const maxSpin = 10 * time.Second

// ParseSpin reads a budget as users write it: always, never, or a time such as 50us.
func ParseSpin(s string) (time.Duration, error) {
	switch s {
	case "":
		return 0, nil
	case "always":
		return SpinAlways, nil
	case "never", "0":
		return SpinNever, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > maxSpin {
		return 0, fmt.Errorf("spin %q: want always, never, or a time of at most %v such as 50us", s, maxSpin)
	}
	if d == 0 {
		return SpinNever, nil
	}
	return d, nil
}

// FormatSpin writes a budget as ParseSpin reads it.
func FormatSpin(d time.Duration) string {
	switch {
	case d == 0:
		return ""
	case d == SpinNever:
		return "never"
	case d < 0:
		return "always"
	}
	return d.String()
}
