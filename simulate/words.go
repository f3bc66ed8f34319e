package simulate

import (
	"fmt"
	"strings"
	"time"
)

// Sentence is what a director reads of one policy.
func (r *Report) Sentence(o *Outcome) string {
	return fmt.Sprintf("Under %s, functions would have used %s core-hours: %s of what jobs left idle. %s.", o.Policy, hours(o.CPU.Finished),
		percent(o.UsedShare), r.cost(o))
}

// cost is what it took from owners and from functions.
func (r *Report) cost(o *Outcome) string {
	lost := fmt.Sprintf("%s of their work would have been lost to evictions", percent(o.LostShare))
	if o.Functions.Left > 0 {
		lost += fmt.Sprintf(", %s of them not done at the end", group(float64(o.Functions.Left), 0))
	}
	if o.Jobs.Evicting == 0 {
		return lost + "; no job would have met an executor"
	}
	return fmt.Sprintf("%s; %s of %s job starts would have met executors and waited %.3g ms at most", lost,
		group(float64(o.Jobs.Evicting), 0), group(float64(o.Jobs.Started), 0), milliseconds(o.Jobs.DelayMost))
}

// Machine describes what was replayed.
func (r *Report) Machine() string {
	s := fmt.Sprintf("%s nodes, %s cores, %s", group(float64(r.Nodes), 0), group(float64(r.Cores), 0), days(r.Span))
	if !r.Start.IsZero() {
		s += " from " + r.Start.Format("2006-01-02 15:04")
	}
	s += fmt.Sprintf(", %s jobs", group(float64(r.Jobs), 0))
	if len(r.Policies) > 0 {
		c := r.Policies[0].CPU
		s += fmt.Sprintf("; %s of the core-hours were idle", percent(share(c.Idle, c.Reported)))
	}
	return s
}

// Functions describes what was asked to run.
func (r *Report) Functions() string {
	a := r.Asked
	if a.Tasks > 0 {
		return fmt.Sprintf("%s functions of a second trace, %s each", group(float64(a.Tasks), 0), byteSize(a.MemoryBytes))
	}
	cores := "1 core"
	if a.Cores != 1 {
		cores = fmt.Sprintf("%d cores", a.Cores)
	}
	length := fmt.Sprintf("%s to %s (%s)", seconds(a.MinSeconds), seconds(a.MaxSeconds), a.Distribution)
	if a.MinSeconds == a.MaxSeconds {
		length = seconds(a.MinSeconds)
	}
	return fmt.Sprintf("functions of %s, %s and %s each, without end", length, cores, byteSize(a.MemoryBytes))
}

// Method is what a careful reader wants to know.
func (r *Report) Method() []string {
	w, a := r.Windows, r.Asked
	method := []string{
		"Idle is what Slurm had given to nobody and was not down. Used is what functions that finished took of it; lost is what functions had computed when they were " +
			"evicted, as a share of all that functions computed. They begin again elsewhere.",
		fmt.Sprintf("Policies, placement, ledgers and eviction plans are those that run on a cluster. The broker decides every %s, an executor is ready %s after that. "+
			"A job start on a node waits %.3g ms for the gate, with evictions %.3g ms; these are assumptions, take what 'gleaner bench evict' measures on your nodes.",
			seconds(a.RoundSeconds), seconds(a.StartSeconds), a.QuietDelay, a.EvictingDelay),
		fmt.Sprintf("Nodes had free cores in %s stretches: %s at the median, %s on average, %s of them under 10 minutes.", group(float64(w.Count), 0), seconds(w.MedianSeconds),
			seconds(w.MeanSeconds), percent(w.Under10Min)),
		"A waiting job is taken to be known from its submission, its nodes and start included; slurmctld's own forecast is less exact.",
	}
	return append(method, r.Notes...)
}

func hours(coreSeconds float64) string { return group(coreSeconds/3600, 1) }

func gibHours(byteSeconds float64) string { return group(byteSeconds/3600/(1<<30), 1) }

// percent never rounds something to nothing, nor almost all to all.
func percent(x float64) string {
	switch {
	case x > 0 && x < 0.001:
		return "< 0.1 %"
	case x > 0.999 && x < 1:
		return "> 99.9 %"
	}
	return fmt.Sprintf("%.1f %%", x*100)
}

// group writes x with thousands apart; large figures lose their decimals.
func group(x float64, decimals int) string {
	if x >= 1000 {
		decimals = 0
	}
	whole, rest, _ := strings.Cut(fmt.Sprintf("%.*f", decimals, x), ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if rest != "" {
		whole += "." + rest
	}
	return whole
}

func byteSize(b uint64) string {
	if b >= 1<<30 && b%(1<<30) == 0 {
		return fmt.Sprintf("%d GiB", b>>30)
	}
	return fmt.Sprintf("%d MiB", b>>20)
}

func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", s*1000)
	case d < 2*time.Minute:
		return fmt.Sprintf("%.3g s", s)
	case d < 2*time.Hour:
		return fmt.Sprintf("%.3g min", s/60)
	}
	return fmt.Sprintf("%.3g h", s/3600)
}

func days(s float64) string {
	if s < 2*24*3600 {
		return seconds(s)
	}
	return fmt.Sprintf("%.3g days", s/24/3600)
}
