package geodns

import "github.com/miekg/dns"

// Names of class CHAOS that servers describe themselves with: those of RFC 4892, and the older ones
// of BIND.
const (
	idServer      name = "\x02id\x06server\x00"
	hostnameBind  name = "\x08hostname\x04bind\x00"
	versionServer name = "\x07version\x06server\x00"
	versionBind   name = "\x07version\x04bind\x00"
)

// software is what we call ourselves: an operator is helped by the name, an attacker by the
// version.
const software = "kaiku"

// chaos answers the class CHAOS: TXT of a few names, of TTL 0; all else is refused, which an unset
// identity is too (RFC 4892 section 2: an administrator may not want to tell).
func (r *resolver) chaos(identity string) {
	text := ""
	switch r.q.qname {
	case idServer, hostnameBind:
		text = identity
	case versionServer, versionBind:
		text = software
	}
	if text == "" || r.q.qtype != dns.TypeTXT && r.q.qtype != dns.TypeANY {
		r.rcode = dns.RcodeRefused
		return
	}
	r.aa = true
	r.answer = []owned{{r.q.owner(), &rrset{
		rrtype: dns.TypeTXT, data: []string{string([]byte{byte(len(text))}) + text},
	}}}
}
