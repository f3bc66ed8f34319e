package main

import (
	"testing"
	"time"
)

func TestParseTime(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Zurich")
	if err != nil {
		t.Skip("no time zone data")
	}
	now := time.Date(2026, 11, 23, 10, 30, 15, 0, zone)
	tests := map[string]string{
		"now":                 "2026-11-23T10:30:15",
		"now-1hour":           "2026-11-23T09:30:15",
		"now-90":              "2026-11-23T10:28:45",
		"now-30minutes":       "2026-11-23T10:00:15",
		"now-30days":          "2026-10-24T10:30:15",
		"now+1week":           "2026-11-30T10:30:15",
		"today":               "2026-11-23T00:00:00",
		"Midnight":            "2026-11-23T00:00:00",
		"noon":                "2026-11-22T12:00:00",
		"elevenses":           "2026-11-22T11:00:00",
		"10:30":               "2026-11-23T10:30:00",
		"10:31":               "2026-11-22T10:31:00",
		"11:59:59pm":          "2026-11-22T23:59:59",
		"2026-11-01":          "2026-11-01T00:00:00",
		"2026-11-01T08:00":    "2026-11-01T08:00:00",
		"2026-11-01T08:00:30": "2026-11-01T08:00:30",
		"11/01":               "2026-11-01T00:00:00",
		"12/24":               "2025-12-24T00:00:00",
		"11/01/25":            "2025-11-01T00:00:00",
		"110125":              "2025-11-01T00:00:00",
		"uts1767225600":       "2026-01-01T01:00:00",
	}
	for text, want := range tests {
		got, err := parseTime(text, now)
		if err != nil || got.Format("2006-01-02T15:04:05") != want {
			t.Errorf("%s: got %s, %v; want %s", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "yesterday", "now-", "now-1month", "25:00", "2026-13-01", "uts", "now-99999999999", "now-99999999weeks", "0001-01-01", "now-999999hours", "now+999999999weeks"} {
		if got, err := parseTime(bad, now); err == nil {
			t.Errorf("%s: got %s", bad, got)
		}
	}
}

func FuzzParseTime(f *testing.F) {
	f.Add("now-1hour")
	f.Add("2026-11-01T08:00")
	f.Fuzz(func(t *testing.T, s string) { _, _ = parseTime(s, time.Unix(1_800_000_000, 0)) })
}
