package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// listed is how many users, accounts and nodes the text and the page show; JSON and CSV have all of them.
const listed = 20

// textWidth is that of a terminal.
const textWidth = 80

// WriteText writes the report for a terminal.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Utilization, %s\n\n%s\n", r.window(), wrap(r.gain(), textWidth))
	if r.Empty() {
		_, err := io.WriteString(w, b.String())
		return err
	}
	fmt.Fprintf(&b, "%s\n\n", wrap(r.cost(), textWidth))
	r.textCPU(&b)
	r.textMemory(&b)
	r.textHarm(&b)
	textUsage(&b, "User", r.Users)
	textUsage(&b, "Account", r.Accounts)
	textUsage(&b, "Function", r.Functions)
	t := r.Tasks
	fmt.Fprintf(&b, "Tasks: %d ok, %d failed, %d run again after an eviction or a loss\n\n", t.OK, t.Failed, t.Retried)
	fmt.Fprintln(&b, "Method")
	for _, line := range r.method() {
		fmt.Fprintf(&b, "  %s\n", strings.ReplaceAll(wrap(line, textWidth-2), "\n", "\n  "))
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write report as text: %w", err)
	}
	return nil
}

func (r *Report) textCPU(b *strings.Builder) {
	const width = 60
	marks := map[string]string{"allocated": "#", "harvested": "+", "planned": "p", "down": "x", "planned_down": "m", "idle": "."}
	drawn, sum := 0, int64(0)
	b.WriteString("[")
	for _, p := range r.CPU.parts() {
		sum += p.MS
		to := int(ratio(sum, r.CPU.Reported)*width + 0.5)
		b.WriteString(strings.Repeat(marks[p.Key], max(to-drawn, 0)))
		drawn = max(drawn, to)
	}
	b.WriteString("]\n")
	t := tabwriter.NewWriter(b, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "CPU\t\tcore-hours\tshare\t\n")
	for _, p := range r.CPU.parts() {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t\n", p.Name, marks[p.Key], coreTable(p.MS), share(p.MS, r.CPU.Reported))
	}
	fmt.Fprintf(t, "Reported\t\t%s\t%s\t\n", coreTable(r.CPU.Reported), share(r.CPU.Reported, r.CPU.Reported))
	if r.GPU.Reported > 0 {
		fmt.Fprintf(t, "GPU: allocated\t\t%s\t%s\t\n", coreTable(r.GPU.Allocated), share(r.GPU.Allocated, r.GPU.Reported))
		fmt.Fprintf(t, "GPU: harvested\t\t%s\t%s\t\n", coreTable(r.GPU.Harvested), share(r.GPU.Harvested, r.GPU.Reported))
	}
	t.Flush()
	b.WriteString("\n")
}

func (r *Report) textMemory(b *strings.Builder) {
	m := r.Memory
	if m.Reported == 0 {
		return
	}
	fmt.Fprintf(b, "Memory: %s allocated, %s harvested", percent(m.Allocated/m.Reported), percent(m.Harvested/m.Reported))
	if m.UsedKnown > 0 {
		fmt.Fprintf(b, ", %s really used", percent(m.Used/m.UsedKnown))
	}
	b.WriteString("\n\n")
}

func (r *Report) textHarm(b *strings.Builder) {
	t := tabwriter.NewWriter(b, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\tcount\tp50\tp99\tmax\t\n")
	for _, row := range r.distributions() {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t\n", row.Name, row.Count, brief(row.P50), brief(row.P99), brief(row.Max))
	}
	t.Flush()
	h := r.Harm
	fmt.Fprintf(b, "%s\n\n", wrap(fmt.Sprintf("%s evicted, %s of memory given back. Answers after their deadline: %d. Nodes drained by Gleaner: %d, by others: %d.",
		plural(h.Evictions, "executor"), byteSize(float64(h.EvictedMemory)), h.Late, h.DrainsByGleaner, h.DrainsOther), textWidth))
}

type namedDistribution struct {
	Name string
	Distribution
}

func (r *Report) distributions() []namedDistribution {
	return []namedDistribution{
		{"Delay added to a job's start", r.Harm.JobStartDelay}, {"Eviction", r.Harm.Eviction},
		{"Executor start to ready", r.Startup}, {"Executor lifetime", r.Lifetime},
	}
}

func textUsage(b *strings.Builder, what string, rows []UsageRow) {
	if len(rows) == 0 {
		return
	}
	t := tabwriter.NewWriter(b, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "%s\texecutors\theld core-h\tcomputed core-h\tpolled core-h\tmemory GiB-h\tevicted\t\n", what)
	for _, u := range rows[:min(len(rows), listed)] {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%d\t\n", u.Name, u.Executors, coreTable(u.CPUMS), coreTable(u.UsedCPUMS), coreTable(u.PolledCPUMS),
			group(u.MemoryByteHours/(1<<30), 3), u.Evicted)
	}
	t.Flush()
	if more := len(rows) - listed; more > 0 {
		fmt.Fprintf(b, "  and %d more (--output csv has all)\n", more)
	}
	b.WriteString("\n")
}

// wrap breaks s between words so that no line is longer than width, unless a word is.
func wrap(s string, width int) string {
	var b strings.Builder
	column := 0
	for i, word := range strings.Fields(strings.ReplaceAll(s, " %", "\x00%")) { // a number stays with its sign
		word = strings.ReplaceAll(word, "\x00", " ")
		n := len([]rune(word))
		switch {
		case i == 0:
		case column+1+n > width:
			b.WriteString("\n")
			column = 0
		default:
			b.WriteString(" ")
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}
