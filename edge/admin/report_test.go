package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/front"
)

var (
	testTime   = time.Unix(1_800_000_000, 0)
	testFuture = time.Now().Add(time.Hour)
)

// A report fits into its limit whatever a node has, and what is wrong has its place first.
func TestReportFits(t *testing.T) {
	t.Parallel()
	r := Report{Location: &[2]float64{60.17, 24.94}, Rates: &Rates{Requests: 1e9}, Seconds: make([]uint64, 12),
		Served: map[string]map[string]int{}}
	for i := range 500 {
		s := SiteReport{Site: fmt.Sprint("site-", i), Up: 2, Servers: 2}
		if i%100 == 99 {
			s.Up, s.Why = 1, strings.Repeat("\x01", maxWhy)
		}
		r.Sites = append(r.Sites, s)
		r.Served[fmt.Sprint("n", i)] = map[string]int{"FI": i, "SE": 1}
	}
	b, err := r.Encode(4 << 10)
	if err != nil || len(b) > 4<<10 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	got, err := ParseReport(b)
	if err != nil {
		t.Fatal(err)
	}
	bad := 0
	for _, s := range got.Sites {
		if s.Up < s.Servers {
			bad++
		}
	}
	if bad == 0 || len(got.Sites)+got.MoreSites < 495 {
		t.Errorf("%d sites, %d of them with servers down, and %d more", len(got.Sites), bad, got.MoreSites)
	}
	small := Report{Sites: []SiteReport{{Site: "www", Up: 1, Servers: 1}}, Down: []string{"n1"}}
	if b, err := small.Encode(4 << 10); err != nil || !strings.Contains(string(b), `"www"`) {
		t.Errorf("%s, %v", b, err)
	}
}

// No report of a node breaks what is made of all reports.
func FuzzParseReport(f *testing.F) {
	f.Add([]byte(`{"rates":{"requests":1e308,"hits":-1},"seconds":[1,18446744073709551615],"location":[1e9,0],"served":{"a":{"FI":-5}}}`))
	f.Add([]byte(`{"seconds":[1,1,1,1,1,1,1,1,1,1,1,1,1,1]}`))
	f.Add([]byte(`{"sites":[{"site":"<script>","up":-1,"why":"\u0000"}],"store":{"bytes":-1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseReport(b)
		if err != nil {
			return
		}
		if _, err := json.Marshal(pointOf(testTime, []Reported{{Report: r}, {Report: r}, {Report: r}})); err != nil {
			t.Error(err)
		}
		if _, err := json.Marshal(Live{Report: &r}); err != nil {
			t.Error(err)
		}
	})
}

// The history has the last hour, each point once.
func TestHistory(t *testing.T) {
	t.Parallel()
	var h History
	for i := range 2 * maxPoints {
		h.Add(testTime.Add(time.Duration(i)*HistoryEvery), nil)
	}
	all := h.Since(0)
	h.add(all[5], all[len(all)-1])
	if got := h.Since(0); len(got) != maxPoints || got[maxPoints-1].At != h.last() {
		t.Errorf("%d points", len(got))
	}
	if got := h.Since(all[len(all)-3].At); len(got) != 2 {
		t.Errorf("%d points after the last but two", len(got))
	}
	if got := h.Since(h.last()); len(got) != 0 {
		t.Errorf("%d points after the last", len(got))
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	counts := make([]uint64, len(front.SecondsBuckets())+1)
	if got := quantile(counts, .5); got != 0 {
		t.Errorf("of none: %v", got)
	}
	counts[2], counts[len(counts)-1] = 98, 2 // up to a millisecond, and above ten seconds
	for q, want := range map[float64][2]float64{.5: {.0003, .001}, .98: {.001, .001}, .99: {10, 10}} {
		if got := quantile(counts, q); got < want[0] || got > want[1] {
			t.Errorf("%v: %v, want %v", q, got, want)
		}
	}
}

// A node that fails to start serves its parts with a context that has ended. Its reporter has
// nothing to publish to.
func TestReporterThatNeverRan(t *testing.T) {
	ended, end := context.WithCancel(t.Context())
	end()
	r := &Reporter{Publish: func(Report) error {
		t.Error("a report is published")
		return nil
	}}
	if err := r.Serve(ended); err != nil {
		t.Error(err)
	}
}
