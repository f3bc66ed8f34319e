package owner

import (
	"testing"
	"time"
)

// A job with 4000 MiB grows by 1 MiB a millisecond from 100 MiB on, and looks come every 10 ms; the script says when executors go.
func TestCourse(t *testing.T) {
	const began = time.Hour
	tests := map[string]struct {
		each, own  uint64 // MiB
		gone       []int  // ms after the beginning, in order; -1: never
		late, past int
		told       bool
	}{
		"gone before it is needed":     {each: 3600, gone: []int{90}, late: 90, past: -210, told: true},
		"gone when it is needed":       {each: 3600, gone: []int{300}, late: 300, past: 0, told: true},
		"the job waits":                {each: 3600, gone: []int{420}, late: 120, past: 120, told: true},
		"the second of two comes late": {each: 1800, gone: []int{100, 2300}, late: 200, past: 200, told: true},
		"both in time":                 {each: 1800, gone: []int{100, 2000}, late: 100, past: -100, told: true},
		"both at once":                 {each: 1800, gone: []int{80, 80}, late: 80, past: -220, told: true},
		"never gone":                   {each: 3600, gone: []int{-1}, late: 3700, past: 3700, told: true},
		"a part is nobody's":           {each: 3600, own: 600, gone: []int{1000}, late: 100, past: 100, told: true},
		"nothing borrowed":             {each: 500, own: 600, gone: []int{100}},
		"nobody there":                 {},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := course{began: began, allocation: 4000 << 20, each: test.each << 20, own: test.own << 20}
			for ms := 0; ms <= 4000; ms += 10 {
				left := 0
				for _, gone := range test.gone {
					if gone < 0 || ms < gone {
						left++
					}
				}
				c.looks = append(c.looks, look{began + time.Duration(ms)*time.Millisecond, uint64(min(3800, 100+ms)) << 20, left})
			}
			late, past, told := c.back()
			if late.Milliseconds() != int64(test.late) || past.Milliseconds() != int64(test.past) || told != test.told {
				t.Errorf("back after %v, past need %v, told %v; want %d ms, %d ms, %v", late, past, told, test.late, test.past, test.told)
			}
		})
	}
	if _, _, told := new(course).back(); told {
		t.Error("no look tells something")
	}
}
