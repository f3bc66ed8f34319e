package report

import (
	"fmt"
	"html"
	"html/template"
	"strings"
	"time"
)

// The page is 960 units wide; colours come from its style sheet through classes named after the slices.
const pageWidth = 960

// heatRows is how many rows the heatmap shows; neighbouring nodes share a row beyond that.
const heatRows = 32

// drawBar draws the whole of the reported time as one bar, with the share written into slices wide enough for it.
func drawBar(s Slices) template.HTML {
	const height = 44
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" role="img" aria-label="CPU time by use">`, pageWidth, height)
	sum := int64(0)
	for _, p := range s.parts() {
		x0 := ratio(sum, s.Reported) * pageWidth
		sum += p.MS
		w := ratio(sum, s.Reported)*pageWidth - x0
		if w <= 0 {
			continue
		}
		fmt.Fprintf(&b, `<rect class="%s" x="%.2f" y="0" width="%.2f" height="%d"><title>%s %s</title></rect>`,
			p.Key, x0, w, height, p.Name, share(p.MS, s.Reported))
		if w > 110 {
			fmt.Fprintf(&b, `<text class="on %s-text" x="%.1f" y="27">%s %s</text>`, p.Key, x0+10, p.Name, share(p.MS, s.Reported))
		}
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) //nolint:gosec // made of figures and fixed words
}

// drawMemory draws what was given out above what was really used.
func drawMemory(m Memory) template.HTML {
	if m.Reported <= 0 {
		return ""
	}
	const height, left = 24, 120
	width := float64(pageWidth - left)
	var b strings.Builder
	rows := 1
	if m.UsedKnown > 0 {
		rows = 2
	}
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" role="img" aria-label="Memory given out and used">`, pageWidth, rows*(height+8))
	row := 0
	bar := func(label string, parts ...struct {
		class, name string
		share       float64
	}) {
		y, x := row*(height+8), float64(left)
		fmt.Fprintf(&b, `<text x="0" y="%d">%s</text><rect class="idle" x="%d" y="%d" width="%.1f" height="%d"/>`, y+17, label, left, y, width, height)
		for _, p := range parts {
			w := p.share * width
			fmt.Fprintf(&b, `<rect class="%s" x="%.2f" y="%d" width="%.2f" height="%d"><title>%s %s</title></rect>`,
				p.class, x, y, w, height, p.name, percent(p.share))
			if w > 110 {
				fmt.Fprintf(&b, `<text class="on %s-text" x="%.1f" y="%d">%s %s</text>`, p.class, x+10, y+17, p.name, percent(p.share))
			}
			x += w
		}
		row++
	}
	type memoryPart = struct {
		class, name string
		share       float64
	}
	bar("Given out", memoryPart{"allocated", "Allocated", m.Allocated / m.Reported}, memoryPart{"harvested", "Harvested", m.Harvested / m.Reported})
	if m.UsedKnown > 0 {
		bar("Really used", memoryPart{"used", "Used", m.Used / m.UsedKnown})
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) //nolint:gosec // made of figures and fixed words
}

// drawHeatmap draws two maps of node by time side by side: what stayed idle, and what was harvested.
func drawHeatmap(h Heatmap) template.HTML {
	rows := groupRows(h.Rows, heatRows)
	if len(rows) == 0 || len(rows[0].Cells) == 0 {
		return ""
	}
	const left, gap, top, rowHeight = 110, 24, 24, 18
	columns := len(rows[0].Cells)
	width := float64(pageWidth-left-gap) / 2
	cell := width / float64(columns)
	bottom := top + len(rows)*rowHeight
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" role="img" aria-label="Idle and harvested by node and time">`, pageWidth, bottom+22)
	for i, row := range rows {
		fmt.Fprintf(&b, `<text x="0" y="%d">%s</text>`, top+i*rowHeight+13, html.EscapeString(shorten(row.Node, 16)))
	}
	for panel, p := range []struct {
		class, title string
		value        func(Slices) int64
	}{
		{"heat-idle", "Left idle", func(s Slices) int64 { return s.Idle }},
		{"heat-harvested", "Harvested", func(s Slices) int64 { return s.Harvested }},
	} {
		x0 := left + float64(panel)*(width+gap)
		fmt.Fprintf(&b, `<text class="strong" x="%.1f" y="14">%s</text>`, x0, p.title)
		for i, row := range rows {
			for j, c := range row.Cells {
				x, y := x0+float64(j)*cell, top+i*rowHeight
				if c.Reported == 0 {
					fmt.Fprintf(&b, `<rect class="nodata" x="%.2f" y="%d" width="%.2f" height="%d"/>`, x+.5, y+1, max(cell-1, .5), rowHeight-2)
					continue
				}
				start := h.Start.Add(time.Duration(j) * h.Step).Format("Jan 2 15:04:05")
				fmt.Fprintf(&b, `<rect class="cell" x="%.2f" y="%d" width="%.2f" height="%d"/>`, x+.5, y+1, max(cell-1, .5), rowHeight-2)
				fmt.Fprintf(&b, `<rect class="%s" style="opacity:%.3f" x="%.2f" y="%d" width="%.2f" height="%d"><title>%s, %s: %s</title></rect>`,
					p.class, ratio(p.value(c), c.Reported), x+.5, y+1, max(cell-1, .5), rowHeight-2,
					html.EscapeString(row.Node), start, share(p.value(c), c.Reported))
			}
		}
		drawAxis(&b, h, x0, width, cell, columns, bottom+15)
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) //nolint:gosec // names are escaped, the rest are figures and fixed words
}

// drawAxis writes about five times under a map.
func drawAxis(b *strings.Builder, h Heatmap, x0, width, cell float64, columns, y int) {
	layout := "15:04:05"
	switch span := time.Duration(columns) * h.Step; {
	case span > 48*time.Hour:
		layout = "Jan 2"
	case span > 3*time.Hour:
		layout = "Jan 2 15:04"
	}
	const times = 4
	for k := range times {
		j := k * columns / times
		if k > 0 && j == (k-1)*columns/times {
			continue
		}
		x := x0 + float64(j)*cell
		if x > x0+width-60 {
			break
		}
		fmt.Fprintf(b, `<text class="axis" x="%.1f" y="%d">%s</text>`, x, y, h.Start.Add(time.Duration(j)*h.Step).UTC().Format(layout))
	}
}

// groupRows sums neighbouring rows until there are at most limit.
func groupRows(rows []HeatRow, limit int) []HeatRow {
	if len(rows) <= limit {
		return rows
	}
	each := (len(rows) + limit - 1) / limit
	var out []HeatRow
	for i := 0; i < len(rows); i += each {
		group := rows[i:min(i+each, len(rows))]
		sum := HeatRow{Node: group[0].Node, Cells: make([]Slices, len(group[0].Cells))}
		if len(group) > 1 {
			sum.Node = fmt.Sprintf("%s +%d", group[0].Node, len(group)-1)
		}
		for _, r := range group {
			for j, c := range r.Cells {
				sum.Cells[j].Add(c)
			}
		}
		out = append(out, sum)
	}
	return out
}

func shorten(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return "…" + string(r[len(r)-n+1:])
	}
	return s
}
