package http2

import (
	"io"
	"net"
	"net/http"
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
)

// All cases of h2spec pass, including the strict ones.
func TestH2Spec(t *testing.T) {
	s := start(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, strings.Repeat("x", 1024))
	})
	_, port, _ := net.SplitHostPort(s.addr)
	c := &config.Config{Host: "localhost", Path: "/", Timeout: 3 * time.Second, MaxHeaderLen: 4000, TLS: true,
		Insecure: true, Strict: true}
	c.Port, _ = strconv.Atoi(port)
	ran := 0
	for _, group := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		group.Test(c)
		walk(group, func(id string, test *spec.TestCase) {
			ran++
			if test.Result == nil || test.Result.Failed || test.Result.Skipped {
				t.Errorf("%s %s: %+v", id, test.Desc, test.Result)
			}
		})
	}
	if ran != 146 {
		t.Errorf("%d cases ran, want 146", ran)
	}
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
