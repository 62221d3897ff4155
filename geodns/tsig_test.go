package geodns

import (
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// signedQuery returns m in wire format, signed with a key that the server doesn't have.
func signedQuery(t *testing.T, m *dns.Msg, key string) []byte {
	t.Helper()
	m.SetTsig(key, dns.HmacSHA256, 300, time.Now().Unix())
	wire, _, err := dns.TsigGenerate(m, "c2VjcmV0", "", false)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// Any query signed with an unknown key gets NOTAUTH, and BADKEY in a TSIG record that is not signed
// (RFC 8945 section 5.2.1).
func TestUnknownKeyIsBadKey(t *testing.T) {
	s := new(Server)
	serve(t, s, testConfig(t))
	for _, network := range []string{"udp", "tcp"} {
		for name, change := range map[string]func(*dns.Msg){
			"QUERY":           func(*dns.Msg) {},
			"QUERY with EDNS": func(m *dns.Msg) { m.SetEdns0(1232, false) },
			"AXFR":            func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR },
			"NOTIFY":          func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify },
			"UPDATE":          func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate },
			"other zone":      func(m *dns.Msg) { m.Question[0].Name = "example.org." },
		} {
			m := question("example.com. SOA")
			change(m)
			edns := m.IsEdns0() != nil
			conn, err := dns.Dial(network, s.LocalAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write(signedQuery(t, m, "transfer.example.com.")); err != nil {
				t.Fatal(err)
			}
			resp, err := conn.ReadMsg()
			if resp == nil {
				t.Fatalf("%s over %s: %v", name, network, err)
			}
			tsig := resp.IsTsig()
			if resp.Rcode != dns.RcodeNotAuth || len(resp.Answer)+len(resp.Ns) != 0 || resp.Opcode != m.Opcode ||
				resp.Authoritative ||
				tsig == nil || (resp.IsEdns0() != nil) != edns {
				t.Errorf("%s over %s gets %v", name, network, resp)
				continue
			}
			if tsig.Error != dns.RcodeBadKey || tsig.MACSize != 0 || tsig.Hdr.Name != "transfer.example.com." ||
				tsig.Algorithm != dns.HmacSHA256 ||
				tsig.OrigId != m.Id || tsig.Hdr.Class != dns.ClassANY || tsig.Hdr.Ttl != 0 {
				t.Errorf("%s over %s: TSIG is %v", name, network, tsig)
			}
		}
	}
}

// A TSIG record must be the last record, and there must be only one.
func TestTSIGOutOfPlaceIsFormErr(t *testing.T) {
	s := newServer(t, testConfig(t))
	wire := signedQuery(t, question("example.com. SOA"), "key.example.")
	tsig := wire[12+17:]
	twice := append(append([]byte(nil), wire...), tsig...)
	twice[11] = 2
	before := append(append([]byte(nil), wire...), 0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0)
	before[11] = 2
	answer := append([]byte(nil), wire...)
	answer[7], answer[11] = 1, 0
	cut := append([]byte(nil), wire...)
	cut[12+17+13+9]-- // the length of its data
	cut = cut[:len(cut)-1]
	empty := append([]byte(nil), wire[:12+17+13+10]...)
	empty[12+17+13+8], empty[12+17+13+9] = 0, 0
	for name, req := range map[string][]byte{"empty": empty, "twice": twice, "before the OPT": before,
		"in the answer": answer, "cut": cut} {
		if resp := mustAnswerRaw(t, s, req, nowhere, false); resp.Rcode != dns.RcodeFormatError ||
			resp.IsTsig() != nil {
			t.Errorf("%s gets %v", name, resp)
		}
	}
}

// A response with BADKEY fits into 512 octets, however long its names are.
func TestBadKeyWithLongNamesFits(t *testing.T) {
	s := newServer(t, testConfig(t))
	long := strings.Repeat(strings.Repeat("k", 61)+".", 4)
	m := question(long[:186] + "example.com. A")
	resp := mustAnswerRaw(t, s, signedQuery(t, m, long), nowhere, false)
	if resp.Rcode != dns.RcodeNotAuth || resp.Len() > 512 {
		t.Errorf("response has %d octets: %v", resp.Len(), resp)
	}
}
