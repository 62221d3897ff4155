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

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// systemdFleet has a node of each kind, on addresses of this machine.
const systemdFleet = `
sites: [{ name: www, hosts: [www.example.com], origin: { servers: ["http://127.0.0.1:18009"] } }]
edge: { http: "127.0.0.71:18090", admin: "127.0.0.71:19090", data: %[1]s/cache, disk: 128MiB, memory: 16MiB }
control: { data: %[1]s/control }
secrets: { fleet_key: fleet.key }
geodns:
  listen: "127.0.0.71:15390"
  zones: [{ name: example.com, file: example.com.zone, edges: { www: {} } }]
nodes:
  hel1: { roles: [edge, geodns], location: [60, 25], addresses: [127.0.0.71] }
  ns1: { roles: [geodns], addresses: [127.0.0.72] }
  c1: { roles: [control], addresses: [127.0.0.73] }
  c2: { roles: [control], addresses: [127.0.0.75] }
  all: { roles: [edge, geodns, control], location: [41, -74], addresses: [127.0.0.74], edge: { http: ":80", https: ":443" } }
`

func writeSystemdFleet(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"fleet.yaml": fmt.Sprintf(text, dir),
		"fleet.key":        strings.Repeat("secret", 8),
		"example.com.zone": "@ 60 IN SOA ns1 hostmaster 1 7200 1800 1209600 60\n@ 60 IN NS ns1\nns1 60 IN A 127.0.0.72\n"})
	return filepath.Join(dir, "fleet.yaml")
}

// needSystemd finds a program of Debian's package systemd. It works even if systemd is not
// process 1.
func needSystemd(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s is not installed: apt-get install --no-install-recommends systemd", program)
	}
	return path
}

// Debian's systemd-socket-activate listens, and starts Kaiku at the first connection. Kaiku answers
// that connection, and uses the passed sockets for both HTTP and DNS.
func TestRealSocketActivation(t *testing.T) {
	activate, bin := needSystemd(t, "systemd-socket-activate"), kaikuBinary(t)
	nginxOrigin(t, "127.0.0.1:18009")
	// The fleet has no control nodes, because none runs here.
	config := writeSystemdFleet(t,
		regexp.MustCompile(`(?m)^  (c1|c2|all): .*\n|^control: .*\n`).ReplaceAllString(systemdFleet, ""))
	const web, dns = "127.0.0.71:18090", "127.0.0.71:15390"
	p := startProcess(t, activate, "-l", web, "-l", dns, "--fdname=kaiku:kaiku", bin, "serve", "--config", config,
		"--node", "hel1")
	var sockets []string // listening sockets, by inode
	testwait.Until(t, "systemd-socket-activate listens", func() bool {
		sockets = []string{listening(t, web), listening(t, dns)}
		return sockets[0] != "" && sockets[1] != ""
	})
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+web+"/a.css", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "www.example.com"
	resp, err := (&http.Client{Timeout: time.Minute}).Do(r)
	if err != nil {
		t.Fatalf("the connection that started it: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusOK || len(body) != 1000 {
		t.Errorf("the connection that started it: %s, %d bytes, %v", resp.Status, len(body), err)
	}
	// TCP uses the passed socket, and UDP one that Kaiku has bound.
	for _, transport := range []string{"+tcp", "+notcp"} {
		out, err := exec.Command(need(t, "dig"), "@127.0.0.71", "-p", "15390", "+tries=2", "+time=5", transport,
			"ns1.example.com", "+short").CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "127.0.0.72" {
			t.Errorf("dig %s: %v\n%s", transport, err, out)
		}
	}
	if now := []string{listening(t, web), listening(t, dns)}; now[0] != sockets[0] || now[1] != sockets[1] {
		t.Errorf("other sockets listen: %q, want %q", now, sockets)
	}
	for _, inode := range sockets {
		if !hasSocket(t, p.Process.Pid, inode) { // systemd-socket-activate execs Kaiku
			t.Errorf("Kaiku does not have the socket %s", inode)
		}
	}
	if err := p.end(t, syscall.SIGTERM); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
}

// listening returns the inode of the socket that listens on an IPv4 address, or "".
func listening(t *testing.T, addr string) string {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	ip := a.IP.To4()
	local := fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], a.Port)
	for line := range strings.Lines(readFile(t, "/proc/net/tcp")) {
		if f := strings.Fields(line); len(f) > 9 && f[1] == local && f[3] == "0A" {
			return f[9]
		}
	}
	return ""
}

func hasSocket(t *testing.T, pid int, inode string) bool {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, _ := os.Readlink(fd); to == "socket:["+inode+"]" {
			return true
		}
	}
	return false
}

// Debian's systemd accepts the units of each kind of node without a warning, and rates their
// exposure as low.
func TestRealUnits(t *testing.T) {
	needSystemd(t, "systemd-analyze")
	bin := kaikuBinary(t)
	config := writeSystemdFleet(t, systemdFleet)
	for _, node := range []string{"hel1", "ns1", "c1", "all"} {
		t.Run(node, func(t *testing.T) {
			units := t.TempDir()
			if out, err := exec.Command(bin, "units", "--config", config, "--node", node, "--root",
				units).CombinedOutput(); err != nil {
				t.Fatalf("kaiku units: %v\n%s", err, out)
			}
			files, err := filepath.Glob(units + "/etc/systemd/system/kaiku.*")
			if err != nil || len(files) == 0 {
				t.Fatalf("%v, %v", files, err)
			}
			out := inCopy(t, `
mv /mnt/test/kaiku /usr/local/bin/kaiku
cp /mnt/test/kaiku.* /etc/systemd/system/
cd /etc/systemd/system
systemd-analyze verify --man=no kaiku.* 2>&1
systemd-analyze security --offline=yes --no-pager kaiku.service | grep Overall`, append(files, bin)...)
			t.Log(strings.TrimSpace(out))
			score := regexp.MustCompile(`^\S* ?Overall exposure level for kaiku.service: ([0-9.]+)[^\n]*\n$`).FindStringSubmatch(out)
			if score == nil {
				t.Fatalf("more than the score was said:\n%s", out)
			}
			if v, err := strconv.ParseFloat(score[1], 64); err != nil || v > 2.0 {
				t.Errorf("the exposure level is %s, want 2.0 at most", score[1])
			}
		})
	}
}
