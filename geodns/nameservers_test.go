package geodns

import (
	"fmt"
	"strings"
	"testing"
)

func TestNameServers(t *testing.T) {
	z, errs := ParseZone(strings.NewReader(`$ORIGIN example.com.
@ 60 IN SOA ns1 h 1 2 3 4 5
@ 60 IN NS NS2
@ 60 IN NS ns1
@ 60 IN NS ns.example.net.
ns1 60 IN A 192.0.2.1
ns1 60 IN AAAA 2001:db8::1
ns2 60 IN A 192.0.2.2
`), "example.com", "zone")
	if errs != nil {
		t.Fatal(errs)
	}
	want := "[{ns.example.net 5 false [] []} {ns1.example.com 4 true [192.0.2.1 2001:db8::1] [6 7]} {ns2.example.com 3 true [192.0.2.2] [8]}]"
	if got := fmt.Sprint(z.NameServers()); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
