package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/fleet/freeport"
)

// runInit runs init with answers and flags, and returns what it prints.
func runInit(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	cmd := initCommand()
	var out bytes.Buffer
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestInit(t *testing.T) {
	for _, c := range []struct {
		name, stdin string
		args        []string
		nodes       int
	}{
		{"one node by flags", "", []string{"--domain", "example.com", "--origin", "http://192.0.2.9:8000", "--node",
			"hel1=203.0.113.10@60.17,24.94"}, 1},
		{"four nodes", "", []string{"--domain", "Example.com.", "--origin", "https://origin.example.net", "--node",
			"hel1=203.0.113.10@60.17,24.94",
			"--node", "nyc1=2001:db8::1@40.71,-74.01", "--node", "sin1=192.0.2.40@1.35,103.82", "--node",
			"fra1=192.0.2.41@50,8"}, 4},
		{"asked", "example.com\nhttps://origin.example.net\nhel1=203.0.113.10@60.17,24.94\nnyc1=198.51.100.20@40.71,-74.01\n\nops@example.com\n", nil, 2},
		{"asked, without TLS", "example.com\nhttps://origin.example.net\nhel1=203.0.113.10@60.17,24.94\n\n\n", nil, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "fleet")
			out, err := runInit(t, c.stdin, append(c.args, "--no-origin-check", "--dir", dir)...)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			fleetFile := filepath.Join(dir, "fleet.yaml")
			f, zones, err := config.Load(fleetFile)
			if err != nil {
				t.Fatal(err)
			}
			if len(f.Nodes) != c.nodes || len(zones) != 1 || len(f.GeoDNS.Zones[0].Edges) != 2 {
				t.Errorf("%d nodes, %d zones", len(f.Nodes), len(zones))
			}
			if controls, _ := f.ControlAddresses(); len(controls) != map[int]int{1: 0, 2: 1, 4: 3}[c.nodes] {
				t.Errorf("%d control nodes of %d", len(controls), c.nodes)
			}
			for _, name := range []string{"fleet.key", "admin.token"} {
				info, err := os.Stat(filepath.Join(dir, name))
				if err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("%s: %v, %v", name, info.Mode(), err)
				}
			}
			if told := strings.Contains(out,
				`no TLS: for certificates, add tls: { acme: { email: "…" } } to fleet.yaml`); told != (f.TLS.ACME == nil) {
				t.Errorf("no TLS is told: %v\n%s", told, out)
			}
			if !strings.Contains(out, "\nnext: kaiku check "+fleetFile+"\n") {
				t.Errorf("it does not tell what is next:\n%s", out)
			}
			// A second run overwrites nothing.
			before, _ := os.ReadFile(filepath.Join(dir, "fleet.key"))
			if _, err := runInit(t, c.stdin, append(c.args, "--no-origin-check", "--dir", dir)...); err == nil ||
				err.Error() != fmt.Sprintf("init: %[1]s already exists: edit it and run kaiku check %[1]s, or give another --dir", fleetFile) {
				t.Errorf("a second time: %v", err)
			}
			if after, _ := os.ReadFile(filepath.Join(dir, "fleet.key")); !bytes.Equal(before, after) {
				t.Error("the fleet key was overwritten")
			}
		})
	}
}

// A bad value in a flag is an error that says what is wanted.
func TestInitRefuses(t *testing.T) {
	rest := []string{"--domain", "example.com", "--origin", "http://a.example"}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--domain", "nodomain", "--origin", "http://a.example"},
			`"nodomain" is not a domain: want a name such as example.com`},
		{[]string{"--domain", "192.0.2.1"}, `"192.0.2.1" is not a domain: want a name such as example.com`},
		{[]string{"--domain", "https://example.com"},
			`"https://example.com" is not a domain: want a name such as example.com`},
		{[]string{"--domain", "www.example.com"},
			`"www.example.com" is a host: want the domain, such as example.com; www is added to it`},
		{[]string{"--domain", "example.com", "--origin", "ftp://a.example"},
			`origin: "ftp://a.example" is not an origin: want http://host[:port] or https://host[:port]`},
		{[]string{"--domain", "example.com", "--origin", "https://www.example.com"},
			"origin: the name www.example.com will lead to the edges, so they would fetch from themselves: want another name or an address of your server, such as origin.example.com"},
		{append(rest, "--node", "hel1"),
			`node "hel1": want NAME=IP[,IP]@PLACE, such as hel1=203.0.113.10@60.17,24.94 or hel1=203.0.113.10@Helsinki`},
		{append(rest, "--node", "Hel 1=203.0.113.10@1,2"),
			`"Hel 1" is not a node name: want letters a-z, digits and -; want NAME=IP[,IP]@PLACE, such as hel1=203.0.113.10@60.17,24.94 or hel1=203.0.113.10@Helsinki`},
		{append(rest, "--node", "hel1=203.0.113@1,2"),
			`node hel1: "203.0.113" is not an IP address; want NAME=IP[,IP]@PLACE, such as hel1=203.0.113.10@60.17,24.94 or hel1=203.0.113.10@Helsinki`},
		{append(rest, "--node", "hel1=203.0.113.10,203.0.113.10@1,2"), "node hel1 has the address 203.0.113.10 twice"},
		{append(rest, "--node", "hel1=203.0.113.10@91,2"),
			"node hel1: 91,2 is not on the Earth: latitude is -90 to 90, longitude -180 to 180"},
		{append(rest, "--node", "hel1=203.0.113.10@NaN,2"),
			"node hel1: NaN,2 is not on the Earth: latitude is -90 to 90, longitude -180 to 180"},
		{append(rest, "--node", "hel1=203.0.113.10@Helsnki"),
			`node hel1: unknown city "Helsnki"; did you mean Helsinki? You may also give LATITUDE,LONGITUDE`},
		{append(rest, "--node", "hel1=203.0.113.10@Atlantis"),
			`node hel1: unknown city "Atlantis"; did you mean Atlanta? You may also give LATITUDE,LONGITUDE`},
		{append(rest, "--node", "hel1=203.0.113.10@60.17"),
			`node hel1: "60.17" is neither LATITUDE,LONGITUDE nor a known city`},
		{append(rest, "--node", "hel1=203.0.113.10"),
			"node hel1: give its place, because the country of its address is unknown: want NAME=IP[,IP]@PLACE, such as hel1=203.0.113.10@60.17,24.94 or hel1=203.0.113.10@Helsinki"},
		{append(rest, "--node", "hel1=203.0.113.10@1,2", "--node", "hel1=203.0.113.11@1,2"),
			"the name hel1 is already taken: give this node another name"},
		{append(rest, "--node", "hel1=203.0.113.10@1,2", "--node", "nyc1=198.51.100.1,203.0.113.10@1,2"),
			"203.0.113.10 is already the address of node hel1"},
		{append(rest, "--node", "hel1=203.0.113.10@1,2", "--email", "ops"), `"ops" is not an e-mail address`},
		{rest, `no answer to the question "a machine as NAME=IP[,IP]@PLACE, such as hel1=203.0.113.10@60.17,24.94 or @Helsinki (an empty line ends)": give the value by a flag, see kaiku init --help`},
	} {
		dir := t.TempDir()
		_, err := runInit(t, "", append(slices.Clone(c.args), "--no-origin-check", "--dir", dir)...)
		if err == nil || err.Error() != c.want {
			t.Errorf("%q: %v, want %s", c.args, err, c.want)
		}
		if entries, _ := os.ReadDir(dir); len(entries) > 0 {
			t.Errorf("%q: it wrote %v", c.args, entries)
		}
	}
}

// init writes a fleet that can't work, for the operator to correct. Then it fails, and prints no
// next step.
func TestInitChecksTheFiles(t *testing.T) {
	dir := t.TempDir()
	out, err := runInit(t, "", "--domain", "example.com", "--origin", "http://203.0.113.10", "--node",
		"hel1=203.0.113.10@Helsinki", "--no-origin-check", "--dir", dir)
	config := filepath.Join(dir, "fleet.yaml")
	if !errors.Is(err, errReported) ||
		!strings.HasSuffix(out, config+" fails its check: correct it, and run kaiku check "+config+"\n") ||
		!strings.Contains(out, "this is the http listener of edge hel1") || strings.Contains(out, "next: ") {
		t.Errorf("%v\n%s", err, out)
	}
}

// After a bad answer, init asks again and keeps the earlier answers.
func TestInitAsksAgain(t *testing.T) {
	dir := t.TempDir()
	answers := []string{"www.example.com", "example.com", "", "ftp://x.example", "https://example.com",
		"https://origin.example.net",
		"", "hel1", "hel1=203.0.113.10,2001:db8::10@Helsinki", "hel1=203.0.113.11@Helsinki",
		"nyc1=203.0.113.10@New York", "nyc1=8.8.8.8", "", "ops", "ops@example.com"}
	out, err := runInit(t, strings.Join(answers, "\n")+"\n", "--no-origin-check", "--dir", dir)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, told := range []string{`"www.example.com" is a host`, `origin: "" is not an origin`,
		`origin: "ftp://x.example" is not an origin`, "origin: the name example.com will lead to the edges",
		"a fleet has at least one machine",
		`node "hel1": want`, "the name hel1 is already taken", "203.0.113.10 is already the address of node hel1",
		`"ops" is not an e-mail address`} {
		if strings.Count(out, "  "+told) != 1 {
			t.Errorf("%q is not told once:\n%s", told, out)
		}
	}
	if want := "nyc1: its place is the centre of population of US, guessed from its address (38.5,-87); if that is wrong, correct its location in fleet.yaml\n"; strings.Count(out, want) != 1 {
		t.Errorf("%q is not told once:\n%s", want, out)
	}
	text := readFile(t, dir, "fleet.yaml")
	for _, want := range []string{"    hosts: [example.com, www.example.com]\n",
		`servers: ["https://origin.example.net"]`, "      health: { path: / } ",
		"location: [60.17, 24.94]   # Helsinki\n",
		`addresses: ["203.0.113.10", "2001:db8::10"]`,
		"location: [38.5, -87]   # the centre of population of US, guessed from its address\n", "stale_if_error",
		`email: "ops@example.com"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the fleet file has no %q:\n%s", want, text)
		}
	}
	if n := strings.Count(text, "\n"); n >= 40 {
		t.Errorf("the first file has %d lines", n)
	}
	zone := readFile(t, dir, "example.com.zone")
	for _, want := range []string{"\nns1  IN A 203.0.113.10\nns1  IN AAAA 2001:db8::10\nns2  IN A 8.8.8.8\n",
		"\n; @    IN MX ", "\n; @    IN TXT "} {
		if !strings.Contains(zone, want) {
			t.Errorf("the zone has no %q:\n%s", want, zone)
		}
	}
	var said bytes.Buffer
	failed := run(t.Context(), []string{"check", "--offline", filepath.Join(dir, "fleet.yaml")}, io.Discard, &said)
	told := said.String()
	if failed != nil || strings.Contains(strings.ReplaceAll(told, "without an IPv6 address", ""), "warning: ") &&
		!strings.Contains(told, "1 edge of 2") {
		t.Errorf("check: %v\n%s", failed, told)
	}
}

// respond returns a handler that gives one response. HERE in a field is the origin's own URL.
func respond(status int, header map[string]string, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for k, v := range header {
			w.Header().Set(k, strings.ReplaceAll(v, "HERE",
				"http://"+r.Context().Value(http.LocalAddrContextKey).(fmt.Stringer).String()))
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// originAnswers has responses of an origin, what init prints about them, and a part of the fleet
// file that it writes. init queries the origin as an edge does. Whatever the origin answers, init
// writes the files.
var originAnswers = []struct {
	name    string
	handler http.HandlerFunc
	want    []string
	file    string
}{
	{"a page and a file of it", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Host != "www.example.com":
			http.Error(w, "no such site", http.StatusMisdirectedRequest)
		case r.URL.Path == "/":
			respond(200, map[string]string{"Cache-Control": "no-cache", "ETag": `"1"`},
				`<link rel=stylesheet href="/a.css?v=1"><img src="//other.example/b.png">`)(w, r)
		case r.URL.Path == "/a.css":
			respond(200, map[string]string{"Cache-Control": "public, max-age=86400"}, "a")(w, r)
		}
	}, []string{"  it answers / with 200",
		"  / will be stored, but revalidated with the origin for every request: Cache-Control: no-cache",
		"  /a.css will be cached for 1 day: Cache-Control: public, max-age=86400"}, "      health: { path: / } "},
	{"nothing of caching", respond(200, nil, ""), []string{
		"  / will be fetched from the origin for every request: it sends no Cache-Control (a lifetime of 0 and no validator); make it send Cache-Control: max-age=…, or set cache.default_ttl in fleet.yaml"}, "health: { path: / } "},
	{"what may not be cached", respond(200, map[string]string{"Cache-Control": "private"}, ""),
		[]string{"  / will be fetched from the origin for every request: Cache-Control: private (private (RFC 9111, 5.2.2.7))"}, ""},
	{"a date alone", respond(200, map[string]string{
		"Last-Modified": time.Now().Add(-20 * time.Hour).UTC().Format(http.TimeFormat)}, ""), []string{
		"  / will be cached for 2 hours, a tenth of the time since its Last-Modified: it sends no Cache-Control"}, ""},
	{"no page", respond(403, nil, ""),
		[]string{"  it answers / with 403",
			"  a health check of / would find the server unhealthy: set another path for origin.health in fleet.yaml"},
		"      # health: { path: /health }        # the origin answers 403 to /: name a path that it answers with 200\n"},
	{"a redirect to the site", respond(301, map[string]string{"Location": "https://www.example.com/"}, ""),
		[]string{
			"  that is a redirect to https://www.example.com/, which will lead to the edges: if the origin redirects every request like this, visitors end in a loop; see Host in docs/origins.md"}, "health: { path: / } "},
	{"a redirect to itself", respond(302, map[string]string{"Location": "/start"}, ""),
		[]string{"/start: visitors who follow it leave the edges; see Host in docs/origins.md"}, ""},
	{"a redirect elsewhere", respond(302, map[string]string{"Location": "https://other.example/"}, ""),
		[]string{"  that is a redirect to https://other.example/: visitors who follow it leave the edges"}, ""},
}

func TestInitLooksAtTheOrigin(t *testing.T) {
	for _, c := range originAnswers {
		t.Run(c.name, func(t *testing.T) {
			s := httptest.NewServer(c.handler)
			defer s.Close()
			initFor(t, s.URL, c.want, c.file)
		})
	}
	certs := t.TempDir()
	writeCertificates(t, certs, "localhost")
	plain := httptest.NewServer(nil)
	t.Cleanup(plain.Close)
	for _, c := range []struct{ name, origin, want string }{
		{"nothing listens", "http://" + freeport.Addr(t), "  it does not answer this machine: nothing listens on "},
		{"a certificate of an unknown authority", secureOrigin(t, certs, "localhost"),
			"  it does not answer this machine: the certificate of https://localhost:"},
		{"no TLS", strings.Replace(plain.URL, "http:", "https:", 1),
			" speaks plain HTTP: write http:// in origin.servers"},
	} {
		t.Run(c.name, func(t *testing.T) { initFor(t, c.origin, []string{c.want}, "      health: { path: / } ") })
	}
	t.Run("a certificate of a trusted authority", func(t *testing.T) { initTrusted(t, certs) })
	t.Run("a name below the domain that does not exist yet", func(t *testing.T) {
		out, err := runInit(t, "", "--domain", "localhost.example", "--origin", "http://origin.localhost.example:1",
			"--node", "hel1=203.0.113.10@Helsinki", "--dir", t.TempDir())
		if err != nil || !strings.Contains(out, "add its A and AAAA records to localhost.example.zone") {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// initFor runs init for an origin, and checks what it prints and a part of its fleet file.
func initFor(t *testing.T, origin string, wants []string, file string) {
	t.Helper()
	dir := t.TempDir()
	out, err := runInit(t, "", "--domain", "example.com", "--origin", origin, "--node", "hel1=203.0.113.10@Helsinki",
		"--dir", dir)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	next := "\nnext: kaiku check "
	if strings.Contains(out, "it does not answer") {
		next = "\nnext: start the origin, or correct its URL in " + filepath.Join(dir, "fleet.yaml") +
			"; then kaiku check "
	}
	for _, want := range append(wants, "origin "+origin+":\n", next) {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if text := readFile(t, dir, "fleet.yaml"); !strings.Contains(text, file) {
		t.Errorf("the fleet file has no %q:\n%s", file, text)
	}
}

// initTrusted runs init in a process that trusts the test's authority. The output has the expiry of
// the origin's certificate.
func initTrusted(t *testing.T, certs string) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+filepath.Join(certs, "ca.pem"),
		"KAIKU_TEST_ARGS="+strings.Join([]string{"init", "--domain", "example.com", "--origin",
			secureOrigin(t, certs, "localhost"), "--node", "hel1=203.0.113.10@Helsinki", "--dir", t.TempDir()}, "\n"))
	out, err := cmd.CombinedOutput()
	want := regexp.MustCompile(
		`  it answers / with 200; its certificate is valid until \d{4}-\d\d-\d\d, for \d+ minutes more\n`)
	if err != nil || !want.Match(out) ||
		!strings.Contains(string(out), "/ will be cached for 1 minute: Cache-Control: max-age=60\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestCities(t *testing.T) {
	last := ""
	for line := range strings.SplitSeq(cityList, "\n") {
		f := strings.Fields(line)
		name := strings.Join(f[:len(f)-2], " ")
		place, known, near := city(strings.ToUpper(name))
		if known != name || near != "" || !(place[0] > -60 && place[0] < 75 && place[1] > -180 && place[1] < 180) ||
			fmt.Sprintf("%.2f %.2f", place[0], place[1]) != f[len(f)-2]+" "+f[len(f)-1] {
			t.Errorf("%s: %v, %q, %q", name, place, known, near)
		}
		if name <= last {
			t.Errorf("%s is not in order", name)
		}
		last = name
	}
	if _, known, _ := city("new-york"); known != "New York" {
		t.Errorf("new-york is %q", known)
	}
}
