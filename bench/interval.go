package bench

import (
	"math"
	"math/rand/v2"
	"slices"
)

// Interval is a figure with the bounds between which its true value lies with 95 % confidence.
type Interval struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

// resamples is what Efron and Tibshirani advise for percentiles, "An Introduction to the Bootstrap", 1993, chapter 13.
const resamples = 2000

// MedianInterval is the median of paired differences or ratios with its percentile bootstrap interval. The same samples give the same
// answer.
func MedianInterval(samples []float64) Interval {
	if len(samples) == 0 {
		return Interval{}
	}
	r := rand.New(rand.NewPCG(uint64(len(samples)), 3))
	drawn, medians := make([]float64, len(samples)), make([]float64, resamples)
	for i := range medians {
		for k := range drawn {
			drawn[k] = samples[r.IntN(len(samples))]
		}
		medians[i] = middle(drawn)
	}
	slices.Sort(medians)
	at := func(q float64) float64 { return digits(medians[int(q*(resamples-1))]) }
	return Interval{digits(middle(slices.Clone(samples))), at(0.025), at(0.975)}
}

// middle sorts what it is given.
func middle(samples []float64) float64 {
	slices.Sort(samples)
	n := len(samples)
	return (samples[(n-1)/2] + samples[n/2]) / 2
}

func digits(x float64) float64 { return math.Round(x*1e5) / 1e5 }
