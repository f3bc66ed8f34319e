package report

import (
	"bytes"
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"time"
)

//go:embed page.html
var page string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"core": coreTable, "share": share, "brief": brief, "group": group,
	"gib":  func(byteHours float64) string { return group(byteHours/(1<<30), 3) },
	"size": func(b uint64) string { return byteSize(float64(b)) },
}).Parse(page))

// pageData is what page.html shows; figures are drawn here, so that the page needs no script.
type pageData struct {
	*Report
	Window, Gain, Cost string
	Bar, Heat, Mem     template.HTML
	Parts              []part
	HeatNote           string
	Distributions      []namedDistribution
	Usage              []usageTable
	Gaps               []string
	Method             []string
}

type usageTable struct {
	What string
	Rows []UsageRow
	More int
}

// WriteHTML writes the report as one page that needs nothing else: no network, no script.
func (r *Report) WriteHTML(w io.Writer) error {
	d := pageData{
		Report: r, Window: r.window(), Gain: r.gain(), Cost: r.cost(), Parts: r.CPU.parts(),
		Distributions: r.distributions(), Method: r.method(), Gaps: r.longestGaps(8),
	}
	if r.CPU.Reported > 0 {
		d.Bar, d.Heat, d.Mem = drawBar(r.CPU), drawHeatmap(r.Heatmap), drawMemory(r.Memory)
		d.HeatNote = fmt.Sprintf("the darker, the more; each column is %s", strings.TrimSuffix(strings.TrimSuffix(brief(r.Heatmap.Step), " 0 s"), " 0 min"))
	}
	for _, u := range []usageTable{{What: "User", Rows: r.Users}, {What: "Account", Rows: r.Accounts}, {What: "Function", Rows: r.Functions}} {
		if u.More = max(len(u.Rows)-listed, 0); u.More > 0 {
			u.Rows = u.Rows[:listed]
		}
		if len(u.Rows) > 0 {
			d.Usage = append(d.Usage, u)
		}
	}
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, d); err != nil {
		return fmt.Errorf("make report page: %w", err)
	}
	if _, err := b.WriteTo(w); err != nil {
		return fmt.Errorf("write report as HTML: %w", err)
	}
	return nil
}

func (r *Report) longestGaps(n int) []string {
	var lines []string
	gaps := slices.Clone(r.Quality.Gaps)
	slices.SortStableFunc(gaps, func(a, b Gap) int { return cmp.Compare(b.End.Sub(b.Start), a.End.Sub(a.Start)) })
	for _, g := range gaps {
		if len(lines) == n {
			lines = append(lines, fmt.Sprintf("and %d shorter ones", len(r.Quality.Gaps)-n))
			break
		}
		lines = append(lines, fmt.Sprintf("%s: %s from %s", g.Node, brief(g.End.Sub(g.Start)), g.Start.Format(time.DateTime)))
	}
	return lines
}
