package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var errTime = errors.New("want now-1hour, today, HH:MM[:SS], YYYY-MM-DD[THH:MM[:SS]], MM/DD[/YY] or uts1234567890, as in Slurm")

var (
	offsetForm = regexp.MustCompile(`^now([+-]\d{1,9})([a-z]*)$`)
	dateForms  = []string{"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02", "01/02/06", "01.02.06", "010206"}
	yearless   = []string{"01/02", "01.02", "0102"}
	clockForms = []string{"15:04:05", "15:04", "3:04:05PM", "3:04PM"}
	named      = map[string]time.Duration{"today": 0, "midnight": 0, "elevenses": 11 * time.Hour, "noon": 12 * time.Hour, "fika": 15 * time.Hour, "teatime": 16 * time.Hour}
	units      = map[string]time.Duration{"": time.Second, "second": time.Second, "minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour, "week": 7 * 24 * time.Hour}
)

// parseTime reads a moment in the forms of sacct and sreport, in now's time zone. A time of day without a date is the latest one
// that is over; a date without a year is this year's, or last year's when that is to come.
func parseTime(s string, now time.Time) (time.Time, error) {
	text := strings.ToLower(strings.TrimSpace(s))
	if text == "now" {
		return now, nil
	}
	if m := offsetForm.FindStringSubmatch(text); m != nil {
		return offset(now, m[1], m[2], s)
	}
	if seconds, ok := strings.CutPrefix(text, "uts"); ok {
		if n, err := strconv.ParseInt(seconds, 10, 40); err == nil && n >= 0 {
			return time.Unix(n, 0).In(now.Location()), nil
		}
	}
	midnight := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, now.Location())
	if after, ok := named[text]; ok {
		return past(midnight, after, now), nil
	}
	upper := strings.ToUpper(text)
	for _, form := range clockForms {
		if t, err := time.Parse(form, upper); err == nil {
			return past(midnight, time.Duration(t.Hour())*time.Hour+time.Duration(t.Minute())*time.Minute+time.Duration(t.Second())*time.Second, now), nil
		}
	}
	return date(upper, s, now)
}

func offset(now time.Time, count, unit, s string) (time.Time, error) {
	step, ok := units[strings.TrimSuffix(unit, "s")]
	n, err := strconv.ParseInt(count, 10, 32)
	if !ok || err != nil {
		return time.Time{}, fmt.Errorf("time %q: want now-COUNT with seconds, minutes, hours, days or weeks", s)
	}
	if step >= 24*time.Hour {
		return within(now.AddDate(0, 0, int(n)*int(step/(24*time.Hour))), s)
	}
	return within(now.Add(time.Duration(n)*step), s)
}

// within refuses what is no date in Slurm or JSON.
func within(t time.Time, s string) (time.Time, error) {
	if t.Year() < 1970 || t.Year() > 9999 {
		return time.Time{}, fmt.Errorf("time %q: want one after 1970", s)
	}
	return t, nil
}

func past(midnight time.Time, after time.Duration, now time.Time) time.Time {
	at := func(day time.Time) time.Time {
		s := int(after / time.Second)
		return time.Date(day.Year(), day.Month(), day.Day(), s/3600, s/60%60, s%60, 0, day.Location())
	}
	if t := at(midnight); !t.After(now) {
		return t
	}
	return at(midnight.AddDate(0, 0, -1))
}

func date(text, s string, now time.Time) (time.Time, error) {
	for _, form := range dateForms {
		if t, err := time.ParseInLocation(form, text, now.Location()); err == nil {
			return within(t, s)
		}
	}
	for _, form := range yearless {
		t, err := time.ParseInLocation("2006 "+form, fmt.Sprintf("%04d %s", now.Year(), text), now.Location())
		if err != nil {
			continue
		}
		if t.After(now) {
			t = t.AddDate(-1, 0, 0)
		}
		return t, nil
	}
	return time.Time{}, fmt.Errorf("time %q: %w", s, errTime)
}
