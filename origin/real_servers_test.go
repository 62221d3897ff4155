//go:build real

package origin

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// A realServer is a server program that serves the files of a folder at addr. cert is the folder of
// cert.pem and key.pem for TLS, or "".
type realServer struct {
	name  string
	start func(t *testing.T, files, addr, cert string)
}

var realServers = []realServer{
	{"nginx", startNginx},
	{"Apache", startApache},
	{"Node", func(t *testing.T, files, addr, cert string) {
		startProgram(t, "node", "-e", nodeServer, files, portOf(addr), cert)
	}},
	{"Go", startGo},
	{"Python", func(t *testing.T, files, addr, cert string) {
		startProgram(t, "python3", "-c", pythonServer, files, portOf(addr), cert, "HTTP/1.1")
	}},
	{"HTTP/1.0", func(t *testing.T, files, addr, cert string) {
		startProgram(t, "python3", "-c", pythonServer, files, portOf(addr), cert, "HTTP/1.0")
	}},
}

const nodeServer = `
const fs = require('fs'), path = require('path')
const [files, port, cert] = process.argv.slice(1)
const handle = (q, a) => {
  if (q.method != 'GET' && q.method != 'HEAD') {
    let n = 0
    q.on('data', d => n += d.length)
    q.on('end', () => a.end(String(n)))
    return
  }
  fs.readFile(path.join(files, q.url), (err, data) => {
    if (err) { a.statusCode = 404; return a.end() }
    a.end(data)
  })
}
if (cert) require('https').createServer({cert: fs.readFileSync(cert + '/cert.pem'),
  key: fs.readFileSync(cert + '/key.pem')}, handle).listen(port, '127.0.0.1')
else require('http').createServer(handle).listen(port, '127.0.0.1')
`

const pythonServer = `
import functools, http.server, ssl, sys
files, port, cert, protocol = sys.argv[1:]
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = protocol
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', int(port)), functools.partial(Handler, directory=files))
if cert:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert + '/cert.pem', cert + '/key.pem')
    server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
`

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// startProgram runs a program until the end of the test.
func startProgram(t *testing.T, name string, args ...string) {
	t.Helper()
	program, err := exec.LookPath(name)
	if err != nil {
		program = filepath.Join("/usr/sbin", name)
	}
	var out bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its workers end with it
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s, which Debian has: %v", name, err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s printed: %s", name, out.String())
		}
	})
}

func startNginx(t *testing.T, files, addr, cert string) {
	dir, secure := t.TempDir(), ""
	if cert != "" {
		secure = fmt.Sprintf("ssl_certificate %s/cert.pem; ssl_certificate_key %[1]s/key.pem;", cert)
		addr += " ssl"
	}
	conf := fmt.Sprintf(`daemon off; pid %s/pid; error_log stderr; user root; events {}
http { access_log off; client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fcgi;
uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
server { listen %s; root %s; %s } }`, dir, addr, files, secure)
	startWithConf(t, "nginx", conf, "-c")
}

func startApache(t *testing.T, files, addr, cert string) {
	dir, secure := t.TempDir(), ""
	if cert != "" {
		secure = fmt.Sprintf("LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so\nSSLEngine on\n"+
			"SSLCertificateFile %s/cert.pem\nSSLCertificateKeyFile %[1]s/key.pem\n", cert)
	}
	conf := fmt.Sprintf(`ServerName www.example
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
PidFile %s/pid
DefaultRuntimeDir %[1]s
ErrorLog /dev/stderr
Listen %s
DocumentRoot %s
User daemon
Group daemon
%s`, dir, addr, files, secure)
	startWithConf(t, "apache2", conf, "-X", "-f")
}

// startWithConf runs a program whose last argument is a file with the text conf.
func startWithConf(t *testing.T, name, conf string, args ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	startProgram(t, name, append(args, file)...)
}

func startGo(t *testing.T, files, addr, cert string) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.FileServer(http.Dir(files)))
	s.Listener.Close()
	s.Listener = l
	if cert == "" {
		s.Start()
	} else {
		pair, err := tls.LoadX509KeyPair(cert+"/cert.pem", cert+"/key.pem")
		if err != nil {
			t.Fatal(err)
		}
		s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
		s.StartTLS()
	}
	t.Cleanup(s.Close)
}

// realFiles writes the files that the servers serve, and a certificate.
func realFiles(t *testing.T) (files, cert string, roots *x509.CertPool) {
	files, cert = t.TempDir(), t.TempDir()
	pair, roots := selfSigned(t, time.Now().Add(time.Hour), "www.example")
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		files + "/small.txt": []byte("0123456789"),
		files + "/empty.txt": nil,
		files + "/large.bin": bytes.Repeat([]byte("0123456789abcdef"), 3<<16),
		cert + "/cert.pem":   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}),
		cert + "/key.pem":    pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	} {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return files, cert, roots
}

// Servers of many kinds give a pool the same responses as net/http's client, over connections that
// are kept where the server keeps them.
func TestRealServers(t *testing.T) {
	files, cert, roots := realFiles(t)
	for _, server := range realServers {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, TLS %t", server.name, secure), func(t *testing.T) {
				addr := freeAddr(t)
				p := &Pool{Servers: []Server{serverAt(t, "http://"+addr)}, Log: discardLog}
				if secure {
					p = &Pool{Servers: []Server{serverAt(t, "https://"+addr)}, Log: discardLog, SNI: "www.example",
						TLS: &tls.Config{RootCAs: roots}}
					server.start(t, files, addr, cert)
				} else {
					server.start(t, files, addr, "")
				}
				testwait.Until(t, "the server listens", func() bool {
					c, err := net.Dial("tcp", addr)
					if err == nil {
						c.Close()
					}
					return err == nil
				})
				compareClients(t, startPool(t, p), addr, roots)
			})
		}
	}
}

func freeAddr(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// compareClients sends requests through the pool and through net/http, and compares the outcomes.
func compareClients(t *testing.T, p *Pool, addr string, roots *x509.CertPool) {
	reference := &http.Transport{DisableCompression: true, TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}}
	defer reference.CloseIdleConnections()
	later := time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	for _, c := range []struct {
		method, path, field, value string
		body                       int
	}{
		{"GET", "/small.txt", "", "", 0},
		{"GET", "/large.bin", "", "", 0},
		{"HEAD", "/small.txt", "", "", 0},
		{"GET", "/empty.txt", "", "", 0},
		{"GET", "/missing.txt", "", "", 0},
		{"GET", "/small.txt", "If-Modified-Since", later, 0},
		{"GET", "/small.txt", "Range", "bytes=2-4", 0},
		{"POST", "/small.txt", "", "", 1000},
		{"POST", "/small.txt", "", "", -1000},
		{"POST", "/small.txt", "Expect", "100-continue", 1000},
		{"OPTIONS", "/small.txt", "", "", 0},
		{"GET", "/small.txt", "", "", 0},
	} {
		r := request(t, c.method, c.path, strings.Repeat("x", max(c.body, -c.body)))
		if c.body < 0 {
			r.ContentLength = -1
		}
		if c.field != "" {
			r.Header.Set(c.field, c.value)
		}
		got := outcome(p.Fetch(r.Clone(t.Context()), FetchOptions{}))
		r.URL.Scheme, r.URL.Host = p.Servers[0].URL.Scheme, "www.example"
		if r.Body != http.NoBody {
			r.Body = io.NopCloser(strings.NewReader(strings.Repeat("x", max(c.body, -c.body))))
		}
		if want := outcome(reference.RoundTrip(r)); got != want {
			t.Errorf("%s %s, %s: %s, a body of %d:\n%.300s\nnet/http has\n%.300s", c.method, c.path, c.field, c.value,
				c.body,
				got, want)
		}
	}
	noPlaceTaken(t, p)
	counts := p.Status().Servers[0].Counts
	t.Logf("%d requests on %d connections", counts.Requests, counts.Connections)
}

// outcome returns what a client sees of a response, except for what differs between equal requests.
func outcome(resp *http.Response, err error) string {
	if err != nil {
		return "an error"
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	for _, name := range []string{"Date", "Server", "Keep-Alive"} {
		resp.Header.Del(name)
	}
	return fmt.Sprintf("%d %s %d %v %v, error %t\n%s", resp.StatusCode, resp.Proto, resp.ContentLength, resp.Close,
		resp.Header, err != nil, body)
}
