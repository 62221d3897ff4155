package geodns

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// forms describes the rdata of each type, for messages.
var forms = map[string]string{
	"A": "an IPv4 address", "AAAA": "an IPv6 address",
	"CNAME": "one name", "DNAME": "one name", "NS": "one name", "PTR": "one name",
	"TXT": "text in quotes", "HINFO": "two texts",
	"MX":    "a preference and a name, such as 10 mail",
	"SRV":   "a priority, a weight, a port and a name, such as 10 5 5060 sip",
	"SOA":   "two names and five numbers, such as ns1 hostmaster 1 14400 3600 1209600 300",
	"CAA":   `a flag, a tag and a value, such as 0 issue "letsencrypt.org"`,
	"DS":    "a key tag, an algorithm, a digest type and a digest in hexadecimal",
	"TLSA":  "a usage, a selector, a matching type and data in hexadecimal",
	"SSHFP": "an algorithm, a type and a fingerprint in hexadecimal",
	"NAPTR": `an order, a preference, three texts and a name, such as 100 10 "S" "SIP+D2U" "" _sip._udp`,
	"HTTPS": "a priority, a name and parameters, such as 1 . alpn=h3,h2",
	"SVCB":  "a priority, a name and parameters, such as 1 . alpn=h3,h2",
}

// pseudoTypes maps words that other name servers or their web pages use like types to what to write
// instead.
var pseudoTypes = map[string]string{
	"ALIAS": noAlias, "ANAME": noAlias, "FLATTEN": noAlias,
	"URL": noRedirect, "REDIRECT": noRedirect, "FORWARD": noRedirect, "FRAME": noRedirect,
}

const (
	noAlias    = "write A and AAAA records, or a CNAME below the zone's own name; a name that edges serve belongs in fleet.yaml, under edges"
	noRedirect = "DNS has no redirects: write A and AAAA records of a web server that redirects"
)

var ttlRE = regexp.MustCompile(`^(?i)(\d+[smhdw]?)+$`)

// explain finds what is wrong with an entry that the library has rejected. It returns the wrong
// word with a message, or only a message, or only the record's type if everything up to the type is
// right.
func (e *entry) explain() (wrong *word, msg, rrtype string) {
	words := e.words()
	if e.owner() != "" && len(words) > 0 {
		words = words[1:]
	}
	var hasTTL, hasClass bool
	for _, w := range words {
		upper := strings.ToUpper(w.text)
		_, isType := dns.StringToType[upper]
		switch {
		case isType:
			return nil, "", upper
		case isClass(w.text) && !hasClass:
			hasClass = true
		case isClass(w.text):
			return &w, fmt.Sprintf("%s is a second class: delete it", upper), ""
		case ttlRE.MatchString(w.text) && !hasTTL:
			hasTTL = true
		case ttlRE.MatchString(w.text):
			return &w, fmt.Sprintf("%s is a second TTL, where a type such as A should be", w.text), ""
		case w.text[0] >= '0' && w.text[0] <= '9':
			return &w, fmt.Sprintf("%q is not a TTL: want seconds, or units such as 1h30m", w.text), ""
		case strings.HasPrefix(upper, "TYPE") && strings.Trim(upper[4:], "0123456789") == "":
			if _, err := strconv.ParseUint(upper[4:], 10, 16); err == nil {
				return nil, "", upper
			}
			return &w, fmt.Sprintf("%s is not a type: want TYPE0 to TYPE65535", upper), ""
		case pseudoTypes[upper] != "":
			return &w, fmt.Sprintf("DNS has no type %s: %s", upper, pseudoTypes[upper]), ""
		default:
			return &w, fmt.Sprintf("%q is not a known record type, TTL or class: want NAME TTL TYPE DATA, such as www 3600 A 192.0.2.1", w.text), ""
		}
	}
	return nil, "the line ends before the type of the record: want NAME TTL TYPE DATA, such as www 3600 A 192.0.2.1", ""
}

// libraryMessage returns the message for an error of the library. rrtype is the record's type.
// token is where the error was found, or "" at the end of the line.
func libraryMessage(rrtype, msg, token string) string {
	form := forms[rrtype]
	switch {
	case token == "" && form != "":
		return fmt.Sprintf("%s wants %s: the line ends early", rrtype, form)
	case token == "" && rrtype != "":
		return rrtype + ": the line ends early"
	case token == "":
		return msg + ": the line ends early"
	case token == `\"` && form != "":
		return fmt.Sprintf("%s wants %s: the quotes don't match", rrtype, form)
	case msg == "bad owner name" || form == "":
		return msg + ": " + strconv.Quote(token)
	case strings.HasPrefix(msg, "garbage"):
		return fmt.Sprintf("%s wants %s, and nothing after that: %q", rrtype, form, token)
	}
	return fmt.Sprintf("%s wants %s: %q does not fit", rrtype, form, token)
}

// failWord reports an error at a word of an entry.
func (p *zoneParser) failWord(e *entry, w *word, msg string) {
	before := e.text[:w.at]
	p.fail(e.line+strings.Count(before, "\n"), w.at-strings.LastIndexByte(before, '\n'), msg)
}
