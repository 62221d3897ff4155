package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"slices"
)

// Sizes in the chart, in pixels.
const (
	panelWidth, barHeight, barGap = 450, 16, 6
	nameWidth, barWidth, margin   = 96, 230, 16
	panelHead, panelGap           = 34, 18
)

const chartStyle = `text{font:12px system-ui,sans-serif;fill:#333}.t{font-weight:600}.h{font-size:15px;font-weight:600}.d{fill:#777;font-size:11px}
.b{fill:#a9b4c2}.k{fill:#1769aa}.w{stroke:#333;stroke-width:1}.p{fill:#fff}
@media(prefers-color-scheme:dark){text{fill:#ddd}.d{fill:#999}.b{fill:#566374}.k{fill:#4da3e0}.w{stroke:#ddd}.p{fill:#16191d}}`

// chart draws a panel for each case, two in a row. Each peer has a bar for the median of its CPU
// time per request, and a line from the minimum to the maximum.
func chart(r report) []byte {
	var body bytes.Buffer
	y := 58
	for at := 0; at < len(r.Results); at += 2 {
		height := 0
		for col := range min(2, len(r.Results)-at) {
			height = max(height, panel(&body, &r.Results[at+col], margin+col*(panelWidth+margin), y))
		}
		y += height + panelGap
	}
	width := 2*panelWidth + 3*margin
	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img"><style>%s</style><rect class="p" width="100%%" height="100%%"/>`+"\n",
		width, y, width, y, chartStyle)
	fmt.Fprintf(&out, `<text class="h" x="%d" y="24">CPU time a request, one core: shorter is better</text>`+"\n",
		margin)
	fmt.Fprintf(&out, `<text class="d" x="%d" y="41">%s; bars are medians of rounds, lines go from the least to the greatest; ×: of Kaiku's</text>`+"\n", margin, escape(versions(r)))
	out.Write(body.Bytes())
	out.WriteString("</svg>\n")
	return out.Bytes()
}

func versions(r report) string {
	var all []byte
	names := make([]string, 0, len(r.Versions))
	for name := range r.Versions {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		if i > 0 {
			all = append(all, ", "...)
		}
		all = append(all, name+" "+r.Versions[name]...)
	}
	return string(all)
}

// panel draws one case. It returns the height.
func panel(w *bytes.Buffer, r *result, x, y int) int {
	of, unit := cpuOf, "µs"
	switch {
	case r.Case.ofMemory():
		of, unit = func(m sample) float64 { return m.Conn / kib }, "KiB"
	case r.Case.How == page:
		of, unit = func(m sample) float64 { return m.Last / 1000 }, "ms"
	}
	var most, own float64
	for name, rounds := range r.Samples {
		s := over(rounds, of)
		most = max(most, s.Max)
		if name == "kaiku" {
			own = s.Median
		}
	}
	fmt.Fprintf(w, `<text class="t" x="%d" y="%d">%s</text>`+"\n", x, y+16, escape(r.Case.Title))
	at := y + panelHead - 8
	for _, name := range r.Case.Peers {
		rounds := r.Samples[name]
		if len(rounds) == 0 || most <= 0 {
			continue
		}
		s := over(rounds, of)
		scale := func(v float64) float64 { return max(v, 0) / most * barWidth }
		class, label := "b", fmt.Sprintf("%s %s", number(s.Median), unit)
		if name == "kaiku" {
			class = "k"
		} else if own > 0 {
			label += fmt.Sprintf("  ×%.2f", s.Median/own)
		}
		middle, left := at+barHeight/2, x+nameWidth
		fmt.Fprintf(w, `<text x="%d" y="%d" text-anchor="end">%s</text><rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`, left-8, middle+4, escape(name), class,
			left, at, scale(s.Median), barHeight)
		fmt.Fprintf(w, `<line class="w" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>`, float64(left)+scale(s.Min),
			float64(left)+scale(s.Max), middle, middle)
		fmt.Fprintf(w, `<text x="%.1f" y="%d">%s</text>`+"\n", float64(left)+scale(s.Max)+8, middle+4, escape(label))
		at += barHeight + barGap
	}
	return at - y
}

// number formats a value with about three digits.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}
