package faults

import (
	"encoding/json"
	"os"
	"time"
)

// Schema is the version of the report.
const Schema = "gleaner.faults/1"

// Report is what a run found.
type Report struct {
	Schema     string            `json:"schema"`
	Seed       uint64            `json:"seed"`
	Faults     int               `json:"faults"`
	Seconds    float64           `json:"seconds"`
	Kinds      map[string]*Count `json:"kinds"`
	Skipped    []string          `json:"skipped,omitempty"` // kinds that could not be injected, and why
	Maps       MapCounts         `json:"maps"`
	Jobs       JobCounts         `json:"jobs"`
	Samples    int               `json:"samples"`          // looks at all nodes between faults
	Slurm      []string          `json:"slurm,omitempty"`  // nodes that Slurm took out of service for a while, for its own faults
	Errors     map[string]int    `json:"errors,omitempty"` // what maps said that could not begin
	Violations []Violation       `json:"violations"`
}

// Count is one kind of fault.
type Count struct {
	Injected   int     `json:"injected"`
	Violations int     `json:"violations"`
	RecoverMS  float64 `json:"recover_ms_max"` // from its end until everything works again
}

// MapCounts sum up the function jobs.
type MapCounts struct {
	Begun     int     `json:"begun"`
	Right     int     `json:"right"`   // every task has its result, and it is right
	Refused   int     `json:"refused"` // no lease was to be had, and the map said so
	Tasks     int     `json:"tasks"`
	OK        int     `json:"ok"`
	Failed    int     `json:"failed"`
	Left      int     `json:"left"`
	Retried   int     `json:"retried"`
	Evictions int     `json:"evictions"`
	Lost      int     `json:"lost"`
	Longest   float64 `json:"longest_s"`
}

// JobCounts sum up the batch jobs.
type JobCounts struct {
	Submitted  int `json:"submitted"`
	Refused    int `json:"refused"`   // sbatch could not submit, Slurm being broken
	Cancelled  int `json:"cancelled"` // on purpose
	Findings   int `json:"findings"`  // of the witness
	OwnerFirst int `json:"owner_first"`
	Lost       int `json:"lost"`   // not seen to end, slurmctld or slurmd having been killed meanwhile
	Untold     int `json:"untold"` // the witness could not see what Slurm gave to whom
}

// Violation is a broken promise.
type Violation struct {
	Time  float64 `json:"time_s"`
	Fault string  `json:"fault"` // under way or just over
	What  string  `json:"what"`
}

// violated notes a violation.
func (r *run) violated(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := Violation{time.Since(r.began).Seconds(), r.current, what}
	r.report.Violations = append(r.report.Violations, v)
	if count := r.report.Kinds[kindOf(r.current)]; count != nil {
		count.Violations++
	}
	r.cfg.Log("VIOLATION at %.1f s, %s: %s", v.Time, v.Fault, what)
}

// count changes the report.
func (r *run) count(change func(*Report)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.report)
}

// Write keeps the report as JSON.
func (r *Report) Write(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
