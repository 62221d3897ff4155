//go:build real

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// signedZone1 has every kind of record that validators treat differently.
const signedZone1 = `$ORIGIN example.test.
$TTL 3600
@      IN SOA ns1 hostmaster 1 7200 1800 1209600 300
@      IN NS  ns1
@      IN MX  10 Mail
ns1    IN A   127.0.0.1
mail   IN A   192.0.2.99
       IN AAAA 2001:db8::99
alias  IN CNAME alias2
alias2 600 IN CNAME mail
toedge IN CNAME www
dangling IN CNAME nowhere
old    IN DNAME new
host.new IN A 192.0.2.55
*.dev  IN A   192.0.2.98
x.y.dev IN TXT "beside the wildcard"
*.calias IN CNAME mail
*.wgone IN CNAME nowhere
a.b.ent IN TXT "below an empty non-terminal"
plain  IN NS  ns.plain
ns.plain IN A 127.0.0.1
svc    IN SVCB 1 Pool.example.net. alpn="h2,h3" port=8443 ipv4hint=192.0.2.1
naptr  IN NAPTR 100 50 "s" "SIP+D2U" "" _SIP._udp.Example.test.
odd    IN TYPE65280 \# 4 0A000001
`

// signedParent is the parent zone of signedZone1, before it has the DS record.
const signedParent = `$ORIGIN test.
$TTL 3600
@ IN SOA ns1 hostmaster 1 7200 1800 1209600 300
@ IN NS ns1
ns1 IN A 127.0.0.1
example IN NS ns1
`

// signedFleet has both zones. Its arguments are the folder and the name server's port.
const signedFleet = `
nodes:
  hel1: { roles: [edge], location: [60.17, 24.94], addresses: [127.0.0.33, "::1"] }
  nyc1: { roles: [edge, geodns], location: [40.71, -74.01], addresses: [127.0.0.1] }
edge: { disk: 1GiB, data: %s/data }
geodns:
  listen: "127.0.0.1:%s"
  zones:
    - { name: test, file: test.zone, dnssec: { key: test.key } }
    - name: example.test
      file: example.zone
      edges: { www: {}, both: { answers: 2 }, "*.cdn": {} }
      dnssec: { key: example.key }
`

// validatorConf makes Unbound validate with the trust anchor anchor.ds. Its arguments are Unbound's
// port, the folder, and the name server's port.
const validatorConf = `server:
  interface: 127.0.0.1@%s
  directory: "%s"
  pidfile: "%[2]s/pid"
  chroot: ""
  username: ""
  use-syslog: no
  do-daemonize: no
  num-threads: 1
  do-not-query-localhost: no
  module-config: "validator iterator"
  trust-anchor-file: "%[2]s/anchor.ds"
  local-zone: "test." nodefault
  val-log-level: 2
remote-control:
  control-enable: no
stub-zone:
  name: test
  stub-addr: 127.0.0.1@%[3]s
stub-zone:
  name: example.test
  stub-addr: 127.0.0.1@%[3]s
`

// signedQuestions has queries for every kind of answer.
const signedQuestions = `@ SOA, @ NS, @ MX, @ DNSKEY, @ CDS, @ CDNSKEY, @ DS, @ TXT,
	mail A, mail TXT, MaIl AAAA, alias A, alias TXT, toedge A, dangling A, host.old A, host.old AAAA, gone.old A,
	old DNAME, a.dev A, a.b.dev A, z.dev A, !.dev A, y.dev A, q.y.dev A, a.dev TXT, zz.dev TXT, *.dev A,
	x.calias A, x.calias TXT, x.wgone A, ent A, b.ent TXT, nowhere A, a.b.c.nowhere A, www A, www AAAA, www TXT,
	both A, x.cdn A, x.cdn TXT, x.cdn AAAA, mail ANY, nowhere ANY, plain DS, svc SVCB, naptr NAPTR, odd TYPE65280,
	mail NSEC, nowhere2 NSEC`

// In TestRealDNSSEC, Unbound and delv validate every kind of answer. The parent zone is signed too,
// and is the trust anchor. kaiku dnssec makes the keys, the DS record and the anchor.
func TestRealDNSSEC(t *testing.T) {
	v := signed{t: t, bin: kaikuBinary(t), dir: t.TempDir(), server: "15393", resolver: "15394"}
	v.serve()
	v.validate()
	validated := regexp.MustCompile(`flags:[a-z ]* ad[ ;]`)
	for q := range strings.SplitSeq(signedQuestions, ",") {
		name, rrtype, _ := strings.Cut(strings.TrimSpace(q), " ")
		if name += ".example.test"; strings.HasPrefix(name, "@") {
			name = "example.test"
		}
		got, _ := exec.Command(need(t, "dig"), "@127.0.0.1", "-p", v.resolver, "+dnssec", name, rrtype).CombinedOutput()
		if !validated.Match(got) {
			t.Errorf("unbound: %s %s:\n%s", name, rrtype, got)
		}
		if got := v.delv(name, rrtype); !strings.Contains(got, "fully validated") {
			t.Errorf("delv: %s %s:\n%s", name, rrtype, got)
		}
	}
	status := v.kaiku("dnssec", "status", "example.test", "--resolver", "127.0.0.1:"+v.server)
	if !strings.Contains(status, "✓ nyc1 publishes the keys and signs") ||
		!strings.Contains(status, "the parent has the DS record of key") {
		t.Errorf("status:\n%s", status)
	}
	v.signByAnotherKey()
}

// signed is a name server with signed zones, and a validating resolver for them.
type signed struct {
	t                *testing.T
	bin, dir         string
	server, resolver string // ports
}

func (v *signed) write(name, text string) {
	v.t.Helper()
	if err := os.WriteFile(filepath.Join(v.dir, name), []byte(text), 0o644); err != nil {
		v.t.Fatal(err)
	}
}

func (v *signed) kaiku(args ...string) string {
	v.t.Helper()
	cmd := exec.Command(v.bin, args...)
	cmd.Dir = v.dir
	out, err := cmd.Output()
	if err != nil {
		v.t.Fatalf("kaiku %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// delv validates an answer of the name server with delv.
func (v *signed) delv(name, rrtype string) string {
	v.t.Helper()
	out, _ := exec.Command(need(v.t, "delv"), "@127.0.0.1", "-p", v.server, "-a", filepath.Join(v.dir, "delv.anchor"),
		"+root=test", name, rrtype).CombinedOutput()
	return string(out)
}

// serve makes the keys and starts the name server, which signs the zones.
func (v *signed) serve() {
	v.t.Helper()
	v.kaiku("dnssec", "keygen", "test.key")
	v.kaiku("dnssec", "keygen", "example.key")
	v.write("test.zone", signedParent)
	v.write("example.zone", signedZone1)
	v.write("fleet.yaml", fmt.Sprintf(signedFleet, v.dir, v.server))
	v.write("test.zone", signedParent+v.kaiku("dnssec", "ds", "example.test"))
	v.write("anchor.ds", v.kaiku("dnssec", "ds", "test"))
	startProcess(v.t, v.bin, "geodns", "--config", filepath.Join(v.dir, "fleet.yaml"), "--node", "nyc1")
	waitFor(v.t, "127.0.0.1:"+v.server)
}

// validate starts the resolver, and writes delv's trust anchor.
func (v *signed) validate() {
	v.t.Helper()
	v.write("unbound.conf", fmt.Sprintf(validatorConf, v.resolver, v.dir, v.server))
	startProcess(v.t, need(v.t, "unbound"), "-d", "-c", filepath.Join(v.dir, "unbound.conf"))
	waitFor(v.t, "127.0.0.1:"+v.resolver)
	out, err := exec.Command(need(v.t, "dig"), "@127.0.0.1", "-p", v.server, "test", "DNSKEY", "+short",
		"+nosplit").Output()
	key := strings.Fields(string(out))
	if err != nil || len(key) != 4 {
		v.t.Fatalf("the parent's key: %v, %q", err, out)
	}
	v.write("delv.anchor", fmt.Sprintf("trust-anchors { test. static-key %s %s %s \"%s\"; };\n", key[0], key[1], key[2],
		key[3]))
}

// signByAnotherKey checks that a validator refuses signatures of a key that has no DS record. All
// the other answers would fail in the same way.
func (v *signed) signByAnotherKey() {
	v.t.Helper()
	v.kaiku("dnssec", "keygen", "other.key")
	if err := os.Rename(filepath.Join(v.dir, "other.key"), filepath.Join(v.dir, "example.key")); err != nil {
		v.t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		got := v.delv("mail.example.test", "A")
		if strings.Contains(got, "resolution failed") {
			return
		}
		if time.Now().After(deadline) {
			v.t.Fatalf("delv takes another key than that of the DS record:\n%s", got)
		}
	}
}
