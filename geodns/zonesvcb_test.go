package geodns

import (
	"slices"
	"strings"
	"testing"
)

func TestSVCB(t *testing.T) {
	for _, test := range []struct {
		params, want string // the record, or "!" and an error
	}{
		{"alpn=h3,h2", `alpn="h3,h2"`},
		{"", ""},
		{"mandatory=alpn alpn=h2", `mandatory="alpn" alpn="h2"`},
		{"port=443 alpn=h2 mandatory=port,alpn", `mandatory="alpn,port" alpn="h2" port="443"`},
		{"mandatory=key667 key667=x", `mandatory="key667" key667="x"`},
		{"mandatory=alpn", "!the parameter mandatory lists alpn, which the record does not have"},
		{"mandatory=alpn,key667 alpn=h2", "!the parameter mandatory lists key667, which the record does not have"},
		{"mandatory=mandatory,alpn alpn=h2", "!the parameter mandatory lists itself"},
		{"mandatory=alpn,alpn alpn=h2", "!the parameter mandatory lists alpn twice"},
		{"mandatory= alpn=h2", "!the parameter mandatory wants keys"},
		{"mandatory alpn=h2", "!the parameter mandatory wants keys"},
		{"alpn=", "!the parameter alpn wants one protocol or several"},
		{`alpn=""`, "!the parameter alpn wants one protocol or several"},
		{"alpn", "!the parameter alpn wants one protocol or several"},
		{"alpn=h2,,h3", `!"alpn=h2,,h3" does not fit`},
		{"no-default-alpn", "!no-default-alpn wants alpn beside it"},
		{"no-default-alpn alpn=h2", `alpn="h2" no-default-alpn=""`},
		{"ech=", "!the parameter ech wants a value"},
		{"dohpath=", "!the parameter dohpath wants a value"},
		{"port=1 port=2", "!repeated"},
		{`key1="\002h2"`, `alpn="h2"`},
		{`key1=\002h2 ; key3=x`, `alpn="h2"`},
		{`( key3="\001\187"` + "\n key1=\\002h2 )", `alpn="h2" port="443"`},
		{`key0="\000\001" alpn=h2`, `mandatory="alpn" alpn="h2"`},
		{"key1=", "!the parameter alpn wants one protocol or several"},
		{"key1", "!the parameter alpn wants one protocol or several"},
		{"key1=h2", "!the parameter alpn wants one protocol or several"},
		{`key1=\002h2 alpn=h3`, "!the parameter alpn is there twice"},
		{"key3=x", "!the parameter port wants one number"},
		{"key4=abc", "!the parameter ipv4hint wants IPv4 addresses"},
		{"key6=abc", "!the parameter ipv6hint wants IPv6 addresses"},
		{"key8=x", "!the parameter ohttp wants no value"},
		{"key01=x", `!"key01=x" does not fit`},
		{"key65535=x", `!"key65535=x" does not fit`},
	} {
		for _, rrtype := range []string{"HTTPS", "SVCB"} {
			z, errs := readFiles(map[string]string{"db": head + "a " + rrtype + " 1 . " + test.params + "\n"})
			wrong, refused := strings.CutPrefix(test.want, "!")
			switch {
			case refused && (len(errs) != 1 || !strings.Contains(errs[0].Msg, wrong)):
				t.Errorf("%s %s: errors are %v, want %s", rrtype, test.params, errs, wrong)
			case refused:
			case len(errs) > 0:
				t.Errorf("%s %s: %v", rrtype, test.params, errs)
			case !slices.Contains(records(t, z), strings.TrimSuffix("a.example.com. 3600 IN "+rrtype+" 1 . "+test.want,
				" ")):
				t.Errorf("%s %s: records are %v, want %s", rrtype, test.params, records(t, z), test.want)
			}
		}
	}
	// Text that looks like a parameter isn't one.
	z, errs := readFiles(map[string]string{"db": head + "a TXT HTTPS key1=x\n"})
	if len(errs) > 0 || !slices.Contains(records(t, z), `a.example.com. 3600 IN TXT "HTTPS" "key1=x"`) {
		t.Errorf("records are %v, errors %v", z, errs)
	}
}
