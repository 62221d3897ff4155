//go:build real

package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The tests in this file query the built program with dig, kdig and dnsperf, and through the
// caching resolvers Unbound and PowerDNS Recursor.

// realZone has every kind of record that an operator's zone may have.
const realZone = `$ORIGIN example.com.
$TTL 3600
@      IN SOA ns1 hostmaster 2026112301 7200 1800 1209600 300
@      IN NS  ns1
@      IN NS  ns2
@      IN MX  10 mail
@      IN CAA 0 issue "letsencrypt.org"
ns1    IN A   127.0.0.1
ns2    IN A   192.0.2.30
mail   IN A   192.0.2.99
       IN AAAA 2001:db8::99
alias  IN CNAME alias2
alias2 600 IN CNAME mail
toedge IN CNAME www
old    IN DNAME new
host.new IN A 192.0.2.55
*.dev  IN A   192.0.2.98
a.b.ent IN TXT "below an empty non-terminal"
sub    IN NS  ns.sub
sub    IN NS  ns.example.net.
ns.sub IN A   192.0.2.77
       IN AAAA 2001:db8::77
svc    IN SVCB 1 pool.example.net. alpn="h2,h3" port=8443 ipv4hint=192.0.2.1
static-https IN HTTPS 1 . alpn="h2"
odd    IN TYPE65280 \# 4 0A000001
`

// realNameServer has two edges. One of them is also the name server.
type realNameServer struct {
	dir, fleet string // fleet is the text of fleet.yaml
	port       string
	admin      string // of the process that has the name server
}

// startNameServer runs hel1 and nyc1. port is the DNS port on 127.0.0.1. HTTP ports are among the
// 100 that follow web.
func startNameServer(t *testing.T, port string, web int) *realNameServer {
	t.Helper()
	bin, dir := kaikuBinary(t), t.TempDir()
	hel, nyc := fmt.Sprintf("127.0.0.33:%d", web), fmt.Sprintf("127.0.0.34:%d", web)
	s := &realNameServer{dir: dir, port: port, admin: fmt.Sprintf("127.0.0.34:%d", web+1)}
	s.fleet = fmt.Sprintf(`
sites: [{ name: www, hosts: [www.example.com], origin: { servers: ["http://127.0.0.1:%[1]d"] } }]
nodes:
  hel1:
    roles: [edge]
    location: [60.17, 24.94]
    addresses: [127.0.0.33, "::1"]
    edge: { http: "%[2]s", admin: "127.0.0.33:%[6]d", data: %[4]s/hel1 }
  nyc1:
    roles: [edge, geodns]
    location: [40.71, -74.01]
    addresses: [127.0.0.34, "2001:db8:2::34"]
    edge: { http: "%[3]s", admin: "%[7]s", data: %[4]s/nyc1 }
edge: { disk: 1GiB }
geodns:
  listen: "127.0.0.1:%[5]s"
  zones: [{ name: example.com, file: example.com.zone, edges: { www: { ttl: 1000s }, both: { answers: 2, ttl: 1000s } } }]
`, web+9, hel, nyc, dir, port, web+1, s.admin)
	// Health checks also reach the edge's IPv6 address. An address that fails them is not
	// in answers.
	six, err := net.Listen("tcp6", fmt.Sprintf("[::1]:%d", web))
	if err != nil {
		t.Fatal(err)
	}
	probed := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	go func() { _ = probed.Serve(six) }()
	t.Cleanup(func() { _ = probed.Close() })
	s.write(t, "fleet.yaml", s.fleet)
	s.write(t, "example.com.zone", realZone+longTexts())
	config := filepath.Join(dir, "fleet.yaml")
	startProcess(t, bin, "edge", "--config", config, "--node", "hel1")
	waitFor(t, hel)
	startProcess(t, bin, "serve", "--config", config, "--node", "nyc1")
	waitFor(t, nyc)
	waitFor(t, "127.0.0.1:"+port)
	// Answers are complete once both were checked. nyc1 may have been down at its first check.
	for began := time.Now(); strings.Count(s.ask(t, "dig", "both.example.com A +short"), "127.0.0.3") != 2 ||
		!s.healthy(t); {
		if time.Since(began) > 20*time.Second {
			t.Fatal("the edges do not get healthy")
		}
		time.Sleep(50 * time.Millisecond)
	}
	return s
}

// longTexts returns RRsets of more than 512 and of more than 1232 octets, and a TXT record with
// several strings.
func longTexts() string {
	var b strings.Builder
	fmt.Fprintf(&b, "long IN TXT \"%s\" \"%s\" \"end\"\n", strings.Repeat("a", 255), strings.Repeat("b", 255))
	for i := range 9 {
		fmt.Fprintf(&b, "big IN TXT \"%d%s\"\n", i, strings.Repeat("x", 80))
	}
	for i := range 30 {
		fmt.Fprintf(&b, "huge IN TXT \"%d%s\"\n", i, strings.Repeat("y", 100))
	}
	return b.String()
}

// write replaces a file of the name server atomically, as an operator should, so that it never
// reads half a file.
func (s *realNameServer) write(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join(s.dir, name)
	if err := os.WriteFile(file+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

var spaces = regexp.MustCompile(`[ \t]+`)

// ask runs dig or kdig. It returns the output with single spaces.
func (s *realNameServer) ask(t *testing.T, program, args string) string {
	t.Helper()
	return askAt(t, program, s.port, args)
}

func askAt(t *testing.T, program, port, args string) string {
	t.Helper()
	all := append([]string{"@127.0.0.1", "-p", port}, strings.Fields(args)...)
	out, err := exec.Command(need(t, program), all...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, args, err, out)
	}
	return spaces.ReplaceAllString(string(out), " ")
}

// metrics returns the values of a metric by its labels, as they are written.
func (s *realNameServer) metrics(t *testing.T, name string) map[string]float64 {
	t.Helper()
	resp, err := http.Get("http://" + s.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for line := range strings.Lines(string(body)) {
		if labels, ok := strings.CutPrefix(line, name+"{"); ok {
			labels, value, _ := strings.Cut(labels, "} ")
			if values[labels], err = strconv.ParseFloat(strings.TrimSpace(value), 64); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
	}
	return values
}

func (s *realNameServer) healthy(t *testing.T) bool {
	t.Helper()
	up := s.metrics(t, "kaiku_dns_node_healthy")
	return up[`node="hel1"`] == 1 && up[`node="nyc1"`] == 1
}

// TestRealDNSRecords queries every kind of record and answer with both clients.
func TestRealDNSRecords(t *testing.T) {
	s := startNameServer(t, "15310", 18350)
	const soa = `(?m)^example\.com\. 300 IN SOA ns1\.example\.com\. hostmaster\.example\.com\. `
	const fi, us = "+subnet=193.166.0.0/16", "+subnet=128.112.0.0/16"
	for _, c := range []struct {
		args  string
		wants string // patterns that must match; those that begin with ! must not
	}{
		{"www.example.com A " + fi, `status: NOERROR; flags: qr aa; (?m)^www\.example\.com\. 1000 IN A 127\.0\.0\.33$; !127\.0\.0\.34; CLIENT-SUBNET: 193\.166\.0\.0/16/[1-9]`},
		{"www.example.com A " + us, `(?m)^www\.example\.com\. 1000 IN A 127\.0\.0\.34$; !127\.0\.0\.33; CLIENT-SUBNET: 128\.112\.0\.0/16/[1-9]`},
		{"www.example.com A +tcp " + us, `(?m)^www\.example\.com\. 1000 IN A 127\.0\.0\.34$`},
		{"www.example.com AAAA " + fi, `(?m)^www\.example\.com\. 1000 IN AAAA ::1$; !::34`},
		{"both.example.com A " + fi, `(?s)127\.0\.0\.33\s.*127\.0\.0\.34\s; CLIENT-SUBNET: 193\.166\.0\.0/16/0`},
		// the edges don't serve TLS here
		{"www.example.com HTTPS " + fi,
			`status: NOERROR; ` + soa + `; !IN HTTPS 1; CLIENT-SUBNET: 193\.166\.0\.0/16/0`},
		{"toedge.example.com A " + fi,
			`(?m)^toedge\.example\.com\. 3600 IN CNAME www\.example\.com\.\nwww\.example\.com\. 1000 IN A 127\.0\.0\.33$`},
		{"alias.example.com A " + fi, `(?m)^alias\.example\.com\. 3600 IN CNAME alias2\.example\.com\.\nalias2\.example\.com\. 600 IN CNAME mail\.example\.com\.\nmail\.example\.com\. 3600 IN A 192\.0\.2\.99$; /16/0`},
		{"host.old.example.com A", `(?m)^old\.example\.com\. 3600 IN DNAME new\.example\.com\.\nhost\.old\.example\.com\. 3600 IN CNAME host\.new\.example\.com\.\nhost\.new\.example\.com\. 3600 IN A 192\.0\.2\.55$`},
		{"any.thing.dev.example.com A",
			`flags: qr aa; (?m)^any\.thing\.dev\.example\.com\. 3600 IN A 192\.0\.2\.98$; !\*`},
		{"x.dev.example.com MX", `status: NOERROR; ` + soa},
		{"none.example.com A", `status: NXDOMAIN; flags: qr aa; ` + soa},
		{"b.ent.example.com A", `status: NOERROR; flags: qr aa; ` + soa},
		{"mail.example.com TXT", `status: NOERROR; flags: qr aa; ` + soa},
		{"example.org A", `status: REFUSED; !flags: qr aa`},
		{"host.sub.example.com A", `status: NOERROR; !flags: qr aa; (?m)^sub\.example\.com\. 3600 IN NS ns\.sub\.example\.com\.$; IN NS ns\.example\.net\.; (?m)^ns\.sub\.example\.com\. 3600 IN A 192\.0\.2\.77$; IN AAAA 2001:db8::77`},
		{"example.com MX", `(?m)^example\.com\. 3600 IN MX 10 mail\.example\.com\.$; (?m)^mail\.example\.com\. 3600 IN A 192\.0\.2\.99$`},
		{"example.com NS", `IN NS ns1\.example\.com\.; IN NS ns2\.example\.com\.; (?m)^ns1\.example\.com\. 3600 IN A 127\.0\.0\.1$`},
		{"example.com SOA", `(?m)^example\.com\. 3600 IN SOA ns1\.example\.com\. hostmaster\.example\.com\. 2026112301 7200 1800 1209600 300$`},
		{"example.com CAA", `(?m)^example\.com\. 3600 IN CAA 0 issue "letsencrypt\.org" ?$`},
		{"svc.example.com SVCB", `(?m)^svc\.example\.com\. 3600 IN SVCB 1 pool\.example\.net\. alpn="?h2,h3"? port=8443 ipv4hint=192\.0\.2\.1$`},
		{"static-https.example.com HTTPS", `(?m)^static-https\.example\.com\. 3600 IN HTTPS 1 \. alpn="?h2"?$`},
		{"long.example.com TXT +bufsize=1232", `(?m)IN TXT "a{255}" "b{255}" "end"$`},
		{"odd.example.com TYPE65280", `(?m)^odd\.example\.com\. 3600 IN TYPE65280 \\# 4 0A000001$`},
		{"www.example.com ANY +notcp", `IN HINFO "RFC8482" ""`},
		{"example.com AXFR +tcp +noall +comments +answer", `!IN SOA`},
		{"big.example.com TXT +bufsize=1232", `!flags: qr aa tc; "0x{80}"; "8x{80}"`},
		{"big.example.com TXT +bufsize=512 +ignore", `flags: qr aa tc; ANSWER: 0`},
		{"big.example.com TXT +bufsize=512", `!flags: qr aa tc; "0x{80}"; "8x{80}"`}, // the client retries over TCP
		{"huge.example.com TXT +bufsize=4096 +ignore", `flags: qr aa tc; ANSWER: 0`},
		{"huge.example.com TXT +bufsize=4096", `!flags: qr aa tc; "0y{100}"; "29y{100}"`},
	} {
		for _, program := range []string{"dig", "kdig"} {
			if strings.Contains(c.args, "AXFR") && program == "kdig" {
				continue // it exits with an error, as it should
			}
			out := s.ask(t, program, c.args+" +norec")
			for want := range strings.SplitSeq(c.wants, "; ") {
				pattern, not := strings.CutPrefix(want, "!")
				if regexp.MustCompile("(?i)"+pattern).MatchString(out) == not {
					t.Errorf("%s %s: want %s in\n%s", program, c.args, want, out)
				}
			}
		}
	}
	for args, want := range map[string]string{
		"www.example.com A +edns=1 +noednsnegotiation": `(?s)status: BADVERS.*EDNS: version: 0`,
		"wWw.eXaMpLe.CoM A +norec":                     `(?s);wWw\.eXaMpLe\.CoM\. IN A.*\nwWw\.eXaMpLe\.CoM\. 1000 IN A `,
		"www.example.com A +ednsopt=65001:abcd":        `status: NOERROR`, // an unknown option is not echoed
		"www.example.com A +dnssec +norec":             `flags: do`,
	} {
		out := s.ask(t, "dig", args)
		if !regexp.MustCompile(want).MatchString(out) || strings.Contains(out, "OPT=65001") {
			t.Errorf("dig %s: want %s in\n%s", args, want, out)
		}
	}
}

// TestRealDNSOneConnection sends many queries over one connection with kdig.
func TestRealDNSOneConnection(t *testing.T) {
	s := startNameServer(t, "15311", 18360)
	out := s.ask(t, "kdig", "+tcp +keepopen"+
		strings.Repeat(" www.example.com A none.example.com A huge.example.com TXT", 20))
	for want, n := range map[string]int{"www.example.com. 1000 IN A 127.0.0.3": 20, "status: NXDOMAIN": 20,
		`huge.example.com. 3600 IN TXT "29y`: 20} {
		if got := strings.Count(out, want); got != n {
			t.Errorf("%q %d times, want %d", want, got, n)
		}
	}
	if strings.Contains(out, "WARNING") {
		t.Errorf("warnings in\n%s", out)
	}
}

// TestRealDNSBehindResolver puts caching resolvers that send Client Subnet in front. Clients in
// Finland and in the US get their own edges through the same resolver, which queries once for each.
func TestRealDNSBehindResolver(t *testing.T) {
	s := startNameServer(t, "15320", 18370)
	for _, r := range []struct {
		name, port string
		start      func(*testing.T, string, string)
	}{{"unbound", "15321", startUnbound}, {"pdns_recursor", "15322", startRecursor}} {
		t.Run(r.name, func(t *testing.T) {
			r.start(t, r.port, s.port)
			waitFor(t, "127.0.0.1:"+r.port)
			before := s.metrics(t, "kaiku_dns_answered_total")
			// One scope of the answers covers the Finnish networks, and another one those of
			// the US.
			for range 3 {
				for network, want := range map[string]string{
					"193.166.3.0/24": "127.0.0.33", "193.166.99.0/24": "127.0.0.33", "128.112.1.0/24": "127.0.0.34",
					"128.112.200.0/24": "127.0.0.34",
				} {
					if out := askAt(t, "dig", r.port, "www.example.com A +subnet="+network); !strings.Contains(out,
						" IN A "+want+"\n") {
						t.Errorf("%s: want %s in\n%s", network, want, out)
					}
				}
			}
			after := s.metrics(t, "kaiku_dns_answered_total")
			for _, node := range []string{`node="hel1"`, `node="nyc1"`} {
				if n := after[node] - before[node]; n != 1 {
					t.Errorf("%s was answered %v times for six questions, want once", node, n)
				}
			}
			// Names with the same answer for everybody are queried once for all.
			queries := func() float64 {
				n := 0.0
				for labels, v := range s.metrics(t, "kaiku_dns_queries_total") {
					if strings.Contains(labels, `type="A"`) {
						n += v
					}
				}
				return n
			}
			first := queries()
			for i, network := range []string{"193.166.3.0/24", "128.112.1.0/24", "130.233.1.0/24"} {
				if out := askAt(t, "dig", r.port, "mail.example.com A +subnet="+network); !strings.Contains(out,
					" IN A 192.0.2.99\n") {
					t.Errorf("%s: no address in\n%s", network, out)
				}
				if i == 0 {
					if n := queries() - first; n < 1 {
						t.Errorf("the resolver asked %v times", n)
					}
					first = queries()
				}
			}
			if n := queries() - first; n != 0 {
				t.Errorf("a static name was asked for %v times more", n)
			}
		})
	}
}

func startUnbound(t *testing.T, port, server string) {
	t.Helper()
	dir := t.TempDir()
	conf := filepath.Join(dir, "unbound.conf")
	text := fmt.Sprintf(`server:
  interface: 127.0.0.1@%s
  directory: "%s"
  pidfile: "%[2]s/pid"
  chroot: ""
  username: ""
  use-syslog: no
  logfile: ""
  do-daemonize: no
  num-threads: 1
  access-control: 127.0.0.0/8 allow
  do-not-query-localhost: no
  module-config: "subnetcache iterator"
  send-client-subnet: 127.0.0.1
  max-client-subnet-ipv4: 24
remote-control:
  control-enable: no
stub-zone:
  name: example.com
  stub-addr: 127.0.0.1@%[3]s
`, port, dir, server)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	startProcess(t, need(t, "unbound"), "-d", "-c", conf)
}

func startRecursor(t *testing.T, port, server string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "recursor.conf"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	startProcess(t, need(t, "pdns_recursor"), "--config-dir="+dir, "--socket-dir="+dir, "--daemon=no",
		"--disable-syslog", "--write-pid=no",
		"--threads=1", "--local-address=127.0.0.1", "--local-port="+port, "--allow-from=127.0.0.0/8", "--dont-query=",
		"--dnssec=off",
		"--security-poll-suffix=", "--forward-zones=example.com=127.0.0.1:"+server,
		"--edns-subnet-allow-list=127.0.0.1,example.com",
		"--use-incoming-edns-subnet=yes", "--ecs-ipv4-bits=24", "--loglevel=4")
}

// TestRealDNSReloadsLoseNothing changes the fleet file every second while dnsperf sends queries.
// Every query must be answered.
func TestRealDNSReloadsLoseNothing(t *testing.T) {
	s := startNameServer(t, "15330", 18380)
	data := filepath.Join(t.TempDir(), "queries")
	queries := "www.example.com A\nwww.example.com AAAA\nboth.example.com A\nmail.example.com A\nalias.example.com A\nx.dev.example.com A\nnone.example.com A\n"
	if err := os.WriteFile(data, []byte(queries), 0o644); err != nil {
		t.Fatal(err)
	}
	// The client subnet is 193.166.0.0/16.
	perf := exec.Command(need(t, "dnsperf"), "-s", "127.0.0.1", "-p", s.port, "-d", data, "-E", "8:00011000c1a6", "-Q",
		"2000", "-l", "10")
	var out strings.Builder
	perf.Stdout, perf.Stderr = &out, &out
	if err := perf.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- perf.Wait() }()
	t.Cleanup(func() { _ = perf.Process.Signal(syscall.SIGKILL) }) // fails if it has ended, as it should have
	taken := 0
	for running := true; running; {
		ttl := 100 + taken
		s.write(t, "example.com.zone", strings.Replace(realZone, "2026112301", strconv.Itoa(2026112302+taken), 1))
		s.write(t, "fleet.yaml", strings.ReplaceAll(s.fleet, "1000s", strconv.Itoa(ttl)+"s"))
		for began := time.Now(); running; {
			if strings.Contains(s.ask(t, "dig", "www.example.com A"), fmt.Sprintf("www.example.com. %d IN A ", ttl)) {
				taken++
				break
			}
			if time.Since(began) > 10*time.Second {
				t.Fatalf("the fleet file was not taken")
			}
			select {
			case err := <-ended:
				running = false
				if err != nil {
					t.Fatalf("dnsperf: %v\n%s", err, out.String())
				}
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	t.Logf("%d reloads under\n%s", taken, out.String())
	sent := regexp.MustCompile(`Queries sent:\s+(\d+)`).FindStringSubmatch(out.String())
	if sent == nil {
		t.Fatal("dnsperf does not tell how many it sent")
	}
	if n, _ := strconv.Atoi(sent[1]); n < 15_000 || taken < 5 {
		t.Errorf("%d queries and %d reloads show little", n, taken)
	}
	if !regexp.MustCompile(`Queries lost:\s+0 `).MatchString(out.String()) {
		t.Error("queries were lost")
	}
	if !regexp.MustCompile(`Response codes:\s+NOERROR \d+ \([\d.]+%\), NXDOMAIN \d+ \([\d.]+%\)\n`).MatchString(out.String()) {
		t.Error("other codes than NOERROR and NXDOMAIN")
	}
}
