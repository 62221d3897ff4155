//go:build real

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/freeport"
)

// The tests in this file run edges with TLS against curl, h2load and openssl s_client.

// secureEdge is an edge in a process of its own. It serves www.example.com with a certificate from
// the authority in ca.pem.
type secureEdge struct {
	*process
	http, https, admin string // addresses
}

// secureSite is the site of the TLS tests.
const secureSite = `{ name: www, hosts: [www.example.com, localhost], https: { redirect: true, hsts: { max_age: 8760h } }, origin: { servers: ["%s"] } }`

// startSecureEdges runs an edge for each name. dir is from fleetDir.
func startSecureEdges(t *testing.T, bin, dir string, origin string, names ...string) []secureEdge {
	t.Helper()
	var edges []secureEdge
	nodes := ""
	for i, name := range names {
		e := secureEdge{http: freeport.Addr(t), https: freeport.Addr(t), admin: freeport.Addr(t)}
		edges = append(edges, e)
		nodes += fmt.Sprintf("  %s: { roles: [edge], location: [0, 0], addresses: [127.0.0.%d], edge: { http: %q, https: %q, admin: %q, data: %s/%[1]s } }\n",
			name, i+1, e.http, e.https, e.admin, dir)
	}
	text := "sites: [" + fmt.Sprintf(secureSite, origin) + "]\nnodes:\n" + nodes + `
edge: { disk: 256MiB }
tls: { certificates: [{ cert: www.example.com.pem, key: www.example.com.key }, { cert: localhost.pem, key: localhost.key }] }
secrets: { fleet_key: fleet.key }
`
	config := filepath.Join(dir, "fleet.yaml")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		edges[i].process = startProcess(t, bin, "edge", "--config", config, "--node", name)
	}
	for _, e := range edges {
		waitFor(t, e.https)
	}
	return edges
}

// fleetDir makes a folder with an authority, certificates from it, and a fleet key.
func fleetDir(t *testing.T, key string) string {
	t.Helper()
	dir := t.TempDir()
	writeCertificates(t, dir, "www.example.com", "localhost")
	if err := os.WriteFile(filepath.Join(dir, "fleet.key"), []byte(strings.Repeat(key, 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// port returns the port of an address.
func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}

// filesOrigin serves files by their paths, also ranges of them, and counts requests.
func filesOrigin(t *testing.T, files map[string][]byte) (url string, requests *atomic.Int64) {
	t.Helper()
	requests = &atomic.Int64{}
	modified := time.Now().Add(-time.Hour)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		body, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "max-age=3600")
		w.Header().Set("ETag", strconv.Quote(strconv.Itoa(len(body))))
		http.ServeContent(w, r, r.URL.Path, modified, bytes.NewReader(body))
	}))
	t.Cleanup(s.Close)
	return s.URL, requests
}

// curlError returns the exit code and message of a curl command, which must fail.
func curlError(t *testing.T, args ...string) (int, string) {
	t.Helper()
	out, err := exec.Command(need(t, "curl"), append([]string{"-sS", "--max-time", "20"}, args...)...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Errorf("curl %v: want an error, got %v:\n%s", args, err, out)
		return 0, ""
	}
	return exit.ExitCode(), string(out)
}

// curled is an edge with TLS, to which curl sends requests, in front of an origin with two files.
type curled struct {
	edge secureEdge
	dir  string // of the certificates
	body []byte // of /b.bin
}

// at returns the arguments of curl for a path.
func (c *curled) at(path string, more ...string) []string {
	args := []string{"--cacert", filepath.Join(c.dir, "ca.pem"), "--connect-to", "::127.0.0.1:"}
	return append(append(args, more...), "https://www.example.com:"+port(c.edge.https)+path)
}

func TestRealCurl(t *testing.T) {
	bin, dir := kaikuBinary(t), fleetDir(t, "a")
	c := &curled{dir: dir, body: bytes.Repeat([]byte("kaiku "), 100_000)}
	origin, _ := filesOrigin(t, map[string][]byte{"/a.css": []byte("a{}\n"), "/b.bin": c.body})
	c.edge = startSecureEdges(t, bin, dir, origin, "hel1")[0]
	protocols := map[string]string{"--http1.1": "HTTP/1.1", "--http2": "HTTP/2"}
	if out, err := exec.Command(need(t, "curl"), "-V").Output(); err == nil &&
		regexp.MustCompile(`(?m)^Features:.* HTTP3`).Match(out) {
		protocols["--http3-only"] = "HTTP/3"
	}
	for flag, version := range protocols {
		t.Run(version, func(t *testing.T) { c.requests(t, flag, version) })
	}
	t.Run("redirect", c.redirect)
	t.Run("refused", c.refused)
	for _, version := range []string{"1.2", "1.3"} {
		head, _ := curl(t, c.at("/a.css", "--tls-max", version, "--tlsv"+version)...)
		wantHead(t, "TLS "+version, head, "^HTTP/2 200")
	}
}

// requests sends many kinds of requests over one version of HTTP.
func (c *curled) requests(t *testing.T, flag, version string) {
	for range 2 {
		head, got := curl(t, c.at("/b.bin", flag)...)
		wantHead(t, flag, head, `^`+version+` 200`)
		if got != string(c.body) {
			t.Errorf("%s: the body differs", flag)
		}
	}
	head, _ := curl(t, c.at("/b.bin", flag)...)
	wantHead(t, flag, head, `(?m)^cache-status: hel1; hit`)
	wantHead(t, flag, head, `(?m)^strict-transport-security: max-age=31536000\r?$`)
	wantHead(t, flag, head, `(?m)^alt-svc: h3=":`+port(c.edge.https)+`"; ma=86400\r?$`)
	head, got := curl(t, c.at("/b.bin", flag, "-r", "500-599")...)
	wantHead(t, flag+" range", head, `(?s)^`+version+` 206.*content-range: bytes 500-599/600000`)
	if got != string(c.body[500:600]) {
		t.Errorf("%s: the range is %q", flag, got)
	}
	head, got = curl(t, c.at("/b.bin", flag, "-r", "0-5,599994-599999")...)
	wantHead(t, flag+" two ranges", head, `(?s)^`+version+` 206.*content-type: multipart/byteranges`)
	if strings.Count(got, "kaiku ") != 2 {
		t.Errorf("%s: two ranges are %q", flag, got)
	}
	head, _ = curl(t, c.at("/b.bin", flag, "-r", "600000-")...)
	wantHead(t, flag+" range after the end", head, `(?s)^`+version+` 416.*content-range: bytes \*/600000`)
	head, _ = curl(t, c.at("/b.bin", flag, "-H", `If-None-Match: "600000"`)...)
	wantHead(t, flag+" conditional", head, `^`+version+` 304`)
	head, got = curl(t, c.at("/b.bin", flag, "--head")...)
	wantHead(t, flag+" HEAD", head, `(?s)^`+version+` 200.*content-length: 600000`)
	if got != "" {
		t.Errorf("%s: HEAD has a body", flag)
	}
	head, _ = curl(t, c.at("/form", flag, "-d", "a=b")...)
	wantHead(t, flag+" POST", head, `^`+version+` 404`)
	head, _ = curl(t, c.at("/a.css", flag, "-H", "Host: other.example.com")...)
	wantHead(t, flag+" a Host of no site", head, `^`+version+` 421`)
}

// redirect checks the redirect from plain HTTP to HTTPS. Strict-Transport-Security is sent only
// over TLS (RFC 6797, section 7.2).
func (c *curled) redirect(t *testing.T) {
	plain := "http://www.example.com/a.css?x=%2F"
	args := []string{"--cacert", filepath.Join(c.dir, "ca.pem"), "--connect-to", "www.example.com:80:" + c.edge.http,
		"--connect-to", "::127.0.0.1:"}
	head, _ := curl(t, append(args, plain)...)
	wantHead(t, "redirect", head,
		`(?s)^HTTP/1.1 308.*location: https://www.example.com:`+port(c.edge.https)+`/a.css\?x=%2F`)
	if strings.Contains(strings.ToLower(head), "strict-transport-security") {
		t.Errorf("HSTS over plain HTTP:\n%s", head)
	}
	_, after := curl(t, append(args, "-L", plain)...)
	wantHead(t, "after the redirect", after, `(?s)^HTTP/2 200.*a\{\}\n$`)
}

// refused does handshakes that must fail.
func (c *curled) refused(t *testing.T) {
	for _, refused := range []struct {
		what    string
		code    int
		message string
		args    []string
	}{
		{"a name of no certificate", 35, "unrecognized name",
			[]string{"-k", "--connect-to", "::127.0.0.1:", "https://unknown.example.com:" + port(c.edge.https) + "/"}},
		{"no name", 35, "unrecognized name", []string{"-k", "https://" + c.edge.https + "/"}},
		{"TLS 1.1", 35, "protocol version", c.at("/", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0",
			"--tlsv1.0")},
		{"a suite without forward secrecy", 35, "handshake failure",
			c.at("/", "--tls-max", "1.2", "--ciphers", "AES128-GCM-SHA256")},
		{"an authority that is not trusted", 60, "certificate",
			[]string{"--connect-to", "::127.0.0.1:", "https://www.example.com:" + port(c.edge.https) + "/"}},
	} {
		if code, out := curlError(t, refused.args...); code != refused.code || !strings.Contains(out, refused.message) {
			t.Errorf("%s: exit code %d, want %d and %q in %q", refused.what, code, refused.code, refused.message, out)
		}
	}
}

func TestRealH2load(t *testing.T) {
	bin, dir := kaikuBinary(t), fleetDir(t, "a")
	const size, n = 10_000, 20_000
	origin, requests := filesOrigin(t, map[string][]byte{"/a.bin": make([]byte, size)})
	e := startSecureEdges(t, bin, dir, origin, "hel1")[0]
	url := "https://www.example.com:" + port(e.https) + "/a.bin"
	curl(t, "--cacert", filepath.Join(dir, "ca.pem"), "--connect-to", "::127.0.0.1:", url)
	for _, protocol := range []string{"h2", "http/1.1"} {
		streams := "1"
		if protocol == "h2" {
			streams = "50"
		}
		out, err := exec.Command(need(t, "h2load"), "-n", strconv.Itoa(n), "-c", "20", "-m", streams, "-t", "1",
			"--npn-list", protocol,
			"--connect-to", e.https, url).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", protocol, err, out)
		}
		t.Logf("%s:\n%s", protocol, out)
		for _, want := range []string{fmt.Sprintf("%d total, %[1]d started, %[1]d done, %[1]d succeeded, 0 failed, 0 errored, 0 timeout", n), fmt.Sprintf("%d 2xx, 0 3xx, 0 4xx, 0 5xx", n),
			fmt.Sprintf("(%d) data", n*size), "Application protocol: " + protocol} {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: want %q in\n%s", protocol, want, out)
			}
		}
	}
	if got := requests.Load(); got != 1 {
		t.Errorf("the origin was asked %d times", got)
	}
}

// nghttp sends what other clients don't: padding, priorities of RFC 7540, CONTINUATION frames,
// small windows, and uploads that expect 100.
func TestRealNghttp(t *testing.T) {
	bin, dir := kaikuBinary(t), fleetDir(t, "a")
	const size, n = 100_000, 20
	origin, _ := filesOrigin(t, map[string][]byte{"/a.bin": make([]byte, size)})
	e := startSecureEdges(t, bin, dir, origin, "hel1")[0]
	// A response that comes before the upload's end may reset the rest with NO_ERROR.
	refused := regexp.MustCompile(`(?s)recv RST_STREAM frame[^\n]*\n +\(error_code=[^N(]`)
	upload := filepath.Join(t.TempDir(), "upload")
	if err := os.WriteFile(upload, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"-b", "255"}, {"-p", "256"}, {"--continuation"}, {"-w", "14", "-W", "16"}, {"-c", "0"}, {"--no-rfc7540-pri"},
		{"-d", upload}, {"-d", upload, "--expect-continue"},
		{"-d", upload, "--no-content-length", "--trailer", "x-sum: 1"},
	} {
		args = append(args, "-nvy", "-m", strconv.Itoa(n), "-t", "20", "-H",
			":authority: www.example.com:"+port(e.https),
			"https://"+e.https+"/a.bin")
		out, err := exec.Command(need(t, "nghttp"), args...).CombinedOutput()
		if err != nil {
			t.Errorf("%v: %v\n%.2000s", args, err, out)
			continue
		}
		if got := strings.Count(string(out), ") :status: 200"); got != n || refused.Match(out) {
			t.Errorf("%v: %d responses of %d\n%.4000s", args, got, n, out)
		}
	}
}

// A TLS session from one edge resumes at another one, if both have the same fleet key.
func TestRealResumption(t *testing.T) {
	bin, dir := kaikuBinary(t), fleetDir(t, "a")
	origin, _ := filesOrigin(t, map[string][]byte{"/a.css": []byte("a{}\n")})
	edges := startSecureEdges(t, bin, dir, origin, "hel1", "nyc1")
	stranger := startSecureEdges(t, bin, fleetDir(t, "b"), origin, "hel1")[0]
	client := func(e secureEdge, args ...string) string {
		t.Helper()
		c := exec.Command(need(t, "openssl"),
			append([]string{"s_client", "-connect", e.https, "-servername", "www.example.com", "-ign_eof"}, args...)...)
		c.Stdin = strings.NewReader("GET /a.css HTTP/1.1\r\nHost: www.example.com:" + port(e.https) +
			"\r\nConnection: close\r\n\r\n")
		out, err := c.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "HTTP/1.1 200 OK") {
			t.Fatalf("s_client %v: %v\n%s", args, err, out)
		}
		return regexp.MustCompile(`(?m)^(New|Reused), TLSv1\.\d`).FindString(string(out))
	}
	for version, name := range map[string]string{"-tls1_2": "TLSv1.2", "-tls1_3": "TLSv1.3"} {
		session := filepath.Join(t.TempDir(), "session.pem")
		for _, step := range []struct {
			what string
			edge secureEdge
			flag string
			want string
		}{
			{"first", edges[0], "-sess_out", "New, "},
			{"the same edge", edges[0], "-sess_in", "Reused, "},
			{"another edge", edges[1], "-sess_in", "Reused, "},
			{"an edge of another fleet", stranger, "-sess_in", "New, "},
		} {
			if got := client(step.edge, version, step.flag, session); got != step.want+name {
				t.Errorf("%s, %s: %q, want %q", version, step.what, got, step.want+name)
			}
		}
	}
}
