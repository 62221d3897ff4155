//go:build real

package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/admin"
)

// serveHTTP10 answers every request over TLS with an HTTP/1.0 response that ends with
// the connection.
func serveHTTP10(t *testing.T, addr, cert, key string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", addr, &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				status := "200 OK"
				if r.Header.Get("X-Origin-Secret") != "s3cret" {
					status = "403 Forbidden"
				}
				_, _ = fmt.Fprintf(c, "HTTP/1.0 %s\r\nCache-Control: max-age=60\r\nX-From: old\r\n\r\n%s\n", status,
					r.URL.Path)
			}()
		}
	}()
}

// The addresses of the three origins of TestRealTLSOrigins.
const (
	http2Origin   = "127.0.0.1:18443" // nginx over HTTP/2, which requires a client certificate
	closingOrigin = "127.0.0.1:18444" // nginx, which closes the connection after each response
	http10Origin  = "127.0.0.1:18445"
)

// startNginxOrigins starts the two nginx origins. They log to access.log in dir.
func startNginxOrigins(t *testing.T, dir string) *process {
	t.Helper()
	site := func(listen, name, more string) string {
		return fmt.Sprintf(`server {
    listen %[1]s ssl http2; server_name origin.test; ssl_certificate %[2]s/origin.test.pem; ssl_certificate_key %[2]s/origin.test.key;
    %[4]s
    location / { if ($http_x_origin_secret != "s3cret") { return 403; } add_header Cache-Control max-age=60; add_header X-From %[3]s; return 200 "$uri\n"; }
  }
`, listen, dir, name, more)
	}
	conf := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log stderr;
events {}
http {
  log_format how '$http_host $server_protocol $connection_requests $uri';
  access_log %[1]s/access.log how;
  client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
`, dir) + site(http2Origin, "h2", fmt.Sprintf("ssl_client_certificate %s/ca.pem; ssl_verify_client on;", dir)) +
		strings.Replace(site(closingOrigin, "closing", "keepalive_timeout 0;"), " http2", "", 1) + "}\n"
	writeFiles(t, dir, map[string]string{"nginx.conf": conf})
	nginx := startProcess(t, need(t, "nginx"), "-c", filepath.Join(dir, "nginx.conf"), "-p", dir)
	waitFor(t, http2Origin)
	return nginx
}

// askTLSOrigins requests a path that no edge has. It returns the name of the origin that answered.
func askTLSOrigins(t *testing.T, path string) string {
	t.Helper()
	head, body := curl(t, "-H", "X-Origin-Secret: forged", "--connect-to", "::127.0.0.1:18088",
		"http://www.example.com"+path)
	if !strings.HasPrefix(head, "HTTP/1.1 200") || body != path+"\n" {
		t.Errorf("%s: %q in\n%s", path, body, head)
	}
	_, from, _ := strings.Cut(head, "X-From: ")
	from, _, _ = strings.Cut(from, "\r\n")
	return from
}

// Origins over TLS share the requests. Each connection follows the protocol of its origin.
func TestRealTLSOrigins(t *testing.T) {
	bin := kaikuBinary(t)
	dir := t.TempDir()
	writeCertificates(t, dir, "origin.test", "edge.test")
	nginx := startNginxOrigins(t, dir)
	serveHTTP10(t, http10Origin, filepath.Join(dir, "origin.test.pem"), filepath.Join(dir, "origin.test.key"))
	writeFiles(t, dir, map[string]string{"secret": "s3cret\n", "fleet.yaml": fmt.Sprintf(`
sites:
  - name: www
    hosts: [www.example.com]
    origin:
      servers: ["https://%s", "https://%s", "https://%s"]
      host: origin.test
      ca: ca.pem
      client_certificate: { cert: edge.test.pem, key: edge.test.key }
      auth: { header: X-Origin-Secret, secret: secret }
      health: { path: /healthy, interval: 200ms, timeout: 200ms, status: 200, match: healthy }
nodes:
  hel1: { roles: [edge], location: [0, 0], addresses: [127.0.0.1], edge: { http: "127.0.0.1:18088", admin: "127.0.0.1:19088", data: %s/data, disk: 256MiB } }
`, http2Origin, closingOrigin, http10Origin, dir)})
	startProcess(t, bin, "edge", "--config", filepath.Join(dir, "fleet.yaml"), "--node", "hel1")
	waitFor(t, "127.0.0.1:18088")

	from := map[string]int{}
	for i := range 60 {
		from[askTLSOrigins(t, fmt.Sprintf("/%d", i))]++
	}
	for _, name := range []string{"h2", "closing", "old"} {
		if from[name] != 20 {
			t.Errorf("%s answered %d of 60: %v", name, from[name], from)
		}
	}
	log := readFile(t, dir, "access.log")
	if !strings.Contains(log, "origin.test HTTP/2.0 19 ") || strings.Contains(log, "HTTP/1.1 2 ") {
		t.Errorf("connections were not used as the servers want it:\n%s", log)
	}
	checkReused(t, bin)

	_ = nginx.end(t, syscall.SIGKILL)
	for i := range 30 {
		if got := askTLSOrigins(t, fmt.Sprintf("/without-nginx/%d", i)); got != "old" {
			t.Errorf("without nginx %q answered", got)
		}
	}
}

// checkReused checks the status and metrics of the three origins: only connections to the first one
// are reused.
func checkReused(t *testing.T, bin string) {
	t.Helper()
	out, err := exec.Command(bin, "status", "--json", "--admin", "127.0.0.1:19088").Output()
	if err != nil {
		t.Fatal(err)
	}
	var st admin.Status
	if err := json.Unmarshal(out, &st); err != nil {
		t.Fatal(err)
	}
	if s := st.Origins[0].Servers; s[0].Reused < 19 || s[1].Reused != 0 || s[2].Reused != 0 {
		t.Errorf("reused connections: %+v", s)
	}
	metrics, err := http.Get("http://127.0.0.1:19088/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer metrics.Body.Close()
	text, err := io.ReadAll(metrics.Body)
	if err != nil || !strings.Contains(string(text), `kaiku_origin_up{server="https://`+http2Origin+`",site="www"} 1`) {
		t.Errorf("metrics, error %v:\n%s", err, text)
	}
}
