//go:build linux

package main

import (
	"bytes"
	"encoding/xml"
	"fmt"

	"github.com/kaiku-cdn/kaiku/bench/world"
)

// Measures of the chart in pixels.
const (
	panelWidth, barHeight, barGap = 470, 13, 3
	nameWidth, barWidth, margin   = 150, 220, 16
	panelHead, panelGap, groupGap = 28, 16, 7
)

const chartStyle = `text{font:12px system-ui,sans-serif;fill:#333}.t{font-weight:600}.h{font-size:15px;font-weight:600}.d{fill:#777;font-size:11px}
.b{fill:#c9d1da}.f{fill:#8593a3}.kb{fill:#9cc4e4}.kf{fill:#1769aa}.p{fill:#fff}
@media(prefers-color-scheme:dark){text{fill:#ddd}.d{fill:#999}.b{fill:#3b4552}.f{fill:#6d7b8c}.kb{fill:#265a82}.kf{fill:#4da3e0}.p{fill:#16191d}}`

// chart draws a panel for each size, two in a row, for clients in Helsinki. For each protocol and
// way it has a dark bar for the time to the first byte, and a light one for the last.
func chart(r *report) []byte {
	var panels bytes.Buffer
	y, column, height := 58, 0, 0
	for _, b := range bodyList() {
		if len(r.find(string(world.Helsinki), b.name, "h1", wayHit)) == 0 {
			continue
		}
		height = max(height, panel(&panels, r, b, margin+column*(panelWidth+margin), y))
		if column++; column == 2 {
			y, column, height = y+height+panelGap, 0, 0
		}
	}
	if column > 0 {
		y += height + panelGap
	}
	width := 2*panelWidth + 3*margin
	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img"><style>%s</style><rect class="p" width="100%%" height="100%%"/>`+"\n", width, y, width, y, chartStyle)
	fmt.Fprintf(&out, `<text class="h" x="%d" y="24">A user in Helsinki, the origin in Washington: time to the first byte (dark) and to the last (light)</text>`+"\n", margin)
	fmt.Fprintf(&out, `<text class="d" x="%d" y="41">medians over a simulated ocean; the look-up of the name and a new connection are included</text>`+"\n", margin)
	out.Write(panels.Bytes())
	out.WriteString("</svg>\n")
	return out.Bytes()
}

// panel draws a size and returns its height.
func panel(w *bytes.Buffer, r *report, b body, x, y int) int {
	const city = string(world.Helsinki)
	most := 0.0
	for _, proto := range protocols() {
		for _, way := range ways() {
			most = max(most, medianOf(r.find(city, b.name, proto, way), lastOf))
		}
	}
	fmt.Fprintf(w, `<text class="t" x="%d" y="%d">%s</text>`+"\n", x, y+14, escape(b.title))
	titles := map[string]string{wayDirect: "direct to origin", wayCold: "miss, cold", wayWarm: "miss", wayHit: "hit"}
	at := y + panelHead - 4
	for _, proto := range protocols() {
		for _, way := range ways() {
			if way == wayDirect && proto == "h3" {
				continue
			}
			s := r.find(city, b.name, proto, way)
			first, last := medianOf(s, firstOf), medianOf(s, lastOf)
			light, dark := "kb", "kf"
			if way == wayDirect {
				light, dark = "b", "f"
			}
			left := x + nameWidth
			scale := func(v float64) float64 { return v / max(most, 1) * barWidth }
			fmt.Fprintf(w, `<text x="%d" y="%d" text-anchor="end">%s %s</text>`, left-8, at+barHeight-2, proto,
				titles[way])
			fmt.Fprintf(w, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d"/><rect class="%s" x="%d" y="%d" width="%.1f" height="%d"/>`, light, left, at, scale(last), barHeight, dark, left, at, scale(first), barHeight)
			label := ms(last) + " ms"
			if b.name != "1k" {
				label = ms(first) + " · " + label
			}
			fmt.Fprintf(w, `<text x="%.1f" y="%d">%s</text>`+"\n", float64(left)+scale(last)+6, at+barHeight-2, label)
			at += barHeight + barGap
		}
		at += groupGap
	}
	return at - y
}

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a buffer never fails
	return b.String()
}
