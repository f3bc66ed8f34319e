// The judge says whether the demo did what it promises: it looks at every thumbnail with Go's JPEG decoder, which shares nothing with
// libjpeg, reads what the witness found and what map and report say, writes the summary, and exits with 0 only if all is right.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

// Summary is demo/summary.json.
type Summary struct {
	Tasks                int     `json:"tasks"`
	OK                   int     `json:"ok"` // thumbnails that are right
	Failed               int     `json:"failed"`
	Evictions            int     `json:"evictions"`
	Retried              int     `json:"retried"`
	HarvestedCoreSeconds float64 `json:"harvested_core_seconds"`
	JobStartDelayMS      float64 `json:"job_start_delay_ms"` // added by Gleaner to the start of a job, at most
	OwnerFirst           bool    `json:"owner_first"`
}

func main() {
	photographs := flag.String("photographs", "", "folder of the inputs")
	thumbnails := flag.String("thumbnails", "", "folder of the results, named ALBUM-PHOTOGRAPH")
	albums := flag.Int("albums", 1, "how often each photograph was worked through")
	mapped := flag.String("map", "", "summary of gleaner map")
	report := flag.String("report", "", "utilization report as JSON")
	witness := flag.String("witness", "", "folder of the witness's findings")
	findings := flag.Int("findings", 1, "how many findings there must be")
	out := flag.String("out", "", "file for the summary")
	flag.Parse()

	var wrong []string
	note := func(err error) {
		if err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	s := Summary{}
	note(fromMap(&s, *mapped))
	note(fromReport(&s, *report))
	note(fromWitness(&s, *witness, *findings))
	bad, err := judgeAll(*photographs, *thumbnails, *albums, &s)
	note(err)
	for i, b := range bad {
		if i < 10 {
			note(b)
		}
	}
	if s.Evictions == 0 {
		wrong = append(wrong, "no executor was evicted, so the owner's coming first shows nothing")
	}
	text, err := json.MarshalIndent(s, "", "  ")
	note(err)
	fmt.Println(string(text))
	note(os.WriteFile(*out, append(text, '\n'), 0o644))
	for _, w := range wrong {
		fmt.Fprintln(os.Stderr, "judge:", w)
	}
	if len(wrong) > 0 || s.Failed > 0 || s.OK != s.Tasks || !s.OwnerFirst {
		os.Exit(1)
	}
}

func read(path string, to any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, to); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func fromMap(s *Summary, path string) error {
	var m struct{ Tasks, OK, Failed, Left, Evictions, Retried int }
	if err := read(path, &m); err != nil {
		return err
	}
	s.Evictions, s.Retried = m.Evictions, m.Retried
	if m.Failed+m.Left > 0 || m.OK != m.Tasks {
		return fmt.Errorf("gleaner map: %d of %d tasks ok, %d failed, %d left", m.OK, m.Tasks, m.Failed, m.Left)
	}
	return nil
}

func fromReport(s *Summary, path string) error {
	var r struct {
		CPU  map[string]int64 `json:"cpu_ms"`
		Harm struct {
			Delay struct {
				Max int64 `json:"max_ns"`
			} `json:"job_start_delay"`
		} `json:"harm"`
	}
	if err := read(path, &r); err != nil {
		return err
	}
	s.HarvestedCoreSeconds = float64(r.CPU["harvested"]) / 1000
	s.JobStartDelayMS = float64(r.Harm.Delay.Max/1000) / 1000
	sum := int64(0)
	for name, ms := range r.CPU {
		if name != "reported" {
			sum += ms
		}
	}
	if sum != r.CPU["reported"] || sum == 0 {
		return fmt.Errorf("the report's slices sum to %d of %d CPU-milliseconds", sum, r.CPU["reported"])
	}
	return nil
}

func fromWitness(s *Summary, folder string, want int) error {
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil {
		return err
	}
	if len(files) != want {
		return fmt.Errorf("%d findings of the witness, want %d", len(files), want)
	}
	s.OwnerFirst = true
	for _, file := range files {
		var f struct {
			Exclusive  bool
			OwnerFirst bool `json:"owner_first"`
			Violations []string
		}
		if err := read(file, &f); err != nil {
			s.OwnerFirst = false
			return err
		}
		if !f.OwnerFirst || !f.Exclusive {
			s.OwnerFirst = false
			return fmt.Errorf("witness %s: exclusive %t, violations %q", filepath.Base(file), f.Exclusive, f.Violations)
		}
	}
	return nil
}
