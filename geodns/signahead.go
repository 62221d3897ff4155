package geodns

import (
	"context"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/kaiku-cdn/kaiku/geodns/dnssec"
)

const (
	// aheadInterval is the time between two rounds of signing ahead. It is less than dnssec.Grace.
	aheadInterval = 10 * time.Minute
	// maxAhead is the maximum number of static RRsets that are signed ahead. maxChoices is the
	// maximum number of answers that are signed ahead for one type of an edge name. Others are
	// signed when a query first needs them.
	maxAhead   = 20_000
	maxChoices = 1000
	// After aheadPart new signatures, signing ahead pauses for aheadPause, so that it never takes
	// more than about half of a core.
	aheadPart  = 200
	aheadPause = 10 * time.Millisecond
)

// signAhead makes the signatures that clients will need, until ctx is done: at the start, after a
// change of the configuration, and when the day of a signature ends.
func (s *Server) signAhead(ctx context.Context) {
	tick := time.NewTicker(aheadInterval)
	defer tick.Stop()
	for {
		if snap := s.current.Load(); snap.signatures != nil {
			a := &ahead{server: s, snapshot: snap, ctx: ctx}
			a.cache, a.now, a.renew = snap.signatures, s.wallClock(), int64(dnssec.Grace/time.Second)
			a.round()
			s.metrics.signatures.Add(float64(a.made))
		}
		select {
		case <-ctx.Done():
			return
		case <-s.resign:
		case <-tick.C:
		}
	}
}

// ahead is a round of signing ahead.
type ahead struct {
	*snapshot
	signing
	server *Server
	ctx    context.Context
	paused int // value of made at the last pause
	https  httpsRecord
	picked []*candidate
	left   int
}

// round makes all signatures.
func (a *ahead) round() {
	for _, z := range a.zones {
		if z.signer == nil {
			continue
		}
		for i := range z.apex.sets {
			a.static(z, z.apex, &z.apex.sets[i])
		}
		a.static(z, z.apex, z.soa.rrset)
	}
	for _, e := range a.edges {
		zone := a.zoneFor(e.name, false)
		if zone == nil || zone.signer == nil {
			continue
		}
		for rrtype, f := range e.families {
			a.left = maxChoices
			a.picked = a.picked[:0]
			a.choices(zone.signer, e, f, rrtype, 0)
		}
	}
	left := maxAhead
	for _, z := range a.zones {
		if z.signer == nil {
			continue
		}
		for _, at := range z.nodes {
			if left -= len(at.sets); left < 0 || a.ctx.Err() != nil {
				return
			}
			if found, _ := z.lookup(at.name, true); found == delegation {
				continue
			}
			for i := range at.sets {
				if set := &at.sets[i]; set.rrtype != dns.TypeNS || at.name == z.origin {
					a.static(z, at, set)
				}
			}
		}
	}
}

// static signs a static RRset.
func (a *ahead) static(z *Zone, at *node, set *rrset) {
	a.data = a.data[:0]
	a.add(set)
	a.sign(z.signer, at.name, set.rrtype, set.ttl)
}

func (a *ahead) add(set *rrset) {
	for _, data := range set.data {
		a.data = append(a.data, canonicalData(set.rrtype, data))
	}
}

// choices signs every answer that has the picked candidates and further ones from index from on.
// The order of the candidates has no effect on a signature of addresses. It changes the signature
// of an HTTPS record.
func (a *ahead) choices(signer *signer, e *edge, f *family, rrtype uint16, from int) {
	more := false
	for i := from; i < len(f.candidates) && len(a.picked) < e.answers && a.left > 0; i++ {
		c, next := f.candidates[i], i+1
		if rrtype == dns.TypeHTTPS {
			next = 0
		}
		if rrtype != dns.TypeHTTPS && c.set == nil || slices.Contains(a.picked, c) {
			continue
		}
		more = true
		a.picked = append(a.picked, c)
		a.choices(signer, e, f, rrtype, next)
		a.picked = a.picked[:len(a.picked)-1]
	}
	if more || len(a.picked) == 0 || a.left == 0 || a.ctx.Err() != nil {
		return
	}
	a.left--
	if rrtype == dns.TypeHTTPS {
		for _, hints := range [][]*candidate{a.picked, nil} { // see keepIPv6Hints
			set := a.https.build(a.picked, hints)
			a.data = a.data[:0]
			a.add(set)
			a.sign(signer, e.name, rrtype, set.ttl)
		}
		return
	}
	a.data = a.data[:0]
	for _, c := range a.picked {
		a.add(c.set.now())
	}
	a.sign(signer, e.name, rrtype, a.picked[0].set.full.ttl)
}

// sign makes the signature of the data, unless there is one whose day has not ended.
func (a *ahead) sign(signer *signer, owner name, rrtype uint16, ttl uint32) {
	_, _ = a.signing.sign(signer, dnssec.RRset{Owner: string(owner), Type: rrtype, TTL: ttl}, false)
	if a.made-a.paused < aheadPart {
		return
	}
	a.paused = a.made
	select {
	case <-a.ctx.Done():
	case <-time.After(aheadPause):
	}
}
