package rules

import (
	"encoding/base64"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// limitedSet has one rule, with a limit.
func limitedSet(t testing.TB, l Limit) *Set {
	t.Helper()
	l.Name = "www/api"
	if err := l.Check(); err != nil {
		t.Fatal(err)
	}
	return mustSet(t, []Rule{{Name: "api", Actions: Actions{Limit: &l}}})
}

func from(addr string, table *Table, now time.Time) *Request {
	return &Request{Method: "GET", Path: "/", Client: netip.MustParseAddr(addr), Table: table, Now: now,
		Header: http.Header{}}
}

func TestLimit(t *testing.T) {
	s, table, now := limitedSet(t, Limit{Rate: Rate{60, time.Minute}, Burst: 3}), &Table{}, time.Now()
	ask := func(addr string) *Response { return s.Evaluate(from(addr, table, now)).Response }
	for n := range 5 {
		if got := ask("192.0.2.1"); (got != nil) != (n >= 3) {
			t.Fatalf("request %d gets %+v", n, got)
		}
	}
	got := ask("::ffff:192.0.2.1")
	if got == nil || got.Status != 429 || got.Reason != LimitRequests || got.Header.Get("Retry-After") != "1" ||
		got.Header.Get("RateLimit-Policy") != `"requests";q=3;w=3` ||
		got.Header.Get("RateLimit") != `"requests";r=0;t=1` {
		t.Fatalf("the refusal is %+v", got)
	}
	if ask("192.0.2.2") != nil || ask("2001:db8::1") != nil {
		t.Error("others are limited")
	}
	now = now.Add(time.Second)
	if ask("192.0.2.1") != nil || ask("192.0.2.1") == nil {
		t.Error("one request a second is allowed, and no more")
	}
	for n := range 3 {
		if got := ask("2001:db8::ffff:" + string(rune('1'+n))); (got != nil) != (n >= 3) {
			t.Errorf("request %d of the /64 gets %+v", n, got)
		}
	}
	if ask("2001:db8:0:0:1:2:3:4") == nil || ask("2001:db8:0:1::1") != nil {
		t.Error("a /64 is counted together, and another one apart")
	}
	var o Outcome
	if s.Static(from("192.0.2.9", nil, now), &o) {
		t.Error("the hit lane would not count")
	}
	if o := s.Evaluate(from("192.0.2.1", nil, now)); o.Response != nil || len(o.Limits) != 1 ||
		o.Limits[0].String() != "60 per minute, 3 at once; by client network (/32, /64)" {
		t.Errorf("an explanation counts: %+v", o)
	}
}

func TestLimitMisses(t *testing.T) {
	s, table, now := limitedSet(t, Limit{Rate: Rate{100, time.Second}, Misses: Rate{2, time.Hour}}), &Table{},
		time.Now()
	for n := range 10 {
		o := s.Evaluate(from("192.0.2.1", table, now))
		if o.Response != nil || !o.CountsMisses() {
			t.Fatalf("request %d: %+v", n, o)
		}
		if n%2 == 1 {
			continue // a hit
		}
		if o.Miss(table, now); (o.Response != nil) != (n >= 4) ||
			n >= 4 && (o.Response.Reason != LimitMisses || o.By != "api" ||
				o.Response.Header.Get("Retry-After") != "1800") {
			t.Errorf("miss %d: %+v", n, o.Response)
		}
	}
}

func TestLimitByValue(t *testing.T) {
	for _, l := range []Limit{{Header: "X-Api-Key"}, {Cookie: "session"}} {
		l.Rate = Rate{1, time.Hour}
		s, table, now := limitedSet(t, l), &Table{}, time.Now()
		ask := func(addr, value string) bool {
			r := from(addr, table, now)
			if value != "" {
				r.Header.Set("X-Api-Key", value)
				r.Header.Set("Cookie", "a=b; session="+value)
			}
			return s.Evaluate(r).Response == nil
		}
		if !ask("192.0.2.1", "one") || ask("192.0.2.2", "one") || !ask("192.0.2.2", "two") {
			t.Errorf("%v: values are not counted apart", l)
		}
		if !ask("192.0.2.1", "") || ask("192.0.2.1", "") || !ask("192.0.2.2", "") {
			t.Errorf("%v: without a value, the network counts", l)
		}
	}
}

// A client stays limited, however many others there are, unless they come as close to the limit.
func TestLimitsStay(t *testing.T) {
	table, now := &Table{}, time.Now()
	l := Limit{Name: "x", Rate: Rate{10, time.Hour}}
	if err := l.Check(); err != nil {
		t.Fatal(err)
	}
	key := table.hash("x", 'r', "victim")
	for table.take(key, l.all, now).ok {
	}
	for n := range 4 * tableSets * tableWays { // each of them once
		hash := uint64(n) * 0x9e3779b97f4a7c15
		if hash != key && !table.take(hash, l.all, now).ok {
			t.Fatal("a new client is limited")
		}
	}
	if table.take(key, l.all, now).ok {
		t.Error("the limited client was forgotten")
	}
	// A slow limit doesn't push a fast one out: what counts is how close each is to its own limit.
	fast := newPace(100, time.Second, 100)
	quick := uint64(5) | 7<<32
	for range 100 {
		table.take(quick, fast, now)
	}
	for n := range uint64(50) {
		table.take(5|(n+100)<<33, l.all, now)
	}
	if table.take(quick, fast, now).ok {
		t.Error("a slow limit pushed a fast one out")
	}
}

func TestTableIsShared(t *testing.T) {
	table, now, p := &Table{}, time.Now(), newPace(1000, time.Hour, 1000)
	var ok atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 500 {
				if table.take(table.hash("a", 'r', "b"), p, now).ok {
					ok.Add(1)
				}
			}
		})
	}
	all.Wait()
	if n := ok.Load(); n != 1000 {
		t.Errorf("%d were allowed, want 1000", n)
	}
}

func TestRates(t *testing.T) {
	for text, want := range map[string]Rate{"100/s": {100, time.Second}, "1/h": {1, time.Hour}, "": {}, "0/s": {},
		"-1/s": {}, "1/d": {}, "1": {}, "1000001/s": {}, "1/s/s": {}, "1.5/s": {}} {
		if got, err := ParseRate(text); got != want || (err == nil) != (want.N > 0) {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
	hour := Rate{1, time.Hour}
	for _, l := range []Limit{{}, {Burst: 1}, {Rate: hour, Burst: -1}, {Rate: hour, Burst: 25}, {Rate: hour, IPv4: 33},
		{Rate: hour, IPv6: 129}, {Misses: hour, MissBurst: maxCount + 1}} {
		if l.Check() == nil {
			t.Errorf("%+v was taken", l)
		}
	}
}

// Wrong passwords are limited by network, and right ones that are known are not.
func TestWrongPasswordsAreLimited(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("right"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	a, err := ParseAuth("x", "anna:"+string(hash))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.SetAttempts("www/1", Rate{3, time.Minute}); err != nil {
		t.Fatal(err)
	}
	table, now := &Table{}, time.Now()
	try := func(addr, password string) string {
		r := from(addr, table, now)
		if password != "" {
			r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("anna:"+password)))
		}
		if refusal := a.Check(r); refusal != nil {
			return refusal.Reason
		}
		return ""
	}
	if got := try("192.0.2.1", "right"); got != "" {
		t.Fatal(got)
	}
	for range 5 { // they cost nothing
		if got := try("192.0.2.1", ""); got != AuthWrong {
			t.Fatal(got)
		}
	}
	for n := range 5 {
		want := AuthWrong
		if n >= 3 {
			want = AuthLimit
		}
		if got := try("192.0.2.1", strings.Repeat("x", n+1)); got != want {
			t.Errorf("wrong password %d: %q, want %q", n, got, want)
		}
	}
	if got := try("192.0.2.1", "right"); got != "" {
		t.Errorf("a password that is known to be right: %q", got)
	}
	if got := try("192.0.2.2", "wrong"); got != AuthWrong {
		t.Errorf("from another network: %q", got)
	}
	now = now.Add(20 * time.Second)
	if got := try("192.0.2.1", "y"); got != AuthWrong {
		t.Errorf("after a while: %q", got)
	}
}

func TestCrawlers(t *testing.T) {
	for agent, want := range map[string]string{
		"Mozilla/5.0 (compatible; GPTBot/1.2; +https://openai.com/gptbot)":                            "ai any",
		"Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)":                     "search any",
		"Mozilla/5.0 (compatible; AhrefsBot/7.0)":                                                     "any",
		"Example/1.0 (+https://example.com/crawler)":                                                  "any",
		"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0":                      "",
		"Mozilla/5.0 (Linux; Android 9; CUBOT X19) AppleWebKit/537.36 Chrome/120.0.0.0 Safari/537.36": "",
		"": "",
	} {
		var got []string
		for _, class := range CrawlerClasses() {
			if isCrawler(class, http.Header{"User-Agent": {agent}}) {
				got = append(got, class)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s is %v, want %s", agent, got, want)
		}
	}
}

func BenchmarkLimit(b *testing.B) {
	s, table, now := limitedSet(b, Limit{Rate: Rate{maxCount, time.Second}}), &Table{}, time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if s.Evaluate(from("192.0.2.1", table, now)).Response != nil {
			b.Fatal("limited")
		}
	}
}
