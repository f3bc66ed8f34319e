package report

import (
	"context"
	"encoding/csv"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

func writers(r *Report) map[string]func(io.Writer) error {
	return map[string]func(io.Writer) error{"txt": r.WriteText, "csv": r.WriteCSV, "html": r.WriteHTML, "json": r.WriteJSON}
}

// rendered writes every form, and keeps them in the folder GLEANER_REPORT_OUT when that is set, to be looked at.
func rendered(t *testing.T, name string, r *Report) map[string]string {
	t.Helper()
	out := map[string]string{}
	for kind, write := range writers(r) {
		var b strings.Builder
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		out[kind] = b.String()
		if dir := os.Getenv("GLEANER_REPORT_OUT"); dir != "" {
			if err := os.WriteFile(dir+"/"+name+"."+kind, []byte(b.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return out
}

func TestFormsShowTheSameFigures(t *testing.T) {
	s := openStore(t)
	fill(t, s)
	r, err := s.Build(context.Background(), t0, t0.Add(4*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	out := rendered(t, "full", r)
	for _, want := range []string{r.gain(), r.cost(), "physics", coreTable(r.CPU.Harvested), "Job-start delay"} {
		for _, kind := range []string{"txt", "html"} {
			if !strings.Contains(strings.Join(strings.Fields(out[kind]), " "), want) {
				t.Errorf("%s lacks %q", kind, want)
			}
		}
	}
	page := out["html"]
	if strings.Contains(page, "<b>eve") {
		t.Error("a user's name is not escaped")
	}
	if m := regexp.MustCompile(`(?i)<script|https?://|src=|@import|url\(`).FindString(page); m != "" {
		t.Errorf("the page is not one file without scripts: %q", m)
	}
	records, err := csv.NewReader(strings.NewReader(out["csv"])).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range records {
		if len(rec) != 4 {
			t.Errorf("CSV row %q", rec)
		}
	}
}

func TestEmptyReportSaysSo(t *testing.T) {
	r, err := openStore(t).Build(context.Background(), time.Time{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	out := rendered(t, "empty", r)
	for _, kind := range []string{"txt", "html"} {
		if !strings.Contains(out[kind], "Nothing is recorded") || strings.Contains(out[kind], "NaN") {
			t.Errorf("%s: %s", kind, out[kind])
		}
	}
}

func TestLargeClusterSharesRows(t *testing.T) {
	u := newRollup(t0, t0.Add(30*24*time.Hour))
	for i := range 7241 {
		u.interval(Interval{Node: "nid" + time.Duration(100000 + i).String()[:6], Start: t0, End: t0.Add(30 * 24 * time.Hour), CPUs: 36, State: Idle, HarvestedCPUs: i % 36})
	}
	r := u.report()
	out := rendered(t, "large", r)
	if r.CPU.Sum() != r.CPU.Reported || len(out["html"]) > 1<<20 {
		t.Errorf("sum %d of %d; page of %d bytes", r.CPU.Sum(), r.CPU.Reported, len(out["html"]))
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		share(1, 100000): "< 0.1 %", share(99999, 100000): "> 99.9 %", share(0, 0): "0 %", share(1, 1): "100 %", share(1, 3): "33.3 %",
		coreTime(90_000): "90.0 core-seconds", coreTime(3_600_000_000): "1,000.0 core-hours", group(1234567, 3): "1,234,567", group(0.5, 3): "0.500",
		byteSize(1536): "1.5 KiB", byteSize(12): "12 B", brief(0): "0 ms", brief(1500 * time.Microsecond): "1.5 ms", brief(90 * time.Second): "1 min 30 s",
		wrap("a bb ccc", 4): "a bb\nccc", plural(1, "node"): "1 node", plural(2, "node"): "2 nodes",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
