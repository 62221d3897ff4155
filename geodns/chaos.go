package geodns

import "github.com/miekg/dns"

// Names of class CHAOS by which a server describes itself: those of RFC 4892, and BIND's older
// ones.
const (
	idServer      name = "\x02id\x06server\x00"
	hostnameBind  name = "\x08hostname\x04bind\x00"
	versionServer name = "\x07version\x06server\x00"
	versionBind   name = "\x07version\x04bind\x00"
)

// software is the answer to version queries. The name helps an operator. A version would help an
// attacker.
const software = "kaiku"

// chaos answers queries of class CHAOS: TXT records with TTL 0 for the names above. It refuses
// everything else. It also refuses queries for the identity if none is configured (RFC 4892 section
// 2 leaves that to the administrator).
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
	r.answer = []owned{{owner: r.q.owner(), rrset: &rrset{
		rrtype: dns.TypeTXT, data: []string{string([]byte{byte(len(text))}) + text},
	}}}
}
