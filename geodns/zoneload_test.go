package geodns

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// largeZone returns the text of a zone with n typical records.
func largeZone(n int) string {
	var b strings.Builder
	b.WriteString(head)
	for i := range n - 3 {
		switch i % 10 {
		case 0, 1, 2, 3, 4:
			fmt.Fprintf(&b, "host%d IN A 10.%d.%d.%d\n", i, i>>16&255, i>>8&255, i&255)
		case 5, 6:
			fmt.Fprintf(&b, "host%d 300 IN AAAA 2001:db8::%x:%x ; comment\n", i, i>>16, i&65535)
		case 7:
			fmt.Fprintf(&b, "alias%d\tIN\tCNAME\thost%d.example.com.\n", i, i-3)
		case 8:
			fmt.Fprintf(&b, "mail%d IN MX 10 host%d\n", i, i-5)
		case 9:
			fmt.Fprintf(&b, "txt%d IN TXT \"v=spf1 ip4:10.0.0.0/8 -all %d\"\n", i, i)
		}
	}
	return b.String()
}

// TestLargeZone bounds the memory per record: what is allocated while a zone is read, and what is
// held while it is served with an edge name.
func TestLargeZone(t *testing.T) {
	const n = 40_000
	text := largeZone(n)
	var before, read, served runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	z, errs := ParseZone(strings.NewReader(text), "example.com", "zone")
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	runtime.ReadMemStats(&read)
	cfg := testConfig(t)
	cfg.Zones, cfg.Edges = []*Zone{z}, []EdgeName{{Name: "www.example.com"}}
	s := newServer(t, cfg)
	runtime.GC()
	runtime.ReadMemStats(&served)
	for _, name := range []string{"host39990.example.com.", "www.example.com."} {
		if m := mustAnswer(t, s, question(name+" A"), nowhere, true); len(m.Answer) != 1 {
			t.Errorf("%s is answered with %v", name, m)
		}
	}
	for _, test := range []struct {
		what     string
		got, max uint64
	}{
		{"bytes allocated while reading", (read.TotalAlloc - before.TotalAlloc) / n, 700},
		{"objects allocated while reading", (read.Mallocs - before.Mallocs) / n, 3},
		{"bytes held", (served.HeapAlloc - before.HeapAlloc) / n, 220},
	} {
		if test.got > test.max {
			t.Errorf("%s: %d a record, want at most %d", test.what, test.got, test.max)
		}
	}
}

// BenchmarkParseZone reads a zone of 100,000 records. It reports the memory that the zone holds per
// record.
func BenchmarkParseZone(b *testing.B) {
	text := largeZone(100_000)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	b.ReportAllocs()
	var z *Zone
	for b.Loop() {
		var errs []ZoneError
		if z, errs = ParseZone(strings.NewReader(text), "example.com", "zone"); len(errs) > 0 {
			b.Fatal(errs)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/100_000, "bytes-held/record")
	runtime.KeepAlive(z)
}
