package executor_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/fabric"
)

// BenchmarkInvoke is one caller's round trips, with p50 and p99 in nanoseconds.
func BenchmarkInvoke(b *testing.B) {
	for _, carrier := range carriers {
		executor := start(b, "functions.so")
		for _, spin := range []time.Duration{50 * time.Microsecond, -1} {
			c := executor.connect(fabric.Options{Carrier: carrier, Spin: spin})
			for _, size := range []int{64, 4096, 65536, 1 << 20} {
				b.Run(fmt.Sprintf("%s/spin=%v/%d", carrier, spin, size), func(b *testing.B) { invoke(b, c, size) })
			}
			closeQuietly(c)
		}
	}
}

func invoke(b *testing.B, c *fabric.Conn, size int) {
	input, result := make([]byte, size), make([]byte, size)
	input[0] = 'e'
	ctx := context.Background()
	times := make([]time.Duration, 0, b.N)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		begin := time.Now()
		if _, err := c.Invoke(ctx, input, result, 0); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(begin))
	}
	b.StopTimer()
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2]), "p50-ns")
	b.ReportMetric(float64(times[len(times)*99/100]), "p99-ns")
}

// BenchmarkCold is from the executor's start to the first result.
func BenchmarkCold(b *testing.B) {
	for _, carrier := range carriers {
		b.Run(carrier, func(b *testing.B) {
			for range b.N {
				executor := start(b, "functions.so")
				c := executor.connect(fabric.Options{Carrier: carrier})
				echo(b, c, 64)
				closeQuietly(c)
				executor.stop()
			}
		})
	}
}
