package main

import (
	"bytes"
	"regexp"
	"testing"
)

func TestExplainDNS(t *testing.T) {
	config := contract(t, "interval: 2s, timeout: 1s", "interval: 2s, timeout: 10ms") // nobody answers the probes
	var out bytes.Buffer
	if err := run(t.Context(), []string{"explain", "dns", "www.example.com", "--client", "193.166.3.2", "--config",
		config}, &out, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`FI, from the built-in table`, `hel1 +\d+ km .* A, AAAA +the nearest place`,
		`nyc1 +6\d\d\d km .* - +farther`} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("want %s in\n%s", want, out.String())
		}
	}
	for _, args := range [][]string{{"www.example.com"}, {"www.example.com", "--client", "Helsinki"},
		{"mail.example.com", "--client", "193.166.3.2"}} {
		if err := run(t.Context(), append([]string{"explain", "dns", "--config", config}, args...), &out,
			&out); err == nil {
			t.Errorf("%q explains something", args)
		}
	}
}
