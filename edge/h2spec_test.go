package edge

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"

	"github.com/kaiku-cdn/kaiku/edge/site"
)

// goServer are the cases of h2spec that the Go server fails, with the reason.
var goServer = map[string]string{
	"http2/6.5.3/1":   "it ends a connection whose SETTINGS frame has a parameter twice, where RFC 9113, 6.5.3 has the values taken in order",
	"http2/8.1.2.2/1": "it answers 400 to a Connection field, which RFC 9113, 8.1.1 lets a server do, and ends the stream without an error",
	"http2/8.1.2.2/2": "it answers 400 to TE with another value than trailers, as above",
}

// All of h2spec's cases pass on the listener for TLS, except those that the Go server is known to
// fail where that is used.
func TestH2Spec(t *testing.T) { overHTTP2(t, testH2Spec) }

func testH2Spec(t *testing.T, p protocol) {
	e := p.newEdge(t, static(strings.Repeat("x", 1024), "Cache-Control: max-age=1000"),
		func(s *Server, site *site.Site) {
			s.Certificates = newCertificates(t, "localhost")
			site.Hosts = []string{"localhost"}
		})
	host, port, err := net.SplitHostPort(e.SecureAddr().String())
	if err != nil || host != "127.0.0.1" {
		t.Fatal(host, err)
	}
	c := &config.Config{Host: "localhost", Path: "/", Timeout: 3 * time.Second, MaxHeaderLen: 4000, TLS: true,
		Insecure: true, Strict: true}
	if c.Port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, group := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		group.Test(c)
		walk(group, func(id string, test *spec.TestCase) {
			ran++
			reason, known := goServer[id]
			known = known && !e.OwnHTTP2
			switch failed := test.Result != nil && test.Result.Failed; {
			case failed && !known:
				t.Errorf("%s %s: %v", id, test.Desc, test.Result.Error)
			case !failed && known:
				t.Errorf("%s passes: %s is no reason any more", id, reason)
			}
		})
	}
	if ran < 140 {
		t.Errorf("%d cases ran", ran)
	}
	t.Logf("%d cases", ran)
}

// walk calls f with each case of a group.
func walk(g *spec.TestGroup, f func(id string, test *spec.TestCase)) {
	for i, test := range slices.Concat(g.Tests, g.StrictTests) {
		f(g.ID()+"/"+strconv.Itoa(i+1), test)
	}
	for _, sub := range g.Groups {
		walk(sub, f)
	}
}
