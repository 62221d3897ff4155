package purge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
)

// Log is a log of purges that all edges of a fleet follow.
type Log interface {
	// Append puts a purge into the log and returns its sequence once it can't be lost. It fails
	// with an error that is ErrNoLog if the log can't be reached. site is the one that all
	// of the purge is of, or "".
	Append(ctx context.Context, site string, p Request) (seq uint64, err error)
	// InTouch reports whether this edge may trust what it has: not long ago it had applied all that
	// there was.
	InTouch() bool
	// CutOff reports whether this edge hears nothing at all of the others, so that there may be
	// purges that it can't hear of: what is stored is good if the origin can't be asked.
	CutOff() bool
}

// Progress is how far an edge is with a purge.
type Progress struct {
	Node    string  `json:"node"`
	Applied bool    `json:"applied"`
	Live    bool    `json:"live"`              // it was heard of in the last seconds
	Seconds float64 `json:"seconds,omitempty"` // from the beginning of the wait until it was known to be applied
}

// ErrNotAllowed says that this node may not make a purge.
var ErrNotAllowed = errors.New("not allowed")

// ErrNoLog says that a purge was refused because the log can't be reached.
var ErrNoLog = errors.New("purge log unavailable")

// Logged is a purge of the log.
type Logged struct {
	Site string // the only one that who made it may purge; "" is any
	Lost bool   // it is LostPurges
	Request
}

// LostPurges is the entry of the log by which an edge tells the others that the log lost purges
// that it has applied: they may lack these, so that they take all that they have as stale. So do
// earlier versions, which don't understand it.
var LostPurges = json.RawMessage(`{"lost":true}`)

// ParseLogged reads an entry of the log. One that can't be read, such as that of a newer version,
// is an empty purge, which Apply takes as everything.
func ParseLogged(site string, entry []byte) Logged {
	l := Logged{Site: site}
	if site == "" && bytes.Equal(entry, LostPurges) {
		l.Lost = true
		return l
	}
	d := json.NewDecoder(bytes.NewReader(entry))
	d.DisallowUnknownFields() // a purge must not be half done
	if err := d.Decode(&l.Request); err != nil {
		l.Request = Request{}
	}
	return l
}

// maxEntry bounds the values of one entry of the log, in bytes: a large purge must not keep others
// waiting on a slow line.
const maxEntry = 256 << 10

// Split returns purges that together are p, each with at most maxEntry bytes of values.
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
