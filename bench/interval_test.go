package bench

import (
	"math/rand/v2"
	"testing"
)

// TestMedianInterval: the interval holds the true median about as often as it says, is narrow where samples agree, and does not change.
func TestMedianInterval(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	held := 0
	const rounds = 100
	for range rounds {
		samples := make([]float64, 30)
		for i := range samples {
			samples[i] = 1 + 0.1*r.NormFloat64()
		}
		if v := MedianInterval(samples); v.Low <= 1 && 1 <= v.High {
			held++
		}
	}
	if held < rounds*88/100 {
		t.Errorf("%d of %d intervals hold the true value", held, rounds)
	}
	same := []float64{2, 2, 2, 2, 9}
	if v := MedianInterval(same); v.Median != 2 || v.Low != 2 || same[4] != 9 {
		t.Errorf("%+v of %v", v, same)
	}
	if v := MedianInterval(nil); v != (Interval{}) {
		t.Errorf("of nothing: %+v", v)
	}
}
