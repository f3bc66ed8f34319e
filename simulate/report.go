package simulate

import (
	"math"
	"time"
)

// SchemaName is the version of the JSON document.
const SchemaName = "gleaner.simulate/1"

// Report is what a run gives: the machine, what was asked for, and an outcome for each policy.
type Report struct {
	Schema   string    `json:"schema"`
	Source   string    `json:"source,omitempty"`
	Start    time.Time `json:"start,omitzero"`
	Span     float64   `json:"span_seconds"`
	Nodes    int       `json:"nodes"`
	Cores    int       `json:"cores"`
	Jobs     int       `json:"jobs"`
	Windows  Windows   `json:"idle_windows"`
	Asked    Asked     `json:"functions"`
	Policies []Outcome `json:"policies"`
	Notes    []string  `json:"notes"`
}

// Asked repeats what functions were simulated, and the assumptions.
type Asked struct {
	Distribution  Distribution `json:"distribution,omitempty"`
	MinSeconds    float64      `json:"min_seconds,omitempty"`
	MaxSeconds    float64      `json:"max_seconds,omitempty"`
	Cores         int          `json:"cores,omitempty"`
	MemoryBytes   uint64       `json:"memory_bytes"`
	Tasks         int          `json:"tasks,omitempty"` // of a second trace
	Seed          uint64       `json:"seed"`
	RoundSeconds  float64      `json:"round_seconds"`
	StartSeconds  float64      `json:"startup_seconds"`
	EvictingDelay float64      `json:"delay_evicting_ms"`
	QuietDelay    float64      `json:"delay_quiet_ms"`
}

// Windows describes the stretches for which a node had free cores, from the first that got free until none was.
type Windows struct {
	Count         int     `json:"count"`
	MeanSeconds   float64 `json:"mean_seconds"`
	MedianSeconds float64 `json:"median_seconds"`
	Under10Min    float64 `json:"share_under_10_minutes"`
}

// Outcome is what one policy gave. Times are core-seconds.
type Outcome struct {
	Policy    string    `json:"policy"`
	CPU       CPU       `json:"core_seconds"`
	Memory    Memory    `json:"byte_seconds"`
	Functions Functions `json:"functions"`
	Executors int       `json:"executors"`
	Evictions int       `json:"evictions"`
	Jobs      Jobs      `json:"jobs"`
	UsedShare float64   `json:"used_share"` // of idle, by functions that finished
	LostShare float64   `json:"lost_share"` // of what functions computed
	Timeline  []Column  `json:"timeline"`
}

// CPU divides the machine's cores over time: Reported = Allocated + Down + Idle, and Idle = Finished + Running + Lost + Starting + Left,
// where what executors held is all of that but Left.
type CPU struct {
	Reported  float64 `json:"reported"`
	Allocated float64 `json:"allocated"`
	Down      float64 `json:"down"`
	Idle      float64 `json:"idle"`
	Harvested float64 `json:"harvested"` // held by executors
	Finished  float64 `json:"finished"`  // by functions that finished
	Running   float64 `json:"running"`   // into functions that ran when the trace ended
	Lost      float64 `json:"lost"`      // into functions that were evicted
	Starting  float64 `json:"starting"`  // executors that were not ready yet
	Left      float64 `json:"left"`      // idle all the same
}

// Memory divides the machine's memory over time.
type Memory struct {
	Reported     float64 `json:"reported"`
	Allocated    float64 `json:"allocated"`
	Down         float64 `json:"down"`
	Idle         float64 `json:"idle"`
	Harvested    float64 `json:"harvested"`
	UnusedInJobs float64 `json:"unused_in_jobs"` // of Allocated, where the trace says what jobs touched
}

// Functions counts.
type Functions struct {
	Finished int `json:"finished"`
	Lost     int `json:"lost"` // evicted in the middle, and begun again elsewhere
	Left     int `json:"left"` // of a second trace: not done at its end
}

// Jobs says what the owners noticed.
type Jobs struct {
	Started      int           `json:"started"`
	Evicting     int           `json:"evicting"` // on whose nodes something was evicted
	DelaySeconds float64       `json:"delay_seconds"`
	DelayMost    time.Duration `json:"delay_most_ns"`
}

// Column is one stretch of the timeline, in shares of the machine.
type Column struct {
	Allocated float64 `json:"allocated"`
	Down      float64 `json:"down"`
	Harvested float64 `json:"harvested"`
}

func newReport(s *Schedule, cfg Config) *Report {
	t, d := s.Trace, cfg.Demand
	r := &Report{
		Schema: SchemaName, Start: t.Origin, Span: t.Span.Seconds(), Nodes: len(t.Nodes), Windows: s.windows(), Notes: s.notes(),
		Asked: Asked{
			MemoryBytes: d.Memory, Seed: cfg.Seed, RoundSeconds: cfg.Round.Seconds(), StartSeconds: cfg.Startup.Seconds(),
			EvictingDelay: milliseconds(cfg.DelayEvicting), QuietDelay: milliseconds(cfg.DelayQuiet),
		},
	}
	for i := range s.jobs {
		if !s.jobs[i].down {
			r.Jobs++
		}
	}
	for _, n := range t.Nodes {
		r.Cores += n.Cores
	}
	if d.Trace != nil {
		r.Asked.Tasks = len(d.Trace.Jobs)
		return r
	}
	r.Asked.Distribution, r.Asked.Cores = d.Lengths.Distribution, d.Cores
	r.Asked.MinSeconds, r.Asked.MaxSeconds = d.Lengths.Min.Seconds(), d.Lengths.Max.Seconds()
	return r
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// finish derives what follows from the sums.
func (o *Outcome) finish() {
	c, m := &o.CPU, &o.Memory
	c.Idle = max(0, c.Reported-c.Allocated-c.Down)
	m.Idle = max(0, m.Reported-m.Allocated-m.Down)
	c.Left = max(0, c.Idle-c.Harvested)
	o.UsedShare = round(share(c.Finished, c.Idle))
	o.LostShare = round(share(c.Lost, c.Finished+c.Running+c.Lost))
	for _, x := range []*float64{
		&c.Reported, &c.Allocated, &c.Down, &c.Idle, &c.Harvested, &c.Finished, &c.Running, &c.Lost, &c.Starting, &c.Left,
		&m.Reported, &m.Allocated, &m.Down, &m.Idle, &m.Harvested, &m.UnusedInJobs, &o.Jobs.DelaySeconds,
	} {
		*x = math.Round(*x*1000) / 1000
	}
	for i := range o.Timeline {
		t := &o.Timeline[i]
		t.Allocated, t.Down, t.Harvested = round(t.Allocated), round(t.Down), round(t.Harvested)
	}
}

func round(x float64) float64 { return math.Round(x*1e6) / 1e6 }
