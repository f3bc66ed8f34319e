package simulate

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"
)

//go:embed page.html
var page string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"hours": hours, "gib": gibHours, "percent": percent, "number": func(n int) string { return group(float64(n), 0) },
	"ms": func(d time.Duration) string { return fmt.Sprintf("%.3g ms", milliseconds(d)) }, "seconds": seconds,
}).Parse(page))

// pageData is what page.html shows.
type pageData struct {
	*Report
	Title, Gain, Cost string
	Pictures          []picture
}

// picture is one policy's.
type picture struct {
	*Outcome
	Bar, Timeline template.HTML
}

// WriteHTML writes the report as one page that needs nothing else: no network, no script.
func (r *Report) WriteHTML(w io.Writer) error {
	d := pageData{Report: r, Title: r.Source}
	if d.Title == "" {
		d.Title = "What harvesting would have given"
	}
	if len(r.Policies) > 0 {
		gain, cost, _ := strings.Cut(r.Sentence(r.best()), "idle. ")
		d.Gain, d.Cost = gain+"idle.", cost
	}
	for i := range r.Policies {
		o := &r.Policies[i]
		d.Pictures = append(d.Pictures, picture{o, drawBar(o), r.drawTimeline(o)})
	}
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, d); err != nil {
		return fmt.Errorf("make page: %w", err)
	}
	if _, err := b.WriteTo(w); err != nil {
		return fmt.Errorf("write page: %w", err)
	}
	return nil
}

// best is the policy under which functions finished most.
func (r *Report) best() *Outcome {
	best := &r.Policies[0]
	for i := range r.Policies {
		if r.Policies[i].CPU.Finished > best.CPU.Finished {
			best = &r.Policies[i]
		}
	}
	return best
}

const pageWidth = 960

// slice is one part of a bar.
type slice struct {
	class, name string
	share       float64
}

// drawBar draws the machine's whole time as one bar.
func drawBar(o *Outcome) template.HTML {
	c := &o.CPU
	slices := []slice{
		{"allocated", "Allocated", share(c.Allocated, c.Reported)}, {"finished", "Used by functions", share(c.Finished+c.Running, c.Reported)},
		{"lost", "Lost", share(c.Lost+c.Starting, c.Reported)}, {"down", "Down", share(c.Down, c.Reported)}, {"idle", "Idle", share(c.Left, c.Reported)},
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d 34" role="img" aria-label="Core-hours by use under %s">`, pageWidth, template.HTMLEscapeString(o.Policy))
	x := 0.0
	for _, s := range slices {
		w := s.share * pageWidth
		if w <= 0 {
			continue
		}
		fmt.Fprintf(&b, `<rect class="%s" x="%.2f" y="0" width="%.2f" height="34"><title>%s %s</title></rect>`, s.class, x, w, s.name, percent(s.share))
		if w > 150 {
			fmt.Fprintf(&b, `<text class="on %s-text" x="%.1f" y="22">%s %s</text>`, s.class, x+10, s.name, percent(s.share))
		}
		x += w
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) //nolint:gosec // made of figures, fixed words and an escaped name
}

// drawTimeline stacks allocated, down and harvested over time; what is left white was idle.
func (r *Report) drawTimeline(o *Outcome) template.HTML {
	const height, bottom = 120, 18
	n := len(o.Timeline)
	if n == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" role="img" aria-label="The machine over time under %s">`, pageWidth, height+bottom, template.HTMLEscapeString(o.Policy))
	fmt.Fprintf(&b, `<rect class="idle" x="0" y="0" width="%d" height="%d"/>`, pageWidth, height)
	from := make([]float64, n)
	for _, layer := range []struct {
		class string
		value func(Column) float64
	}{
		{"allocated", func(c Column) float64 { return c.Allocated }}, {"harvested", func(c Column) float64 { return c.Harvested }},
		{"down", func(c Column) float64 { return c.Down }},
	} {
		var upper, lower strings.Builder
		for i, c := range o.Timeline {
			x0, x1 := float64(i)*pageWidth/float64(n), float64(i+1)*pageWidth/float64(n)
			to := min(1, from[i]+layer.value(c))
			fmt.Fprintf(&upper, "L%.1f %.1fL%.1f %.1f", x0, height*(1-to), x1, height*(1-to))
			back := n - 1 - i
			y := height * (1 - from[back])
			fmt.Fprintf(&lower, "L%.1f %.1fL%.1f %.1f", float64(back+1)*pageWidth/float64(n), y, float64(back)*pageWidth/float64(n), y)
		}
		for i, c := range o.Timeline {
			from[i] = min(1, from[i]+layer.value(c))
		}
		fmt.Fprintf(&b, `<path class="%s" d="M%s%sZ"/>`, layer.class, upper.String()[1:], lower.String())
	}
	for k := range 6 {
		at := r.Span * float64(k) / 6
		label := "+" + days(at)
		if !r.Start.IsZero() {
			layout := "Jan 2"
			if r.Span < 6*24*3600 {
				layout = "Jan 2 15:04"
			}
			label = r.Start.Add(time.Duration(at * float64(time.Second))).Format(layout)
		}
		fmt.Fprintf(&b, `<text class="axis" x="%.1f" y="%d">%s</text>`, float64(k)*pageWidth/6, height+14, label)
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) //nolint:gosec // made of figures, fixed words and an escaped name
}
