package report

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"time"
)

// WriteCSV writes the report in the long form section,key,unit,value: one figure per line, in base units, sections and keys as in
// the JSON document. Keys of several parts are joined by "/", such as nodes,n1/harvested,cpu_ms,1200. Times are RFC 3339.
func (r *Report) WriteCSV(w io.Writer) error {
	c := longForm{csv.NewWriter(w)}
	c.row("section", "key", "unit", "value")
	c.row("report", "schema", "", r.Schema)
	c.row("report", "since", "time", r.Since.Format(time.RFC3339Nano))
	c.row("report", "until", "time", r.Until.Format(time.RFC3339Nano))
	c.slices("cpu", "", "cpu_ms", r.CPU)
	c.slices("gpu", "", "gpu_ms", r.GPU)
	c.memory("memory", "", r.Memory)
	for _, n := range r.Nodes {
		c.slices("nodes", n.Node+"/", "cpu_ms", n.CPU)
		c.slices("nodes", n.Node+"/gpu_", "gpu_ms", n.GPU)
		c.memory("nodes", n.Node+"/memory_", n.Memory)
	}
	for _, row := range r.Heatmap.Rows {
		for i, cell := range row.Cells {
			if cell.Reported > 0 {
				start := r.Heatmap.Start.Add(time.Duration(i) * r.Heatmap.Step).Format(time.RFC3339)
				c.slices("heatmap", row.Node+"/"+start+"/", "cpu_ms", cell)
			}
		}
	}
	h := r.Harm
	c.number("harm", "evictions", "executors", int64(h.Evictions))
	c.number("harm", "evicted", "bytes", int64(h.EvictedMemory))
	c.distribution("harm", "eviction", h.Eviction)
	c.distribution("harm", "job_start_delay", h.JobStartDelay)
	c.number("harm", "late", "answers", int64(h.Late))
	c.number("harm", "drains_by_gleaner", "nodes", int64(h.DrainsByGleaner))
	c.number("harm", "drains_other", "nodes", int64(h.DrainsOther))
	c.number("executors", "ended", "executors", int64(r.Executors))
	c.distribution("executors", "startup", r.Startup)
	c.distribution("executors", "lifetime", r.Lifetime)
	for _, e := range r.Ends {
		c.number("executor_ends", e.Reason, "executors", int64(e.Count))
	}
	c.usage("users", r.Users)
	c.usage("accounts", r.Accounts)
	c.usage("functions", r.Functions)
	c.number("tasks", "ok", "tasks", int64(r.Tasks.OK))
	c.number("tasks", "failed", "tasks", int64(r.Tasks.Failed))
	c.number("tasks", "retried", "tasks", int64(r.Tasks.Retried))
	c.number("quality", "gap", "node_ms", r.Quality.GapMS)
	c.number("quality", "overlap", "cpu_ms", r.Quality.OverlapMS)
	c.number("quality", "repeated", "intervals", int64(r.Quality.Repeated))
	for _, g := range r.Quality.Gaps {
		c.number("gaps", g.Node+"/"+g.Start.Format(time.RFC3339Nano), "ms", g.End.Sub(g.Start).Milliseconds())
	}
	c.w.Flush()
	if err := c.w.Error(); err != nil {
		return fmt.Errorf("write report as CSV: %w", err)
	}
	return nil
}

// longForm writes rows; the csv.Writer keeps the first error.
type longForm struct{ w *csv.Writer }

func (c longForm) row(section, key, unit, value string) {
	_ = c.w.Write([]string{section, plain(key), unit, value}) // Error returns it
}

// plain keeps a spreadsheet from reading a name, which users choose, as a formula.
func plain(key string) string {
	if key != "" && (key[0] == '=' || key[0] == '+' || key[0] == '-' || key[0] == '@') {
		return "'" + key
	}
	return key
}

func (c longForm) number(section, key, unit string, v int64) {
	c.row(section, key, unit, strconv.FormatInt(v, 10))
}

func (c longForm) float(section, key, unit string, v float64) {
	c.row(section, key, unit, strconv.FormatFloat(v, 'f', 0, 64))
}

func (c longForm) slices(section, prefix, unit string, s Slices) {
	for _, p := range s.parts() {
		c.number(section, prefix+p.Key, unit, p.MS)
	}
	c.number(section, prefix+"reported", unit, s.Reported)
}

func (c longForm) memory(section, prefix string, m Memory) {
	c.float(section, prefix+"reported", "byte_seconds", m.Reported)
	c.float(section, prefix+"allocated", "byte_seconds", m.Allocated)
	c.float(section, prefix+"harvested", "byte_seconds", m.Harvested)
	c.float(section, prefix+"used", "byte_seconds", m.Used)
	c.float(section, prefix+"used_known", "byte_seconds", m.UsedKnown)
}

func (c longForm) distribution(section, key string, d Distribution) {
	c.number(section, key+"/count", "", int64(d.Count))
	c.number(section, key+"/p50", "ns", int64(d.P50))
	c.number(section, key+"/p99", "ns", int64(d.P99))
	c.number(section, key+"/max", "ns", int64(d.Max))
}

func (c longForm) usage(section string, rows []UsageRow) {
	for _, u := range rows {
		c.number(section, u.Name+"/executors", "executors", int64(u.Executors))
		c.number(section, u.Name+"/held", "cpu_ms", u.CPUMS)
		c.number(section, u.Name+"/computed", "cpu_ms", u.UsedCPUMS)
		c.number(section, u.Name+"/polled", "cpu_ms", u.PolledCPUMS)
		c.float(section, u.Name+"/memory", "byte_hours", u.MemoryByteHours)
		c.number(section, u.Name+"/gpu", "gpu_ms", u.GPUMS)
		c.number(section, u.Name+"/evicted", "executors", int64(u.Evicted))
	}
}
