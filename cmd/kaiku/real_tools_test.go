//go:build real

package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// need returns the path of a program, or fails the test.
func need(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/sbin/"} {
		if p, err := exec.LookPath(dir + name); err == nil {
			return p
		}
	}
	t.Fatalf("%s is not installed: this test needs it", name)
	return ""
}

// process is a program that runs during the test and ends with it.
type process struct {
	*exec.Cmd
	done chan error
}

func startProcess(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(name, args...), done: make(chan error, 1)}
	p.Stdout, p.Stderr = t.Output(), t.Output()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.Wait() }()
	t.Cleanup(func() { p.end(t, syscall.SIGTERM) })
	return p
}

// end sends a signal, and waits until the process has ended.
func (p *process) end(t *testing.T, sig os.Signal) error {
	t.Helper()
	if p.ProcessState != nil {
		return nil
	}
	_ = p.Process.Signal(sig) // fails if it has ended
	select {
	case err := <-p.done:
		p.done <- err
		return err
	case <-time.After(time.Minute):
		_ = p.Process.Kill()
		t.Errorf("%s did not end within a minute of %v", p.Path, sig)
		return <-p.done
	}
}

// waitFor waits until an address accepts connections.
func waitFor(t *testing.T, addr string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing listens on %s: %v", addr, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// nginxOrigin runs nginx at addr with a folder of files. It returns the folder and the access log.
func nginxOrigin(t *testing.T, addr string) (files, log string) {
	t.Helper()
	return nginxServer(t, addr, "listen "+addr+";")
}

// nginxOriginTLS is nginxOrigin with TLS, for one name.
func nginxOriginTLS(t *testing.T, addr, name, cert, key string) (files, log string) {
	t.Helper()
	return nginxServer(t, addr, fmt.Sprintf("listen %s ssl; server_name %s; ssl_certificate %s; ssl_certificate_key %s;", addr, name, cert, key))
}

// nginxServer runs nginx with a server block of these directives, which listens on addr.
func nginxServer(t *testing.T, addr, server string) (files, log string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	files, log = filepath.Join(dir, "www"), filepath.Join(dir, "access.log")
	if err := os.Mkdir(files, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int{"index.html": 100, "a.css": 1000, "b.js": 70_000, "c.bin": 5_000_000} {
		if err := os.WriteFile(filepath.Join(files, name), bytes.Repeat([]byte(name), size/len(name)),
			0o644); err != nil {
			t.Fatal(err)
		}
	}
	conf := fmt.Sprintf(`daemon off; pid %[1]s/pid; error_log stderr; user root;
events {}
http {
  log_format short '$request_method $uri $status';
  access_log %[2]s short;
  client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  server {
    %[3]s
    root %[4]s;
    location / { expires 1h; add_header Surrogate-Key "all $uri"; }
    location /never/ { add_header Cache-Control no-store; return 200 "never\n"; }
  }
}`, dir, log, server, files)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	startProcess(t, need(t, "nginx"), "-c", file, "-p", dir)
	waitFor(t, addr)
	return files, log
}

// curl returns the header block and the body of a response.
func curl(t *testing.T, args ...string) (head, body string) {
	t.Helper()
	out, err := exec.Command(need(t, "curl"), append([]string{"-s", "-i", "--max-time", "20"}, args...)...).Output()
	if err != nil {
		t.Fatalf("curl %v: %v", args, err)
	}
	head, body, _ = strings.Cut(string(out), "\r\n\r\n")
	return head, body
}

func wantHead(t *testing.T, what, head, pattern string) {
	t.Helper()
	if !regexp.MustCompile("(?i)" + pattern).MatchString(head) {
		t.Errorf("%s: want %s in\n%s", what, pattern, head)
	}
}

func asked(t *testing.T, log, uri string) int {
	t.Helper()
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), " "+uri+" ")
}

func dig(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(need(t, "dig"), append([]string{"@127.0.0.1", "-p", "15300", "+tries=2", "+time=5"},
		args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("dig %v: %v\n%s", args, err, out)
	}
	return string(out)
}
