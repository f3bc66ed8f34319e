package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Schema is the version of the JSON document. A reader refuses a higher number and ignores keys that it does not know.
const Schema = "gleaner.report/1"

// ErrSchema says that a document is no report, or a newer one than this program can read.
var ErrSchema = errors.New("not a report that this version can read")

// Slices divides reported time, in CPU-milliseconds. The six parts sum exactly to Reported, as in sreport.
type Slices struct {
	Allocated   int64 `json:"allocated"`
	Harvested   int64 `json:"harvested"`
	Down        int64 `json:"down"`
	PlannedDown int64 `json:"planned_down"`
	Planned     int64 `json:"planned"`
	Idle        int64 `json:"idle"`
	Reported    int64 `json:"reported"`
}

// Add adds o to s.
func (s *Slices) Add(o Slices) {
	s.Allocated += o.Allocated
	s.Harvested += o.Harvested
	s.Down += o.Down
	s.PlannedDown += o.PlannedDown
	s.Planned += o.Planned
	s.Idle += o.Idle
	s.Reported += o.Reported
}

// Sum is the sum of the six parts.
func (s Slices) Sum() int64 {
	return s.Allocated + s.Harvested + s.Down + s.PlannedDown + s.Planned + s.Idle
}

// Memory divides memory over time, in byte-seconds, rounded. UsedKnown is the reported part for which the use is known.
type Memory struct {
	Reported  float64 `json:"reported"`
	Allocated float64 `json:"allocated"`
	Harvested float64 `json:"harvested"`
	Used      float64 `json:"used"`
	UsedKnown float64 `json:"used_known"`
}

// NodeRow is one node's share of the report.
type NodeRow struct {
	Node      string `json:"node"`
	Partition string `json:"partition"`
	CPU       Slices `json:"cpu_ms"`
	GPU       Slices `json:"gpu_ms"`
	Memory    Memory `json:"memory_byte_seconds"`
}

// Heatmap is node by column; each column is Step long and starts at Start + i*Step. Cells without covered time have Reported 0.
type Heatmap struct {
	Start time.Time     `json:"start"`
	Step  time.Duration `json:"step_ns"`
	Rows  []HeatRow     `json:"rows"`
}

// HeatRow is the columns of one node.
type HeatRow struct {
	Node  string   `json:"node"`
	Cells []Slices `json:"cells_cpu_ms"`
}

// Distribution describes a set of durations by the nearest-rank method; all zero when Count is.
type Distribution struct {
	Count int           `json:"count"`
	P50   time.Duration `json:"p50_ns"`
	P99   time.Duration `json:"p99_ns"`
	Max   time.Duration `json:"max_ns"`
}

// UsageRow is what one user, account or function got.
type UsageRow struct {
	Name            string  `json:"name"`
	Executors       int     `json:"executors"`
	CPUMS           int64   `json:"cpu_ms"`        // held: cores x lifetime
	UsedCPUMS       int64   `json:"used_cpu_ms"`   // really computed
	PolledCPUMS     int64   `json:"polled_cpu_ms"` // spent waiting for calls, as the executors said
	MemoryByteHours float64 `json:"memory_byte_hours"`
	GPUMS           int64   `json:"gpu_ms"`
	Evicted         int     `json:"evicted"`
}

// Harm is what harvesting cost the owners.
type Harm struct {
	Evictions       int          `json:"evictions"`         // executors that made way for a job
	EvictedMemory   uint64       `json:"evicted_bytes"`     // memory given back
	Eviction        Distribution `json:"eviction"`          // answers that evicted something
	JobStartDelay   Distribution `json:"job_start_delay"`   // per job: the slowest of its nodes
	Late            int          `json:"late"`              // answers after their deadline; the gate then cleared the node itself
	DrainsByGleaner int          `json:"drains_by_gleaner"` // with a reason that names Gleaner
	DrainsOther     int          `json:"drains_other"`
}

// TaskCounts is what the holders of leases reported.
type TaskCounts struct {
	OK      uint64 `json:"ok"`
	Failed  uint64 `json:"failed"`
	Retried uint64 `json:"retried"`
}

// Gap is time of a node that no interval covers.
type Gap struct {
	Node  string    `json:"node"`
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
}

// Quality says how far the figures can be trusted.
type Quality struct {
	Gaps      []Gap `json:"gaps"`
	GapMS     int64 `json:"gap_node_ms"`    // sum over nodes
	OverlapMS int64 `json:"overlap_cpu_ms"` // harvested beyond what Slurm left, as while evicting; counted as allocated only
	Repeated  int   `json:"repeated"`       // intervals that overlapped an earlier one of their node and were cut
}

// Report is the utilization report of [Since, Until).
type Report struct {
	Schema    string        `json:"schema"`
	Since     time.Time     `json:"since"`
	Until     time.Time     `json:"until"`
	CPU       Slices        `json:"cpu_ms"`
	GPU       Slices        `json:"gpu_ms"`
	Memory    Memory        `json:"memory_byte_seconds"`
	Nodes     []NodeRow     `json:"nodes"`
	Heatmap   Heatmap       `json:"heatmap"`
	Harm      Harm          `json:"harm"`
	Startup   Distribution  `json:"executor_startup"`
	Users     []UsageRow    `json:"users"`
	Accounts  []UsageRow    `json:"accounts"`
	Functions []UsageRow    `json:"functions"`
	Executors int           `json:"executors"`
	Lifetime  Distribution  `json:"executor_lifetime"`
	Ends      []ReasonCount `json:"executor_ends"`
	Tasks     TaskCounts    `json:"tasks"`
	Quality   Quality       `json:"quality"`
}

// ReasonCount counts the executors that ended for one reason.
type ReasonCount struct {
	Reason string `json:"reason"`
	Count  int    `json:"count"`
}

// Empty says that the report covers no time of any node and counts no executor.
func (r *Report) Empty() bool { return r.CPU.Reported == 0 && r.Executors == 0 }

// JSON encodes the report, schema included.
func (r *Report) JSON() ([]byte, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode report: %w", err)
	}
	return b, nil
}

// WriteJSON writes the report as indented JSON.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		return fmt.Errorf("write report as JSON: %w", err)
	}
	return nil
}

// Decode reads a report's JSON document. A newer schema is ErrSchema.
func Decode(data []byte) (*Report, error) {
	var r Report
	var head struct {
		Schema string `json:"schema"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	version, found := strings.CutPrefix(head.Schema, "gleaner.report/")
	if n, err := strconv.Atoi(version); !found || err != nil || n != 1 {
		return nil, fmt.Errorf("read report: schema %q, want %q: %w", head.Schema, Schema, ErrSchema)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	return &r, nil
}
