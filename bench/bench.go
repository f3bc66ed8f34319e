// Package bench sums up measurements: what every 'gleaner bench' reports of its samples, beside a baseline that was measured in
// the same run and in turns with it, so that whatever else the machine did fell on both. It measures nothing itself.
package bench

import (
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Summary describes samples in milliseconds. With fewer than 100 samples P99 is the largest.
type Summary struct {
	Samples int     `json:"samples"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	Max     float64 `json:"max_ms"`
}

// Summarize describes samples. It does not change them.
func Summarize(samples []time.Duration) Summary {
	if len(samples) == 0 {
		return Summary{}
	}
	sorted := slices.Sorted(slices.Values(samples))
	return Summary{
		Samples: len(sorted), P50: Milliseconds(quantile(sorted, 0.5)), P99: Milliseconds(quantile(sorted, 0.99)),
		Max: Milliseconds(sorted[len(sorted)-1]),
	}
}

// quantile is the smallest sample that at least a share q of all do not exceed.
func quantile(sorted []time.Duration, q float64) time.Duration {
	n := int(math.Ceil(q * float64(len(sorted))))
	return sorted[max(n, 1)-1]
}

// Milliseconds rounds to microseconds.
func Milliseconds(d time.Duration) float64 { return math.Round(float64(d)/1e3) / 1e3 }

// Median of the samples; 0 when there are none.
func Median(samples []time.Duration) time.Duration {
	if len(samples) == 0 {
		return 0
	}
	return quantile(slices.Sorted(slices.Values(samples)), 0.5)
}

// Ratio of two figures to three digits; 0 when there is no baseline.
func Ratio(measured, baseline float64) float64 {
	if baseline <= 0 {
		return 0
	}
	return math.Round(1000*measured/baseline) / 1000
}

// Machine says on what was measured, and how busy it was with other things.
type Machine struct {
	CPUs   int    `json:"cpus"`
	Kernel string `json:"kernel"`
	Cgroup string `json:"cgroup"` // v1 or v2
	Load   string `json:"load"`   // as in /proc/loadavg, when the run ended
}

// Here describes this machine.
func Here() Machine {
	m := Machine{CPUs: runtime.NumCPU(), Kernel: line("/proc/sys/kernel/osrelease"), Load: line("/proc/loadavg"), Cgroup: "v1"}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		m.Cgroup = "v2"
	}
	return m
}

func line(path string) string {
	text, _ := os.ReadFile(path)
	return strings.TrimSpace(string(text))
}
