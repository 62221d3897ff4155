//go:build real

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// The tests in this file run the built program with programs from Debian: nginx as the origin, dig
// and curl as clients. A missing program fails the test.

func TestRealEdgeWithFlags(t *testing.T) {
	bin := kaikuBinary(t)
	files, log := nginxOrigin(t, "127.0.0.1:18000")
	data := t.TempDir()
	args := []string{"edge", "--origin", "http://127.0.0.1:18000", "--listen", "127.0.0.1:18080", "--data", data,
		"--admin", "127.0.0.1:19080"}
	edge := startProcess(t, bin, args...)
	waitFor(t, "127.0.0.1:18080")
	base := "http://127.0.0.1:18080"

	for _, f := range []string{"/a.css", "/b.js", "/c.bin"} {
		want, err := os.ReadFile(files + f)
		if err != nil {
			t.Fatal(err)
		}
		head, _ := curl(t, base+f)
		wantHead(t, f, head, `cache-status: kaiku; fwd=uri-miss`)
		for range 2 {
			var body string
			head, body = curl(t, base+f)
			wantHead(t, f, head, `(?s)age: \d.*cache-status: kaiku; hit`)
			if body != string(want) {
				t.Errorf("%s: the body differs", f)
			}
		}
		if strings.Contains(strings.ToLower(head), "surrogate-key") {
			t.Errorf("%s: clients see the tags", f)
		}
		head, body := curl(t, "-r", "500-599", base+f)
		wantHead(t, f+" range", head, `(?s)^HTTP/1.1 206.*content-range: bytes 500-599/`+fmt.Sprint(len(want)))
		if body != string(want[500:600]) {
			t.Errorf("%s: the range differs", f)
		}
		etag := regexp.MustCompile(`(?i)etag: (\S+)`).FindStringSubmatch(head)
		if etag == nil {
			t.Fatalf("no ETag in %s", head)
		}
		head, _ = curl(t, "-H", "If-None-Match: "+etag[1], base+f)
		wantHead(t, f+" conditional", head, `^HTTP/1.1 304`)
		if n := asked(t, log, f); n != 1 {
			t.Errorf("%s: the origin was asked %d times", f, n)
		}
	}
	for range 2 {
		head, _ := curl(t, base+"/never/x")
		wantHead(t, "no-store", head, `fwd=uri-miss`)
	}

	if out, err := exec.Command(bin, "purge", "--admin", "http://127.0.0.1:19080",
		base+"/a.css").CombinedOutput(); err != nil {
		t.Fatalf("purge: %v\n%s", err, out)
	}
	head, _ := curl(t, base+"/a.css")
	wantHead(t, "after the purge", head, `fwd=uri-miss`)
	head, _ = curl(t, base+"/b.js")
	wantHead(t, "not purged", head, `; hit`)

	_ = edge.end(t, syscall.SIGKILL)
	edge = startProcess(t, bin, args...)
	waitFor(t, "127.0.0.1:18080")
	for _, f := range []string{"/a.css", "/b.js", "/c.bin"} {
		want, _ := os.ReadFile(files + f)
		head, body := curl(t, base+f)
		wantHead(t, f+" after kill -9", head, `; hit`)
		if body != string(want) {
			t.Errorf("%s after kill -9: the body differs", f)
		}
	}

	out, err := exec.Command(bin, args...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), data) {
		t.Errorf("a second edge on the same folder: %v\n%s", err, out)
	}
	if err := edge.end(t, syscall.SIGTERM); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
}

// digFleet is the fleet of TestRealFleetWithDig. Its data is in the folder %[1]s.
const digFleet = `
sites: [{ name: www, hosts: [www.example.com], origin: { servers: ["http://127.0.0.1:18001"] } }]
nodes:
  hel1:
    roles: [edge]
    location: [60.17, 24.94]
    addresses: [127.0.0.31]
    edge: { http: "127.0.0.31:18081", admin: "127.0.0.31:19081", data: %[1]s/hel1 }
  nyc1:
    roles: [edge, geodns]
    location: [40.71, -74.01]
    addresses: [127.0.0.32]
    edge: { http: "127.0.0.32:18081", admin: "127.0.0.32:19081", data: %[1]s/nyc1 }
edge: { disk: 1GiB }
geodns:
  listen: "127.0.0.1:15300"
  zones: [{ name: example.com, file: example.com.zone, edges: { www: { ttl: 5s } } }]
`

const finnish, american = "193.166.0.0/16", "128.112.0.0/16"

// digEdges has the edges' addresses by the network of the clients that must get them.
var digEdges = map[string]string{finnish: "127.0.0.31", american: "127.0.0.32"}

func TestRealFleetWithDig(t *testing.T) {
	bin := kaikuBinary(t)
	_, log := nginxOrigin(t, "127.0.0.1:18001")
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"fleet.yaml": fmt.Sprintf(digFleet, dir),
		"example.com.zone": readFile(t, "config/testdata/example.com.zone")})
	config := filepath.Join(dir, "fleet.yaml")
	hel := startProcess(t, bin, "edge", "--config", config, "--node", "hel1")
	waitFor(t, "127.0.0.31:18081") // before the name server checks its health
	startProcess(t, bin, "serve", "--config", config, "--node", "nyc1")
	waitFor(t, "127.0.0.32:18081")
	waitFor(t, "127.0.0.1:15300")

	t.Run("each network gets its edge", digNearest)
	t.Run("each edge asks the origin once", func(t *testing.T) { curlEdges(t, log) })
	t.Run("names of the zone file", digZone)
	t.Run("an edge that stops", func(t *testing.T) {
		if err := hel.end(t, syscall.SIGTERM); err != nil {
			t.Errorf("SIGTERM: %v", err)
		}
		testwait.Until(t, "name servers send its clients to the other edge", func() bool {
			return strings.Contains(dig(t, "www.example.com", "+subnet="+finnish, "+short"), digEdges[american])
		})
	})
	t.Run("a changed fleet file", func(t *testing.T) {
		good := fmt.Sprintf(digFleet, dir)
		for _, step := range []struct{ text, ttl string }{
			{strings.Replace(good, "ttl: 5s", "ttl: 7s", 1), "7"},
			{"nonsense: true", "7"}, // is refused
			{strings.Replace(good, "ttl: 5s", "ttl: 9s", 1), "9"}} {
			writeFiles(t, dir, map[string]string{"fleet.yaml": step.text})
			testwait.Until(t, "the TTL is "+step.ttl, func() bool {
				return regexp.MustCompile(`(?m)^www\.example\.com\.\s+` + step.ttl + `\s`).
					MatchString(dig(t, "www.example.com"))
			})
		}
	})
}

// digNearest queries an edge name as clients in two networks.
func digNearest(t *testing.T) {
	for network, want := range digEdges {
		for _, transport := range []string{"+notcp", "+tcp"} {
			out := dig(t, "www.example.com", "+subnet="+network, transport)
			if !regexp.MustCompile(`(?m)^www\.example\.com\.\s+5\s+IN\s+A\s+` + regexp.QuoteMeta(want) +
				`$`).MatchString(out) {
				t.Errorf("%s %s: want %s in\n%s", network, transport, want, out)
			}
			scope := regexp.MustCompile(`CLIENT-SUBNET: (\S+)/16/(\d+)`).FindStringSubmatch(out)
			if scope == nil || scope[2] == "0" {
				t.Errorf("%s %s: no ECS scope in\n%s", network, transport, out)
			}
		}
	}
}

// curlEdges requests a file twice from each edge. log is the origin's log.
func curlEdges(t *testing.T, log string) {
	for i, want := range []string{"fwd=uri-miss", "; hit"} {
		for _, addr := range digEdges {
			head, _ := curl(t, "--connect-to", "::"+addr+":18081", "http://www.example.com/b.js")
			wantHead(t, fmt.Sprint(addr, " request ", i), head, want)
		}
	}
	if n := asked(t, log, "/b.js"); n != 2 {
		t.Errorf("two edges asked the origin %d times", n)
	}
	head, _ := curl(t, "http://127.0.0.31:18081/")
	wantHead(t, "a Host of no site", head, "^HTTP/1.1 421")
}

// digZone queries names that are not edge names.
func digZone(t *testing.T) {
	for query, want := range map[string]string{
		"mail.example.com": "192.0.2.99", "x.dev.example.com": "192.0.2.98",
	} {
		if out := dig(t, query, "+short"); strings.TrimSpace(out) != want {
			t.Errorf("%s: got %s", query, out)
		}
	}
	for query, want := range map[string]string{"none.example.com": "NXDOMAIN", "ent.example.com": "NOERROR",
		"example.org": "REFUSED"} {
		if out := dig(t, query); !strings.Contains(out, "status: "+want) {
			t.Errorf("%s: want %s in\n%s", query, want, out)
		}
	}
}

// Every command that the demo prints works when pasted, and does what the line above it says. That
// holds whether or not its preferred ports are free.
func TestRealDemo(t *testing.T) {
	if !inWorld() {
		runInWorld(t)
		return
	}
	w := newNetwork(t)
	t.Run("once", func(t *testing.T) {
		out := w.kaiku(t, "demo", "--once")
		for _, want := range []string{"Finland  hel1", "USA      nyc1", "hit"} {
			if !strings.Contains(out, want) {
				t.Errorf("want %q in\n%s", want, out)
			}
		}
	})
	t.Run("free", func(t *testing.T) { playDemo(t, w.bin) })
	t.Run("busy", func(t *testing.T) {
		busy := []string{"127.0.0.11:8080", "127.0.0.12:8080", "127.0.0.13:8080", "127.0.0.14:8080", "127.0.0.1:9000",
			"127.0.0.1:9081"}
		for _, addr := range busy {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
		}
		u, err := net.ListenPacket("udp", "127.0.0.1:5300")
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		playDemo(t, w.bin, append(busy, "127.0.0.1:5300")...)
	})
}

// playDemo runs the demo and the commands that it prints. The demo must report each busy address
// and its replacement.
func playDemo(t *testing.T, bin string, busy ...string) {
	dir := t.TempDir()
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	demo := exec.Command(bin, "demo")
	demo.Stdout = out
	if err := demo.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = demo.Process.Signal(os.Interrupt)
		if err := demo.Wait(); err != nil {
			t.Errorf("Ctrl-C: %v", err)
		}
	})
	text := ""
	testwait.Until(t, "the demo says how it ends", func() bool {
		text = readFile(t, out.Name())
		return strings.Contains(text, "Ctrl-C")
	})
	t.Log(text)
	for _, addr := range busy {
		if !regexp.MustCompile(` is at 127\.0\.0\.1\d?:\d+ instead of ` + addr +
			`: another program uses that address\.\n`).MatchString(text) {
			t.Errorf("it does not say that %s is busy", addr)
		}
		if rest := strings.Replace(text, "instead of "+addr, "", 1); strings.Contains(rest, addr) {
			t.Errorf("it names %s, which is another program's", addr)
		}
	}
	if n := strings.Count(text, "instead of"); n != len(busy) {
		t.Errorf("it says %d times that an address is another one, want %d", n, len(busy))
	}
	s := newDocShell(t, bin)
	finland := "" // the command that queries as a client in Finland
	const picture = `^HTTP/1\.1 200 `
	checks := []docCheck{
		soon(`^127\.0\.0\.11$`), soon(`^127\.0\.0\.12$`),
		twice(picture+`[\s\S]*^Cache-Status: hel1; fwd=uri-miss`, picture+`[\s\S]*^Cache-Status: hel1; hit`),
		twice(picture+`[\s\S]*^Cache-Status: nyc1; fwd=uri-miss`, picture+`[\s\S]*^Cache-Status: nyc1; hit`),
		prints(picture), prints(picture),
		prints(`^purged`), prints(`^purged`), prints(`^kaiku_`),
		func(t *testing.T, s *docShell, command, _ string) {
			prints(`^hel1: stop done$`).then(soon(`^127\.0\.0\.12$`), finland)(t, s, command, "")
		},
		func(t *testing.T, s *docShell, command, _ string) {
			prints(`^hel1: start done$`).then(soon(`^127\.0\.0\.11$`), finland)(t, s, command, "")
		},
	}
	pages := regexp.MustCompile(`In a browser\s+the site +(http://\S+)\s+the fleet, on a map +(http://\S+)`).
		FindStringSubmatch(text)
	if pages == nil {
		t.Fatal("there are no pages for the browser")
	}
	prints(`<title>Kaiku demo`)(t, s, "curl -sS "+pages[1], "")
	prints(`<title>Kaiku`)(t, s, "curl -sS "+pages[2], "")
	n := 0
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !regexp.MustCompile(`^(dig|curl|` + regexp.QuoteMeta(bin) + `) `).MatchString(line) {
			continue
		}
		if n == len(checks) {
			t.Fatalf("there is no check of %s", line)
		}
		if n == 0 {
			finland = line
		}
		checks[n](t, s, line, "")
		n++
	}
	if n != len(checks) {
		t.Errorf("%d lines, %d checks", n, len(checks))
	}
}
