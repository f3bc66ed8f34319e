package sandbox

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

// BenchmarkStart is from the request to the executor's first instruction being due.
func BenchmarkStart(b *testing.B) {
	m := newManager(b, testConfig(b, "sleep"))
	for i := 0; b.Loop(); i++ {
		mustStart(b, m, spec(fmt.Sprintf("bench-%d", i)))
		b.StopTimer()
		if _, err := m.Kill(b.Context(), fmt.Sprintf("bench-%d", i)); err != nil {
			b.Fatal(err)
		}
		<-m.Exited()
		b.StartTimer()
	}
}

// BenchmarkKill is from the request to all processes gone and all memory free.
func BenchmarkKill(b *testing.B) {
	for _, c := range []struct {
		name, mode string
		boxes      int
		milli      int
		memory     int64
	}{
		{"1 small", "sleep", 1, 1000, 64 << 20},
		{"8 small", "sleep", 8, 1000, 64 << 20},
		{"8 small with a tenth of a CPU", "sleep", 8, 100, 64 << 20},
		{"1 with 1 GiB resident", "resident", 1, 1000, 1200 << 20},
		{"2 with 1 GiB resident", "resident", 2, 1000, 1200 << 20},
	} {
		b.Run(c.name, func(b *testing.B) {
			cfg := testConfig(b, c.mode)
			m := newManager(b, cfg)
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				ids := startAll(b, m, cfg, c.boxes, i, func(s *launcher.Spec) { s.MilliCPUs, s.MemoryBytes = c.milli, c.memory })
				b.StartTimer()
				ctx, cancel := context.WithTimeout(b.Context(), 10*time.Second)
				remaining, err := m.Kill(ctx, ids...)
				cancel()
				if err != nil || len(remaining) > 0 {
					b.Fatalf("remaining %v, %v", remaining, err)
				}
				b.StopTimer()
				for range ids {
					<-m.Exited()
				}
				b.StartTimer()
			}
		})
	}
}

func startAll(b *testing.B, m *Manager, cfg Config, boxes, round int, change func(*launcher.Spec)) []string {
	b.Helper()
	var ids []string
	for n := range boxes {
		s := spec(fmt.Sprintf("bench-%d-%d", round, n))
		change(&s)
		mustStart(b, m, s)
		ids = append(ids, s.ID)
	}
	for _, id := range ids {
		told(b, cfg, id)
	}
	return ids
}

// BenchmarkResize is what a parked sandbox costs a lease, besides its assignment.
func BenchmarkResize(b *testing.B) {
	cfg := testConfig(b, "sleep")
	m := newManager(b, cfg)
	s := spec("bench-resize")
	mustStart(b, m, s)
	for i := 0; b.Loop(); i++ {
		s.MemoryBytes = int64(64+64*(i%2)) << 20
		if err := m.Resize(b.Context(), s); err != nil {
			b.Fatal(err)
		}
	}
}
