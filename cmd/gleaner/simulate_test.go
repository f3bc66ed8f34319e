package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gleaner-hpc/gleaner/policies"
	"github.com/gleaner-hpc/gleaner/simulate"
)

// offline runs the command with a PATH of its own, without any daemon.
func offline(t *testing.T, stdin string, args ...string) (code int, out, complaint string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	a := &app{stdin: strings.NewReader(stdin), stdout: &stdout, stderr: &stderr, getenv: func(string) string { return "" }}
	code = a.main(context.Background(), args)
	return code, stdout.String(), stderr.String()
}

const someLog = "; MaxNodes: 2\n; MaxProcs: 8\n1 0 0 600 4 -1 -1 4 -1 -1 1 1 1 -1 1 1 -1 -1\n2 900 0 600 8 -1 -1 8 -1 -1 1 1 1 -1 1 1 -1 -1\n"

const someJobs = `JobIDRaw|Submit|Start|End|Timelimit|NNodes|NCPUS|AllocTRES|NodeList
12|2026-11-01T07:50:00|2026-11-01T08:00:00|2026-11-01T08:10:00|01:00:00|2|8|cpu=8,mem=16G,node=2|n[2-3]
13|2026-11-01T07:50:00|2026-11-01T08:10:00|2026-11-01T08:40:00|01:00:00|1|4|cpu=4,mem=8G,node=1|n2
`

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSimulateForms(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write([]byte(someLog)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	log := write(t, "log.swf.gz", packed.String())
	code, first, complaint := offline(t, "", "simulate", log, "--output", "json", "--policy", "careful")
	if code != exitOK {
		t.Fatal(code, complaint)
	}
	var r simulate.Report
	if err := json.Unmarshal([]byte(first), &r); err != nil {
		t.Fatal(err)
	}
	// 2 nodes of 4 cores for 1500 s; the jobs take 4 and 8 cores for 600 s each.
	if c := r.Policies[0].CPU; r.Schema != simulate.SchemaName || c.Reported != 12000 || c.Allocated != 7200 || c.Idle != 4800 || c.Finished < 0.9*4800 {
		t.Errorf("%+v", c)
	}
	if _, second, _ := offline(t, "", "simulate", log, "--output", "json", "--policy", "careful"); second != first {
		t.Error("the same command gives other bytes")
	}
	if _, other, _ := offline(t, "", "simulate", log, "--output", "json", "--policy", "careful", "--seed", "2"); other == first {
		t.Error("another seed gives the same bytes")
	}
	page := filepath.Join(t.TempDir(), "page.html")
	if code, out, complaint := offline(t, "", "simulate", log, "--output", "html", "-o", page); code != exitOK || out != "" {
		t.Fatal(code, out, complaint)
	}
	if text, err := os.ReadFile(page); err != nil || !bytes.Contains(text, []byte("<svg")) {
		t.Errorf("page: %v", err)
	}
	if code, out, complaint := offline(t, "", "simulate", log, "--demand", log); code != exitOK || !strings.Contains(out, "2 functions of a second trace") {
		t.Error(code, out, complaint)
	}
	if code, out, _ := offline(t, "", "simulate", log, "--output", "csv"); code != exitOK || strings.Count(out, "\n") != 3 || !strings.HasPrefix(out, "policy,idle_core_hours") {
		t.Error(code, out)
	}
}

func TestSimulateRefuses(t *testing.T) {
	log := write(t, "log.swf", someLog)
	tests := map[string]struct {
		args []string
		want string
	}{
		"bad line":   {[]string{"simulate", write(t, "bad.swf", someLog+"1 2 3\n")}, "bad.swf:5: 3 columns"},
		"no trace":   {[]string{"simulate", write(t, "poem", "roses are red\n")}, "poem:1: neither"},
		"policy":     {[]string{"simulate", log, "--policy", "greedy"}, "--policy greedy: want idle, slack"},
		"length":     {[]string{"simulate", log, "--length", "1s-x"}, "--length 1s-x"},
		"program":    {[]string{"simulate", log, "--policy", "/nowhere/policy"}, "/nowhere/policy"},
		"two traces": {[]string{"simulate", log, log}, "one trace at a time"},
		"absent":     {[]string{"simulate", "/nowhere"}, "/nowhere"},
		"estimate":   {[]string{"estimate", "--since", "2026-11-02", "--until", "2026-11-01"}, "is not before"},
		"not sacct":  {[]string{"estimate", log}, "log.swf:1: no column start"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if code, out, complaint := offline(t, "", test.args...); code != exitUsage || out != "" || !strings.Contains(complaint, test.want) {
				t.Errorf("exit %d, %q, want %s", code, complaint, test.want)
			}
		})
	}
}

// wrong answers with errors, or with more than there is.
type wrong struct {
	policies.Asked
	err error
}

func (w wrong) Harvest(_ context.Context, v policies.View) ([]policies.Offer, error) {
	offers := policies.Idle{}.Harvest(v)
	for i := range offers {
		offers[i].Resources.Cores++
	}
	return offers, w.err
}

// TestSitePolicyFails: what a site's policy answers wrongly is not replaced in silence.
func TestSitePolicyFails(t *testing.T) {
	view := policies.View{Nodes: []policies.Node{{Name: "n1", Total: policies.Resources{Cores: 2, MemoryBytes: 2}, Free: policies.Resources{Cores: 2, MemoryBytes: 2}}}}
	for name, err := range map[string]error{"nonsense": nil, "error": context.DeadlineExceeded} {
		var said error
		p := sitePolicy{context.Background(), wrong{err: err}, policies.Idle{}, func(_ string, err error) { said = err }}
		if offers := p.Harvest(view); said == nil || offers[0].Resources.Cores != 2 {
			t.Errorf("%s: %v, %+v", name, said, offers)
		}
	}
}

// TestEstimate: from a file, from standard input, and from Slurm's own commands, each of which is run once.
func TestEstimate(t *testing.T) {
	check := func(source string, code int, out, complaint string, nodes string) {
		t.Helper()
		if code != exitOK || !strings.HasPrefix(out, source+": "+nodes) || !strings.Contains(out, "Under careful, functions would have used") {
			t.Errorf("exit %d, %s %s", code, out, complaint)
		}
	}
	code, out, complaint := offline(t, "", "estimate", write(t, "jobs", someJobs))
	check("jobs", code, out, complaint, "2 nodes, 8 cores, 40 min")
	code, out, complaint = offline(t, someJobs, "estimate", "-", "--since", "2026-11-01T08:00", "--until", "2026-11-01T10:00")
	check("standard input", code, out, complaint, "2 nodes, 8 cores, 2 h")

	dir := t.TempDir()
	for name, text := range map[string]string{"sacct": someJobs, "sinfo": "n2|4|8000\nn3|4|8000\nn4|4|8000\n"} {
		script := "#!/bin/sh\necho \"$0 $*\" >>" + filepath.Join(dir, "asked") + "\ncat <<'E'\n" + text + "E\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	code, out, complaint = offline(t, "", "estimate", "--since", "2026-11-01", "--until", "2026-11-02")
	check("sacct", code, out, complaint, "3 nodes, 12 cores, 24 h")
	asked, err := os.ReadFile(filepath.Join(dir, "asked"))
	if err != nil || bytes.Count(asked, []byte("\n")) != 2 || !bytes.Contains(asked, []byte("--starttime=2026-11-01T00:00:00 --endtime=2026-11-02T00:00:00")) {
		t.Errorf("asked %s, %v", asked, err)
	}
}

// TestBenchSimulate: a small machine, whose figures are in the document.
func TestBenchSimulate(t *testing.T) {
	out := filepath.Join(t.TempDir(), "simulate.json")
	code, _, complaint := offline(t, "", "bench", "simulate", "--nodes", "50", "--jobs", "200", "--widest", "10", "-o", out)
	if code != exitOK {
		t.Fatal(code, complaint)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var r simulateResult
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if r.Placements < 50 || r.PeakBytes == 0 || r.CPUSeconds <= 0 || len(r.Outcomes) != 1 || r.Outcomes[0].UsedShare < 0.5 {
		t.Errorf("%+v", r)
	}
}
