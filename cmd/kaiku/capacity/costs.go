package capacity

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Costs is what a machine spends on the work of an edge and of a name server. kaiku bench-self
// measures it.
type Costs struct {
	// Machine names the processor and its cores.
	Machine string `json:"machine"`
	// Version is the version of Kaiku that was measured.
	Version string    `json:"version"`
	Hits    []HitCost `json:"hits"`
	Miss    float64   `json:"miss_us"` // of 8 KiB
	// Handshake and Resumed are the CPU time of a TLS handshake, without and with a session ticket.
	Handshake float64 `json:"handshake_us"`
	Resumed   float64 `json:"resumed_us"`
	// Query and Signed are the CPU time of a DNS query, without and with DNSSEC.
	Query  float64 `json:"query_us"`
	Signed float64 `json:"signed_query_us"`
	// Connection is the memory of an idle HTTP/2 connection over TLS, in bytes.
	Connection float64 `json:"connection_bytes"`
	// Object is the memory of the index for each stored object, in bytes.
	Object float64 `json:"object_bytes"`
	// Write and Read are the speeds of the store on disk, in bytes a second.
	Write float64 `json:"write_bytes_per_second"`
	Read  float64 `json:"read_bytes_per_second"`
}

// HitCost is the CPU time of a hit.
type HitCost struct {
	Protocol string  `json:"protocol"` // http1, tls1, http2 or http3
	Bytes    int64   `json:"bytes"`    // of the body
	CPU      float64 `json:"cpu_us"`
}

// ParseCosts parses what kaiku bench-self --json prints. It returns an error if a value that a plan
// needs is missing.
func ParseCosts(b []byte) (*Costs, error) {
	c := &Costs{}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("not the JSON of kaiku bench-self: %w", err)
	}
	need := map[string]float64{"miss_us": c.Miss, "handshake_us": c.Handshake, "resumed_us": c.Resumed,
		"query_us": c.Query, "connection_bytes": c.Connection, "object_bytes": c.Object}
	for name, v := range need {
		if !(v > 0) {
			return nil, fmt.Errorf("%s is missing: measure again with kaiku bench-self --json", name)
		}
	}
	if len(c.of("http2")) == 0 {
		return nil, fmt.Errorf("no hits over HTTP/2: measure again with kaiku bench-self --json")
	}
	return c, nil
}

// of returns the costs of hits over a protocol, from small to large.
func (c *Costs) of(protocol string) []HitCost {
	var list []HitCost
	for _, h := range c.Hits {
		if h.Protocol == protocol && h.Bytes > 0 && h.CPU > 0 {
			list = append(list, h)
		}
	}
	slices.SortFunc(list, func(a, b HitCost) int { return int(a.Bytes - b.Bytes) })
	return list
}

// Hit returns the CPU time, in microseconds, of a hit of some size over a protocol. Between two
// measured sizes it interpolates; beyond the largest one the time grows with the size.
func (c *Costs) Hit(protocol string, bytes float64) float64 {
	list := c.of(protocol)
	last := len(list) - 1
	switch {
	case last < 0:
		return 0
	case bytes <= float64(list[0].Bytes):
		return list[0].CPU
	case bytes >= float64(list[last].Bytes):
		return list[last].CPU * bytes / float64(list[last].Bytes)
	}
	i := 1
	for float64(list[i].Bytes) < bytes {
		i++
	}
	a, b := list[i-1], list[i]
	return a.CPU + (b.CPU-a.CPU)*(bytes-float64(a.Bytes))/float64(b.Bytes-a.Bytes)
}

// String returns the costs as a table.
func (c *Costs) String() string {
	var b strings.Builder
	row := func(what, format string, a ...any) {
		fmt.Fprintf(&b, "%-38s  "+format+"\n", append([]any{what}, a...)...)
	}
	if c.Machine != "" {
		row("machine", "%s", c.Machine)
	}
	for _, h := range c.Hits {
		row(fmt.Sprintf("hit of %s over %s", size(float64(h.Bytes)), protocolNames[h.Protocol]), "%.1f µs of CPU",
			h.CPU)
	}
	row("miss of 8 KiB", "%.1f µs of CPU", c.Miss)
	row("TLS handshake", "%.0f µs of CPU", c.Handshake)
	row("TLS handshake with a session ticket", "%.0f µs of CPU", c.Resumed)
	row("DNS query", "%.1f µs of CPU", c.Query)
	if c.Signed > 0 {
		row("DNS query with DNSSEC", "%.1f µs of CPU", c.Signed)
	}
	row("idle HTTP/2 connection", "%s", size(c.Connection))
	row("object in the index", "%.0f bytes of memory", c.Object)
	if c.Write > 0 {
		row("writes of the store", "%s a second", size(c.Write))
	}
	if c.Read > 0 {
		row("reads of the store", "%s a second", size(c.Read))
	}
	return b.String()
}

var protocolNames = map[string]string{"http1": "HTTP/1.1", "tls1": "HTTP/1.1 with TLS", "http2": "HTTP/2",
	"http3": "HTTP/3"}

// size returns a number of bytes in the largest unit that gives at least one.
func size(n float64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"}
	i := 0
	for n >= 1024 && i < len(units)-1 {
		n, i = n/1024, i+1
	}
	if n < 10 && n != float64(int(n)) {
		return fmt.Sprintf("%.1f %s", n, units[i])
	}
	return fmt.Sprintf("%.0f %s", n, units[i])
}
