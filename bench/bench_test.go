package bench

import (
	"testing"
	"time"
)

func ms(values ...int) []time.Duration {
	var all []time.Duration
	for _, v := range values {
		all = append(all, time.Duration(v)*time.Millisecond)
	}
	return all
}

func TestSummarize(t *testing.T) {
	hundred := make([]int, 200)
	for i := range hundred {
		hundred[i] = 200 - i
	}
	for name, c := range map[string]struct {
		samples []time.Duration
		want    Summary
	}{
		"none":        {nil, Summary{}},
		"one":         {ms(7), Summary{1, 7, 7, 7}},
		"unordered":   {ms(3, 1, 2), Summary{3, 2, 3, 3}},
		"even":        {ms(4, 1, 2, 3), Summary{4, 2, 4, 4}},
		"two hundred": {ms(hundred...), Summary{200, 100, 198, 200}},
	} {
		if got := Summarize(c.samples); got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

func TestRatio(t *testing.T) {
	if got := Ratio(3, 2); got != 1.5 {
		t.Errorf("got %v", got)
	}
	if got := Ratio(3, 0); got != 0 {
		t.Errorf("without a baseline: got %v", got)
	}
}

func TestMedian(t *testing.T) {
	if got := Median(ms(9, 1, 5)); got != 5*time.Millisecond {
		t.Errorf("got %v", got)
	}
	if got := Median(nil); got != 0 {
		t.Errorf("of nothing: got %v", got)
	}
}
