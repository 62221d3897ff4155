package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mistake is a file, and what is printed about it: "" if nothing is wrong.
type mistake struct{ name, text, want string }

// wrong loads a fleet file. It returns the errors and warnings, one per line, without the file's
// name and lines.
func wrong(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "fleet.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return wrongIn(t, file)
}

func wrongIn(t *testing.T, file string) string {
	t.Helper()
	f, zones, err := Load(file)
	var told []string
	if err == nil {
		f.auditZones(zones)
		err = f.file.failure()
	}
	if err == nil {
		for _, w := range f.file.warns {
			told = append(told, fmt.Sprintf("%d:%d: warning: %s", w.line, w.col, w.msg))
		}
	}
	var each func(error)
	each = func(err error) {
		var f *fileError
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				each(e)
			}
		} else if errors.As(err, &f) {
			told = append(told, strings.ReplaceAll(fmt.Sprintf("%d:%d: %s", f.line, f.col, f.msg), filepath.Dir(file),
				"DIR"))
		} else if err != nil {
			told = append(told, err.Error())
		}
	}
	each(err)
	return strings.Join(told, "\n")
}

// No value of any type brings a library's message to the operator.
func TestNoWordsOfLibraries(t *testing.T) {
	for _, value := range []string{"x", "-1", "1.2.3.4.5", "::g", "1e999", "%zz", "http://%zz", "0x",
		"99999999999999999999", "a: b", "[]", "{}", "[[x]]", "~", "!!int x", "10.0.0.0/8/8", "fe80::1%eth0/64",
		"'\\x'"} {
		for _, key := range []string{"sites: [{ hosts: [V] }]", "sites: [{ origin: { servers: [V] } }]",
			"sites: [{ origin: { servers: [{ url: V }] } }]", "sites: [{ origin: { retries: V } }]",
			"sites: [{ cache: { max_object: V } }]", "sites: [{ cache: { default_ttl: V } }]",
			"sites: [{ https: { redirect: V } }]", "nodes: { a: { location: V } }",
			"nodes: { a: { location: [V, V] } }",
			"nodes: { a: { addresses: [V] } }", "nodes: { a: { weight: V } }", "edge: { purge_from: [V] }",
			"edge: { http: V }", "edge: { access_log: { sample: V } }", "geodns: { locate: { V: [1, 2] } }",
			"geodns: { locate: { 10.0.0.0/8: V } }", "geodns: { rate_limit: { exempt: [V] } }",
			"geodns: { zones: [{ name: V, file: V }] }", "tls: { acme: { directory: V } }"} {
			text := strings.ReplaceAll(key, "V", value)
			got := wrong(t, text)
			for _, theirs := range []string{"strconv", "netip", "Parse", "parse ", "unmarshal", "syntax", "invalid",
				"reflect", "token", "%!"} {
				if strings.Contains(got, theirs) {
					t.Errorf("%s\nhas the word %q:\n%s", text, theirs, got)
				}
			}
		}
	}
}

func TestSizesAndDurations(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "7B": 7, "10K": 10 << 10, "10M": 10 << 20, "10MB": 10 << 20,
		"10MiB": 10 << 20, "10m": 10 << 20, "10G": 10 << 30, "10GB": 10 << 30, "10 GiB": 10 << 30, "2T": 2 << 40} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%s is %d, %v", text, s, err)
		}
	}
	for _, text := range []string{"", "G", "-1G", "1.5G", "10IB", "10Gi B", "1GG", "5000000T", "10P"} {
		if err := new(Size).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken as a size", text)
		}
	}
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{"0": 0, "0s": 0, "500ms": 500 * time.Millisecond,
		"1h30m": 90 * time.Minute, "1d": day, "2w": 14 * day, "1d12h": 36 * time.Hour, "0.5d": 12 * time.Hour,
		"1.5h": 90 * time.Minute} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || time.Duration(d) != want {
			t.Errorf("%s is %v, %v", text, time.Duration(d), err)
		}
	}
	for _, text := range []string{"", "d", "5", "-1d", "1 d", "1y", "1d-2h", ".", ".d", "1..5d", "16000w",
		"9000w9000w"} {
		if err := new(Duration).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken as a duration", text)
		}
	}
}
