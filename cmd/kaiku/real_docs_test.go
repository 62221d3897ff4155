//go:build real

package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/wfe"

	"github.com/kaiku-cdn/kaiku/bench/world/machine"
)

// The commands of each document run in a lab where the names in the documents exist:
// see docs_test.go.
func TestRealDocuments(t *testing.T) {
	for doc, rows := range docRows() {
		t.Run(doc, func(t *testing.T) {
			if !slices.ContainsFunc(rows, func(r docRow) bool { return !r.alone }) {
				return // TestDocuments runs all of it
			}
			if !inWorld() {
				runInWorld(t)
				return
			}
			l := newLab(t)
			s := newDocShell(t, l.bin)
			s.env = []string{"HOME=" + l.home, "SSH_AUTH_SOCK="}
			l.prepare(t, s, doc)
			eachDocBlock(t, doc, func(t *testing.T, b docBlock, row docRow) { s.runBlock(t, doc, b, row) })
		})
	}
}

// lab is the part of the internet that the documents name, in namespaces of its own: the machines
// hel1, fra1 and nyc1 at their addresses, the site at https://origin.example.net, and Let's
// Encrypt, which is Pebble. This process and its children are on the operator's machine. Its
// resolver uses the fleet's own name servers, as if the domain was already delegated to them.
type lab struct {
	*world
	ca    *testCA
	roots string // the authorities that all machines trust, in PEM
}

const (
	labOrigin = "origin.example.net"
	labACME   = "acme-v02.api.letsencrypt.org"

	systemRoots = "/etc/ssl/certs/ca-certificates.crt"
)

var labNodes = [][2]string{{"hel1", "203.0.113.10"}, {"fra1", "192.0.2.30"}, {"nyc1", "198.51.100.20"}}

// newLab makes the network and the servers outside of the fleet. It has no machines yet.
func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{world: newNetwork(t)}
	certs := filepath.Join(l.dir, "certs")
	if err := os.Mkdir(certs, 0o755); err != nil {
		t.Fatal(err)
	}
	writeCertificates(t, certs, labOrigin, labACME, "www.example.com")
	for _, addr := range []string{"192.0.2.80/32", "192.0.2.90/32"} {
		l.run(t, "ip", "address", "add", addr, "dev", "br0")
	}
	cert := func(name string) (string, string) {
		return filepath.Join(certs, name+".pem"), filepath.Join(certs, name+".key")
	}
	pem, key := cert(labOrigin)
	l.files, _ = nginxOriginTLS(t, "192.0.2.80:443", labOrigin, pem, key)
	for _, name := range []string{"index.html", "style.css"} {
		if err := os.WriteFile(filepath.Join(l.files, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l.ca = newCA(t, labNodes[0][1]+":53", 80, 443)
	pem, key = cert(labACME)
	serveTLS(t, "192.0.2.90:443", pem, key, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/directory" { // at the same path as Let's Encrypt
			r.URL.Path = wfe.DirectoryPath
		}
		l.ca.handler.ServeHTTP(w, r)
	}))
	l.roots = readFile(t, certs, "ca.pem") + string(l.ca.root)
	mountOver(t, systemRoots, readFile(t, systemRoots)+l.roots)
	mountOver(t, "/etc/hosts", l.hosts())
	return l
}

func (l *lab) hosts() string {
	return "127.0.0.1 localhost\n192.0.2.80 " + labOrigin + "\n192.0.2.90 " + labACME + "\n"
}

// mountOver replaces a file for the processes in this world.
func mountOver(t *testing.T, path, text string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), filepath.Base(path))
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(file, path, "", syscall.MS_BIND, ""); err != nil {
		t.Fatalf("mount over %s: %v", path, err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(path, syscall.MNT_DETACH) })
}

// serveTLS serves until the test ends.
func serveTLS(t *testing.T, addr, cert, key string, h http.Handler) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.ServeTLS(ln, cert, key) }()
	t.Cleanup(func() { _ = s.Close() })
}

// addMachines starts the machines of the fleet. They know the names that are in no DNS here, and
// trust the lab's authorities.
func (l *lab) addMachines(t *testing.T) {
	t.Helper()
	config := "Host *\n  IdentityFile " + l.home + "/.ssh/id_ed25519\n  UserKnownHostsFile " + l.home +
		"/.ssh/known_hosts\n"
	for _, n := range labNodes {
		l.addNode(t, n[0], n[1])
		config += "Host " + n[0] + "\n  HostName " + n[1] + "\n"
		l.run(t, "ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o",
			"UserKnownHostsFile=/dev/null", "-i", l.home+"/.ssh/id_ed25519", "root@"+n[1],
			"cat >>/etc/hosts <<'end'\n"+l.hosts()+"end\ncat >>"+systemRoots+" <<'end'\n"+l.roots+"end\n")
	}
	if err := os.WriteFile(l.home+"/.ssh/config", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, n := range labNodes {
			if t.Failed() {
				t.Logf("the log of %s:\n%s", n[0], readFile(t, l.dir, n[0]+"-"+n[1], machine.Journal))
			}
		}
	})
	mountOver(t, "/etc/resolv.conf", "nameserver "+labNodes[0][1]+"\nnameserver "+labNodes[1][1]+"\n")
}

// prepare prepares what a document presupposes.
func (l *lab) prepare(t *testing.T, s *docShell, doc string) {
	t.Helper()
	script := func(name, text string) {
		if err := os.WriteFile(filepath.Join(s.bin, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// ssh looks for its configuration in the account's home folder, not in $HOME
	script("ssh", `exec /usr/bin/ssh -F "$HOME/.ssh/config" "$@"`)
	switch doc {
	case "README.md":
		l.addMachines(t)
		l.serveSite(t, "127.0.0.1:8000")
		if err := os.Remove(filepath.Join(s.bin, "kaiku")); err != nil { // the document installs it
			t.Fatal(err)
		}
		script("sudo", `exec "$@"`)
		tree := filepath.Join(l.dir, "tree")
		l.run(t, "sh", "-ec", `mkdir "$1"; tar -C ../.. --exclude=./.git --exclude=./bin --exclude=./dist -cf - . | tar -C "$1" -xf -`, "sh", tree)
		s.env = append(s.env, goEnv(t, "GOMODCACHE"), goEnv(t, "GOCACHE"), "GOFLAGS=-buildvcs=false")
		s.replace = strings.NewReplacer("git clone https://github.com/kaiku-cdn/kaiku", "cp -r "+tree+" kaiku",
			"/usr/local/bin/", s.bin, "/tmp/kaiku", filepath.Join(l.dir, "cache"))
	case "docs/deploy.md":
		l.addMachines(t)
		// Machines may lack sudo, and SSH logs in as root. The rotation does not wait
		// for resolvers.
		s.replace = strings.NewReplacer("sudo ", "", "kaiku rotate fleet-key", "kaiku rotate fleet-key --settle 1s")
	case "docs/purge.md":
		l.serveSite(t, "127.0.0.1:8000")
		pem := filepath.Join(l.dir, "certs", "www.example.com")
		serveTLS(t, "127.0.0.1:443", pem+".pem", pem+".key",
			http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, "<urlset><url><loc>https://www.example.com/</loc></url><url><loc>https://www.example.com/style.css</loc></url></urlset>")
			}))
		mountOver(t, "/etc/hosts", l.hosts()+"127.0.0.1 www.example.com\n")
	}
}

// serveSite serves a cacheable site.
func (l *lab) serveSite(t *testing.T, addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=3600")
			w.Header().Set("Surrogate-Key", "front product-17")
			http.ServeContent(w, r, "page.txt", time.Time{}, bytes.NewReader([]byte("page\n")))
		})}
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(func() { _ = s.Close() })
}

// goEnv returns a setting of the go command.
func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatalf("go env %s: %v", name, err)
	}
	return name + "=" + strings.TrimSpace(string(out))
}
