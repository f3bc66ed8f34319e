package report

import (
	"strings"
	"testing"
	"time"
)

func TestHeatmapColumns(t *testing.T) {
	start := time.Date(2026, 3, 1, 9, 0, 7, 0, time.UTC)
	for name, c := range map[string]struct {
		window, step time.Duration
		first        time.Time
		columns      int
	}{
		"an instant":                        {0, time.Second, start, 0},
		"20 seconds":                        {20 * time.Second, time.Second, start, 20},
		"the longest of seconds":            {49 * time.Second, time.Second, start, 49},
		"a second more":                     {50 * time.Second, 2 * time.Second, start.Add(-time.Second), 26},
		"5 minutes":                         {5 * time.Minute, 10 * time.Second, start.Add(-7 * time.Second), 31},
		"3 hours are not yet hours":         {3 * time.Hour, 5 * time.Minute, start.Add(-7 * time.Second), 37},
		"a day in hours":                    {24 * time.Hour, time.Hour, start.Add(-7 * time.Second), 25},
		"49 hours":                          {49 * time.Hour, time.Hour, start.Add(-7 * time.Second), 50},
		"a week":                            {7 * 24 * time.Hour, 6 * time.Hour, start.Add(-3*time.Hour - 7*time.Second), 29},
		"49 days":                           {49 * 24 * time.Hour, 24 * time.Hour, start.Add(-9*time.Hour - 7*time.Second), 50},
		"a year in whole days":              {365 * 24 * time.Hour, 8 * 24 * time.Hour, time.Time{}, 0},
		"longer than the longest by a hair": {49*24*time.Hour + time.Millisecond, 2 * 24 * time.Hour, time.Time{}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			u := newRollup(start, start.Add(c.window))
			h := u.r.Heatmap
			if h.Step != c.step || !c.first.IsZero() && u.columns != c.columns || u.columns > 50 {
				t.Errorf("%d columns of %s, want %d of %s", u.columns, h.Step, c.columns, c.step)
			}
			if !c.first.IsZero() && !h.Start.Equal(c.first) {
				t.Errorf("starts at %s, want %s", h.Start, c.first)
			}
			if h.Start.After(start) || start.Sub(h.Start) >= h.Step {
				t.Errorf("starts at %s, which does not hold %s", h.Start, start)
			}
		})
	}
}

func TestCSVKeepsNamesFromBeingFormulas(t *testing.T) {
	for _, name := range []string{"=1+1", "+1", "-1", "@sum"} {
		if got := plain(name); got != "'"+name {
			t.Errorf("%q is written as %q", name, got)
		}
	}
	for _, name := range []string{"", "alice", "a=b", "1-2"} {
		if got := plain(name); got != name {
			t.Errorf("%q is written as %q", name, got)
		}
	}
	var b strings.Builder
	r := newRollup(t0, t0.Add(time.Hour)).report()
	r.Users = []UsageRow{{Name: "=cmd"}}
	if err := r.WriteCSV(&b); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "'=cmd") || strings.Contains(b.String(), ",=cmd") {
		t.Errorf("a user's name stands as a formula:\n%s", b.String())
	}
}
