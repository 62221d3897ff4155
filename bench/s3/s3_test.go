// Package s3 tests that an edge fetches from a private bucket. The program bin/kaiku asks a server
// that checks signatures. The package is a module of its own, to keep that server out of Kaiku's
// module.
package s3

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

const (
	keyID  = "AKIAIOSFODNN7EXAMPLE"
	secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	bucket = "assets"
)

// names are the names of objects, whose bodies are these too.
var names = []string{"plain.txt", "a b+c.txt", "ü/é.txt", "q?&=#.txt", "100%.txt", "%2F", "(a)!'*~$,;:@"}

// startServer starts a server with a bucket of objects. It returns its URL.
func startServer(t *testing.T) string {
	t.Helper()
	be, err := posix.New(t.TempDir(), meta.XattrMeta{}, posix.PosixOpts{})
	if err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- embedgw.RunVersityGW(ctx, be, &embedgw.Config{RootUserAccess: keyID, RootUserSecret: secret,
			Region: "eu-north-1", Ports: []string{addr}, VirtualDomain: "s3.example", Quiet: true, KeepAlive: true,
			MaxConnections: 1000, MaxRequests: 1000, MultipartMaxParts: 10000})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	url := "http://" + addr
	c := s3.New(s3.Options{BaseEndpoint: &url, Region: "eu-north-1", UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(keyID, secret, "")})
	for range 100 {
		if _, err = c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String(bucket)}); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	put := func(name, body string) {
		if _, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String(bucket), Key: aws.String(name),
			Body: bytes.NewReader([]byte(body))}); err != nil {
			t.Fatalf("put %s: %v", name, err)
		}
	}
	for _, name := range names {
		put(name, name)
	}
	put("big", big())
	return url
}

// freeAddr returns an address that nothing listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// program returns the path of kaiku.
func program() string {
	if p := os.Getenv("KAIKU"); p != "" {
		return p
	}
	return "../../bin/kaiku"
}

// startEdge starts an edge with sites for buckets of a server. It returns the addresses of its
// listeners for clients and for the administrator.
func startEdge(t *testing.T, server string) (clients, admin string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("key", "[default]\naws_access_key_id = "+keyID+"\naws_secret_access_key = "+secret+"\n")
	write("bad", "aws_access_key_id = "+keyID+"\naws_secret_access_key = x"+secret+"\n")
	write("none", "aws_access_key_id = AKIANOBODY\naws_secret_access_key = "+secret+"\n")
	clients, admin = freeAddr(t), freeAddr(t)
	var sites strings.Builder
	for name, s3 := range map[string]string{
		"path": "bucket: assets, credentials: key", "host": "bucket: assets, credentials: key, style: host",
		"bad": "bucket: assets, credentials: bad", "none": "bucket: assets, credentials: none",
		"nobucket": "bucket: others, credentials: key",
	} {
		host := ""
		if name == "host" {
			host = ", host: assets.s3.example"
		}
		fmt.Fprintf(&sites, "  - { name: %[1]s, hosts: [%[1]s.example], origin: { servers: [%[2]q]%[3]s, "+
			"s3: { region: eu-north-1, %[4]s } } }\n", name, server, host, s3)
	}
	write("fleet.yaml", "sites:\n"+sites.String()+fmt.Sprintf("nodes: { hel1: { roles: [edge], location: [0, 0], "+
		"addresses: [127.0.0.1], edge: { http: %q, admin: %q, data: data, disk: 256MiB } } }\n", clients, admin))
	edge := exec.CommandContext(t.Context(), program(), "edge", "--config", filepath.Join(dir, "fleet.yaml"),
		"--node", "hel1")
	edge.Dir, edge.Stdout, edge.Stderr = dir, t.Output(), t.Output()
	if p, err := filepath.Abs(program()); err == nil {
		edge.Path = p
	}
	edge.Cancel = func() error { return edge.Process.Signal(syscall.SIGTERM) }
	if err := edge.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = edge.Wait() })
	for range 200 {
		if c, err := net.Dial("tcp", clients); err == nil {
			c.Close()
			return clients, admin
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("the edge does not listen")
	return "", ""
}

// do sends a request through the edge.
func do(t *testing.T, edge, method, site, path string, fields ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+edge+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.URL.Opaque, r.Host = path, site+".example"
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// escape returns the path of an object, as a browser sends it.
func escape(name string) string {
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return "/" + strings.Join(parts, "/")
}

// TestRealS3 tests objects, ranges, validation, methods and errors.
func TestRealS3(t *testing.T) {
	edge, admin := startEdge(t, startServer(t))
	for _, site := range []string{"path", "host"} {
		for _, name := range names {
			if resp, body := do(t, edge, "GET", site, escape(name)); resp.StatusCode != 200 || body != name {
				t.Errorf("%s %s: %d %.200q", site, name, resp.StatusCode, body)
			}
		}
		if resp, body := do(t, edge, "GET", site, "/big", "Range: bytes=1000000-1000004"); resp.StatusCode != 206 ||
			body != big()[1000000:1000005] {
			t.Errorf("%s, a range: %d %.200q", site, resp.StatusCode, body)
		}
		if resp, _ := do(t, edge, "HEAD", site, "/never"); resp.StatusCode != 404 {
			t.Errorf("%s, HEAD: %d", site, resp.StatusCode)
		}
		resp, body := do(t, edge, "GET", site, "/plain.txt", "Cache-Control: no-cache", "Authorization: Bearer client",
			"X-Amz-Date: 20000101T000000Z")
		if status := resp.Header.Get("Cache-Status"); body != "plain.txt" ||
			!strings.Contains(status, "fwd-status=304") {
			t.Errorf("%s, a validation: %d %.200q %s", site, resp.StatusCode, body, status)
		}
		if resp, body = do(t, edge, "GET", site, "/none"); resp.StatusCode != 404 || body != "Not Found\n" {
			t.Errorf("%s, no object: %d %.200q", site, resp.StatusCode, body)
		}
		for _, path := range []string{"/", "/%2F", "/?list-type=2"} {
			if resp, body = do(t, edge, "GET", site, path); resp.StatusCode != 404 ||
				strings.Contains(body, "plain.txt") {
				t.Errorf("%s, %s: %d %.200q", site, path, resp.StatusCode, body)
			}
		}
		if resp, _ = do(t, edge, "DELETE", site, "/plain.txt"); resp.StatusCode != 405 {
			t.Errorf("%s, DELETE: %d", site, resp.StatusCode)
		}
	}
	for site, want := range map[string]string{"bad": "SignatureDoesNotMatch", "none": "XAdminUserNotFound",
		"nobucket": "NoSuchBucket"} {
		resp, body := do(t, edge, "GET", site, "/plain.txt")
		if status := resp.Header.Get("Cache-Status"); resp.StatusCode != 502 ||
			!strings.Contains(status, "detail=s3-refused") || strings.Contains(body, "AKIA") {
			t.Errorf("%s: %d %s %q", site, resp.StatusCode, status, body)
		}
		out, err := exec.CommandContext(t.Context(), program(), "explain", "http", "--admin", admin,
			"http://"+site+".example/plain.txt").CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) || !strings.Contains(string(out), "hint") ||
			strings.Contains(string(out), keyID) {
			t.Errorf("explain of %s: %v\n%s", site, err, out)
		}
	}
}

// big returns the body of a large object.
func big() string { return strings.Repeat("0123456789abcdef", 1<<17) }
