package geodns

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/kaiku-cdn/kaiku/geodns/dnssec"
)

// PublishedKeys is what a name server publishes about a zone's keys.
type PublishedKeys struct {
	Keys   []string // data of the DNSKEY records
	CDS    []string // data of the CDS records
	Signer uint16   // tag of the key that signs the zone's records; 0 if they have no signature
	// Fault is what a validator finds wrong with the DNSKEY records. It is nil if they are right.
	Fault error
	// Clock is the server's clock in whole seconds. It is zero if the response has no server cookie
	// to read it from (RFC 9018).
	Clock time.Time
}

// Has reports whether the server publishes the key in a DNSKEY record.
func (p *PublishedKeys) Has(key *dnssec.Key) bool {
	for _, data := range p.Keys {
		if data == key.DNSKEY() {
			return true
		}
	}
	return false
}

// AskKeys asks the name server at host:port for the keys of a zone, over TCP. It waits 5 s at most.
func AskKeys(ctx context.Context, server, zone string) (*PublishedKeys, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out := new(PublishedKeys)
	ask := func(rrtype uint16) (*dns.Msg, error) {
		q := new(dns.Msg).SetQuestion(dns.Fqdn(zone), rrtype).SetEdns0(ednsUDPSize, true)
		q.RecursionDesired = false
		cookie := make([]byte, clientCookie)
		_, _ = rand.Read(cookie)
		q.IsEdns0().Option = append(q.IsEdns0().Option,
			&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: hex.EncodeToString(cookie)})
		resp, _, err := (&dns.Client{Net: "tcp"}).ExchangeContext(ctx, q, server)
		if err != nil {
			return nil, fmt.Errorf("query the name server %s for the keys of %s: %w", server, zone, err)
		}
		if resp.Rcode != dns.RcodeSuccess || !resp.Authoritative {
			return nil, fmt.Errorf("name server %s does not have %s: %s", server, zone, dns.RcodeToString[resp.Rcode])
		}
		if at := cookieTime(resp); !at.IsZero() {
			out.Clock = at
		}
		return resp, nil
	}
	resp, err := ask(dns.TypeDNSKEY)
	if err != nil {
		return nil, err
	}
	out.Fault = checkKeys(resp)
	for _, rr := range resp.Answer {
		if key, ok := rr.(*dns.DNSKEY); ok {
			out.Keys = append(out.Keys, rdata(key))
		}
	}
	if resp, err = ask(dns.TypeSOA); err != nil {
		return nil, err
	}
	for _, rr := range resp.Answer {
		if sig, ok := rr.(*dns.RRSIG); ok {
			out.Signer = sig.KeyTag
		}
	}
	if resp, err = ask(dns.TypeCDS); err != nil {
		return nil, err
	}
	for _, rr := range resp.Answer {
		if cds, ok := rr.(*dns.CDS); ok {
			out.CDS = append(out.CDS, rdata(cds))
		}
	}
	return out, nil
}

// checkKeys returns an error unless the DNSKEY records have a signature of one of them that is
// valid now.
func checkKeys(m *dns.Msg) error {
	var set []dns.RR
	var sigs []*dns.RRSIG
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.DNSKEY:
			set = append(set, rr)
		case *dns.RRSIG:
			sigs = append(sigs, rr)
		}
	}
	if len(set) == 0 {
		return nil // it isn't signed
	}
	for _, sig := range sigs {
		for _, rr := range set {
			if key := rr.(*dns.DNSKEY); key.KeyTag() == sig.KeyTag && sig.Verify(key, set) == nil &&
				sig.ValidityPeriod(time.Now()) {
				return nil
			}
		}
	}
	return fmt.Errorf("none of the %d signatures of the DNSKEY records is valid now", len(sigs))
}

// cookieTime returns the timestamp in the server cookie of a response (RFC 9018 section 4.3). It
// returns the zero time if the response has no such cookie.
func cookieTime(m *dns.Msg) time.Time {
	opt := m.IsEdns0()
	if opt == nil {
		return time.Time{}
	}
	for _, o := range opt.Option {
		if c, ok := o.(*dns.EDNS0_COOKIE); ok {
			if b, err := hex.DecodeString(c.Cookie); err == nil && len(b) == ourCookie && b[clientCookie] == 1 {
				return time.Unix(int64(binary.BigEndian.Uint32(b[clientCookie+4:])), 0)
			}
		}
	}
	return time.Time{}
}

// rdata returns the data of a record in wire format, or "" if it has none.
func rdata(rr dns.RR) string {
	b := make([]byte, dns.Len(rr)+16)
	end, err := dns.PackRR(rr, b, 0, nil, false)
	if err != nil {
		return ""
	}
	at, err := skipName(b[:end], 0, false)
	if err != nil {
		return ""
	}
	return string(b[at+10 : end])
}

// AskDS asks a resolver at host:port for the DS records of a zone, which are in the parent zone. It
// returns their data and their remaining TTL.
func AskDS(ctx context.Context, resolver, zone string) (data []string, ttl time.Duration, err error) {
	q := new(dns.Msg).SetQuestion(dns.Fqdn(zone), dns.TypeDS).SetEdns0(ednsUDPSize, true)
	q.CheckingDisabled = true // get the records even if the chain of trust is broken
	resp, _, err := (&dns.Client{Net: "tcp", Timeout: 10 * time.Second}).ExchangeContext(ctx, q, resolver)
	if err == nil && resp.Rcode != dns.RcodeSuccess && resp.Rcode != dns.RcodeNameError {
		err = fmt.Errorf("%s", dns.RcodeToString[resp.Rcode])
	}
	if err != nil {
		return nil, 0, fmt.Errorf("query the resolver %s for the DS records of %s: %w", resolver, zone, err)
	}
	for _, rr := range resp.Answer {
		if ds, ok := rr.(*dns.DS); ok {
			data, ttl = append(data, rdata(ds)), time.Duration(ds.Hdr.Ttl)*time.Second
		}
	}
	return data, ttl, nil
}

// SystemResolver returns the host:port of the first resolver of this machine.
func SystemResolver() (string, error) {
	cfg, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil || len(cfg.Servers) == 0 {
		return "", fmt.Errorf("no resolver in /etc/resolv.conf: give one by --resolver: %w", err)
	}
	return net.JoinHostPort(cfg.Servers[0], cfg.Port), nil
}

// DSRecord returns the DS record of a key as text, as registrars and zone files take it.
func DSRecord(zone string, key *dnssec.Key) (string, error) {
	n, err := nameOf(zone)
	if err != nil {
		return "", err
	}
	return n.String() + " IN DS " + DSText(key.DS(string(n))), nil
}

// DSText returns the data of a DS record as text: key tag, algorithm, digest type and digest.
func DSText(data string) string {
	if len(data) < 4 {
		return "?"
	}
	return fmt.Sprintf("%d %d %d %s", binary.BigEndian.Uint16([]byte(data)), data[2], data[3],
		strings.ToUpper(hex.EncodeToString([]byte(data[4:]))))
}

// DSData returns the data of the DS record of a key.
func DSData(zone string, key *dnssec.Key) (string, error) {
	n, err := nameOf(zone)
	if err != nil {
		return "", err
	}
	return key.DS(string(n)), nil
}

// MaxTTL returns the longest TTL of the zone's records.
func (z *Zone) MaxTTL() time.Duration {
	longest := uint32(keyTTL)
	for _, at := range z.nodes {
		for i := range at.sets {
			longest = max(longest, at.sets[i].ttl)
		}
	}
	return time.Duration(longest) * time.Second
}
