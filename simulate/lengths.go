package simulate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// Distribution names how lengths are drawn.
type Distribution string

const (
	Uniform     Distribution = "uniform"     // between Min and Max
	LogUniform  Distribution = "loguniform"  // between Min and Max, each factor of length as likely
	Exponential Distribution = "exponential" // with a mean of half of Min plus Max, cut to Min and Max
)

// Distributions lists all.
var Distributions = []Distribution{Uniform, LogUniform, Exponential}

// Lengths says how long functions take: from Min to Max.
type Lengths struct {
	Distribution Distribution
	Min, Max     time.Duration
}

// Check says what is wrong with l.
func (l Lengths) Check() error {
	if l.Min < time.Millisecond || l.Max < l.Min {
		return fmt.Errorf("functions of %v to %v: want 1 ms at least, and the shorter one first", l.Min, l.Max)
	}
	if slices.Contains(Distributions, l.Distribution) {
		return nil
	}
	return fmt.Errorf("distribution %q: want one of %q", l.Distribution, Distributions)
}

// draw draws one length in seconds.
func (l Lengths) draw(r *rand.Rand) float64 {
	low, high := l.Min.Seconds(), l.Max.Seconds()
	switch l.Distribution {
	case LogUniform:
		return low * math.Pow(high/low, r.Float64())
	case Exponential:
		return min(max(r.ExpFloat64()*(low+high)/2, low), high)
	}
	return low + (high-low)*r.Float64()
}

// moments returns mean and standard deviation in seconds.
func (l Lengths) moments() (mean, deviation float64) {
	low, high := l.Min.Seconds(), l.Max.Seconds()
	if low == high {
		return low, 0
	}
	var square float64
	switch l.Distribution {
	case LogUniform:
		width := math.Log(high / low)
		mean, square = (high-low)/width, (high*high-low*low)/(2*width)
	case Exponential:
		m := (low + high) / 2
		a, b := math.Exp(-low/m), math.Exp(-high/m)
		mean = low + m*(a-b)
		square = low*low + 2*m*(low*a-high*b) + 2*m*m*(a-b)
	default:
		mean, square = (low+high)/2, (low*low+low*high+high*high)/3
	}
	return mean, math.Sqrt(max(0, square-mean*mean))
}

// said is the length that a user would give: few functions take longer.
func (l Lengths) said() time.Duration {
	if l.Distribution == LogUniform {
		return time.Duration(l.Min.Seconds() * math.Pow(l.Max.Seconds()/l.Min.Seconds(), 0.95) * float64(time.Second))
	}
	return l.Min + time.Duration(0.95*float64(l.Max-l.Min))
}

// few functions are drawn one by one; more are drawn as a sum.
const few = 48

// served is what an executor has done in its life.
type served struct {
	functions int
	finished  float64 // seconds that finished functions took
	partial   float64 // seconds into the one that had not
}

// serve runs functions back to back for life seconds.
func (l Lengths) serve(r *rand.Rand, life float64) served {
	var s served
	mean, deviation := l.moments()
	for {
		left := life - s.finished
		n := left/mean - 8*deviation/mean*math.Sqrt(left/mean) - few/2
		if n < few {
			break
		}
		n = math.Floor(n)
		sum := n*mean + math.Sqrt(n)*deviation*r.NormFloat64()
		sum = min(max(sum, n*l.Min.Seconds()), n*l.Max.Seconds())
		if sum > left {
			break
		}
		s.functions, s.finished = s.functions+int(n), s.finished+sum
	}
	for {
		next := l.draw(r)
		if s.finished+next > life {
			s.partial = max(0, life-s.finished)
			return s
		}
		s.functions, s.finished = s.functions+1, s.finished+next
	}
}
