package report

import (
	"fmt"
	"strings"
	"time"
)

// gain is the sentence a director reads: what harvesting gave.
func (r *Report) gain() string {
	c := r.CPU
	switch {
	case r.Empty():
		return "Nothing is recorded for this time: no node reported and no function ran."
	case c.Reported == 0:
		return fmt.Sprintf("%s ran, but no node's time is recorded for this interval.", plural(r.Executors, "executor"))
	case c.Harvested == 0:
		return fmt.Sprintf("Nothing was harvested on %s: %s of %s were left idle.",
			plural(len(r.Nodes), "node"), coreTime(c.Idle), coreTime(c.Reported))
	}
	return fmt.Sprintf("On %s, functions had %s on cores that no job held: %s of what Slurm left over. The share of cores given out rose from %s to %s.",
		plural(len(r.Nodes), "node"), coreTime(c.Harvested), share(c.Harvested, c.Harvested+c.Idle),
		share(c.Allocated, c.Reported), share(c.Allocated+c.Harvested, c.Reported))
}

// cost is the second sentence: what it took from the owners.
func (r *Report) cost() string {
	h := r.Harm
	var parts []string
	if h.Evictions == 0 {
		parts = append(parts, "No executor had to make way for a job")
	} else {
		parts = append(parts, fmt.Sprintf("%s made way for jobs", plural(h.Evictions, "executor")))
	}
	switch h.JobStartDelay.Count {
	case 0:
		parts = append(parts, "no job start was touched")
	case 1:
		parts = append(parts, fmt.Sprintf("the start of 1 job was delayed by %s", brief(h.JobStartDelay.Max)))
	default:
		parts = append(parts, fmt.Sprintf("the start of %d jobs was delayed by %s at the median and %s at most",
			h.JobStartDelay.Count, brief(h.JobStartDelay.P50), brief(h.JobStartDelay.Max)))
	}
	if h.DrainsByGleaner == 0 {
		parts = append(parts, "no node was drained")
	} else {
		parts = append(parts, plural(h.DrainsByGleaner, "drain")+" caused")
	}
	return strings.Join(parts, "; ") + "."
}

func (r *Report) window() string {
	const layout = "2006-01-02 15:04:05"
	return fmt.Sprintf("%s to %s UTC (%s)", r.Since.Format(layout), r.Until.Format(layout), brief(r.Until.Sub(r.Since)))
}

// method is what a careful reader wants to know about the figures.
func (r *Report) method() []string {
	return []string{
		"Reported is the time that records cover: CPUs that Slurm may allocate x covered time, counted in whole CPU-milliseconds. " +
			"Allocated, Harvested, Down, Planned down, Planned and Idle sum to it exactly.",
		"Allocated is what Slurm gave to jobs, used or not. Harvested is what executors held of the rest; while an executor makes way, what both hold counts as allocated" +
			fmt.Sprintf(" (%s here).", coreTime(r.Quality.OverlapMS)),
		"Job-start delay is what Gleaner's answers to gate and Prolog took, as the agent measured it, per job on its slowest node; connecting to the agent is not in it. " +
			"Eviction is the same for answers that evicted something; executors that had gone when the job asked are counted, not timed. Percentiles are nearest-rank.",
		"Users, accounts and functions count executors that have ended; those still running appear once they end. Computed is processor time, held is cores x lifetime. Polled is what executors say that they spent on waiting for calls without sleeping (--spin).",
		"Slurm's own jobs appear by their allocation only. " + r.gapWords(),
	}
}

func (r *Report) gapWords() string {
	q := r.Quality
	s := "No time is missing."
	if len(q.Gaps) > 0 {
		s = fmt.Sprintf("%s without records, %s of node time in all, not counted as anything.",
			plural(len(q.Gaps), "gap"), brief(time.Duration(q.GapMS)*time.Millisecond))
	}
	if q.Repeated > 0 {
		s += fmt.Sprintf(" %s overlapped an earlier one and was cut.", plural(q.Repeated, "interval"))
	}
	return s
}

// part is one slice of the bar.
type part struct {
	Key, Name string
	MS        int64
}

func (s Slices) parts() []part {
	return []part{
		{"allocated", "Allocated", s.Allocated}, {"harvested", "Harvested", s.Harvested}, {"planned", "Planned", s.Planned},
		{"down", "Down", s.Down}, {"planned_down", "Planned down", s.PlannedDown}, {"idle", "Idle", s.Idle},
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func ratio(a, b int64) float64 {
	if b <= 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// share never rounds something to nothing, nor almost all to all.
func share(a, b int64) string { return percent(ratio(a, b)) }

func percent(x float64) string {
	switch {
	case x == 0 || x == 1:
		return fmt.Sprintf("%.0f %%", x*100)
	case x < 0.001:
		return "< 0.1 %"
	case x > 0.999 && x < 1:
		return "> 99.9 %"
	}
	return fmt.Sprintf("%.1f %%", x*100)
}

// coreTime writes CPU-milliseconds with the unit that fits.
func coreTime(ms int64) string {
	s := float64(ms) / 1000
	switch {
	case ms == 0:
		return "0 core-hours"
	case s < 600:
		return fmt.Sprintf("%.1f core-seconds", s)
	case s < 36_000:
		return fmt.Sprintf("%.1f core-minutes", s/60)
	}
	return group(s/3600, 1) + " core-hours"
}

// coreTable writes CPU-milliseconds for a column whose heading gives the unit.
func coreTable(ms int64) string { return group(float64(ms)/3_600_000, 3) }

// group writes x with thousands apart; large figures lose their decimals.
func group(x float64, decimals int) string {
	switch {
	case x >= 10_000:
		decimals = 0
	case x >= 100:
		decimals = min(decimals, 1)
	}
	s := fmt.Sprintf("%.*f", decimals, x)
	whole, rest, _ := strings.Cut(s, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if rest != "" {
		whole += "." + rest
	}
	return whole
}

// byteSize writes a size with a binary unit.
func byteSize(b float64) string {
	for _, unit := range []string{"B", "KiB", "MiB", "GiB", "TiB"} {
		if b < 1024 {
			if unit == "B" {
				return fmt.Sprintf("%.0f B", b)
			}
			return fmt.Sprintf("%.1f %s", b, unit)
		}
		b /= 1024
	}
	return group(b, 1) + " PiB"
}

// brief writes a duration with about three digits.
func brief(d time.Duration) string {
	switch {
	case d == 0:
		return "0 ms"
	case d < time.Millisecond:
		return fmt.Sprintf("%.0f µs", float64(d)/float64(time.Microsecond))
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond))
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%.1f days", d.Hours()/24)
}
