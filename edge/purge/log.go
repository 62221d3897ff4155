package purge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
)

// Log is a log of purges that all edges of a fleet follow.
type Log interface {
	// Append appends a purge to the log. It returns the sequence once the purge can't be lost, and
	// an error that is ErrNoLog if the log can't be reached. site is the only site that the purge
	// covers, or "".
	Append(ctx context.Context, site string, p Request) (seq uint64, err error)
	// InTouch reports whether this edge may trust its objects: it recently had applied the whole
	// log.
	InTouch() bool
	// CutOff reports whether this edge hears nothing from the other nodes, so that it may miss
	// purges. Stored objects may then be served only if the origin can't be reached.
	CutOff() bool
}

// Progress is how far an edge is with a purge.
type Progress struct {
	Node    string  `json:"node"`
	Applied bool    `json:"applied"`
	Live    bool    `json:"live"`              // it was heard from in the last seconds
	Seconds float64 `json:"seconds,omitempty"` // from the beginning of the wait until it was known to be applied
}

// ErrNotAllowed is the error of a purge that this node may not make.
var ErrNotAllowed = errors.New("not allowed")

// ErrNoLog is the error of a purge that was refused because the log can't be reached.
var ErrNoLog = errors.New("purge log unavailable")

// Logged is an entry of the log.
type Logged struct {
	Site string // the only site that its sender may purge; "" means any
	Lost bool   // the entry is LostPurges
	Request
}

// LostPurges is the entry with which an edge announces that the log lost purges that this edge has
// applied. Other edges may lack them, so they make all of their objects stale. Earlier versions do
// the same, because they can't read the entry.
var LostPurges = json.RawMessage(`{"lost":true}`)

// ParseLogged reads an entry of the log. An entry that can't be read, such as one of a newer
// version, becomes an empty purge. Apply treats it as a purge of everything.
func ParseLogged(site string, entry []byte) Logged {
	l := Logged{Site: site}
	if site == "" && bytes.Equal(entry, LostPurges) {
		l.Lost = true
		return l
	}
	d := json.NewDecoder(bytes.NewReader(entry))
	d.DisallowUnknownFields() // a purge must not be applied in part
	if err := d.Decode(&l.Request); err != nil {
		l.Request = Request{}
	}
	return l
}

// maxEntry is the largest size in bytes of the values of an entry, so that a large purge doesn't
// delay others on a slow connection.
const maxEntry = 256 << 10

// Split returns purges that together are p. Each has at most maxEntry bytes of values.
func (p Request) Split() []Request {
	out := []Request{{All: p.All, Soft: p.Soft}}
	size := 0
	for _, list := range []struct {
		from []string
		to   func(*Request) *[]string
	}{
		{p.URLs, func(p *Request) *[]string { return &p.URLs }},
		{p.Tags, func(p *Request) *[]string { return &p.Tags }},
		{p.Prefixes, func(p *Request) *[]string { return &p.Prefixes }},
		{p.Hosts, func(p *Request) *[]string { return &p.Hosts }},
	} {
		for _, v := range list.from {
			if size += len(v) + len(`"",`); size > maxEntry {
				out = append(out, Request{Soft: p.Soft})
				size = len(v) + len(`"",`)
			}
			to := list.to(&out[len(out)-1])
			*to = append(*to, v)
		}
	}
	return out
}
