package agent

import (
	"math"
	"testing"
	"time"

	apiexec "github.com/gleaner-hpc/gleaner/api/executor"
)

func TestPollingIsBelievedWithinReason(t *testing.T) {
	began := time.Unix(1000, 0)
	tests := map[string]struct {
		said []uint64 // one second apart, from one second after the start
		want time.Duration
	}{
		"what it says":          {[]uint64{100e6, 250e6}, 250 * time.Millisecond},
		"never less":            {[]uint64{700e6, 10e6}, 700 * time.Millisecond},
		"never above its time":  {[]uint64{5e9}, time.Second},
		"nor by an overflow":    {[]uint64{math.MaxUint64}, time.Second},
		"nor below the highest": {[]uint64{math.MaxUint64, 0}, time.Second},
		"nothing said":          {[]uint64{0}, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l, e := &loop{}, &executor{running: began}
			for i, ns := range test.said {
				l.used(e, &apiexec.Usage{SpinNS: ns}, began.Add(time.Duration(i+1)*time.Second))
			}
			if e.spin != test.want || e.spun != (test.want > 0) {
				t.Errorf("%v, to be told: %t; want %v", e.spin, e.spun, test.want)
			}
		})
	}
}
