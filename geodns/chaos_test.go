package geodns

import (
	"testing"

	"github.com/miekg/dns"
)

func TestChaos(t *testing.T) {
	for _, test := range []struct {
		identity, query string
		want            string // "" means REFUSED
	}{
		{"ns1.hel", "id.server. TXT CH", `id.server. 0 CH TXT "ns1.hel"`},
		{"ns1.hel", "ID.Server. TXT CH", `ID.Server. 0 CH TXT "ns1.hel"`},
		{"ns1.hel", "hostname.bind. TXT CH", `hostname.bind. 0 CH TXT "ns1.hel"`},
		{"ns1.hel", "hostname.bind. ANY CH", `hostname.bind. 0 CH TXT "ns1.hel"`},
		{"", "id.server. TXT CH", ""},
		{"", "version.server. TXT CH", `version.server. 0 CH TXT "kaiku"`},
		{"", "version.bind. TXT CH", `version.bind. 0 CH TXT "kaiku"`},
		{"ns1.hel", "id.server. A CH", ""},
		{"ns1.hel", "authors.bind. TXT CH", ""},
		{"ns1.hel", "www.example.com. A CH", ""},
		{"ns1.hel", "id.server. TXT IN", ""},
		{"ns1.hel", "id.server. TXT HS", ""},
	} {
		t.Run(test.identity+" "+test.query, func(t *testing.T) {
			s := &Server{Identity: test.identity}
			if err := s.Reload(testConfig(t)); err != nil {
				t.Fatal(err)
			}
			resp := mustAnswer(t, s, question(test.query), nowhere, false)
			if test.want == "" {
				if resp.Rcode != dns.RcodeRefused || len(resp.Answer) != 0 {
					t.Errorf("response is %v", resp)
				}
				return
			}
			wantRRs(t, "answer", resp.Answer, test.want)
			if !resp.Authoritative {
				t.Error("not authoritative")
			}
		})
	}
}
