package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/fleet/freeport"
	"github.com/kaiku-cdn/kaiku/geodns"
)

// keyFleet is a fleet with one name server, which has a zone and its parent zone. A change at the
// registrar is a change of the parent's zone file.
type keyFleet struct {
	t      *testing.T
	dir    string
	server *geodns.Server
	addr   string
	now    time.Time
}

func newKeyFleet(t *testing.T) *keyFleet {
	t.Helper()
	k := &keyFleet{t: t, dir: t.TempDir(), now: time.Now(), addr: freeport.Addr(t)}
	k.write("fleet.yaml", fmt.Sprintf(`
nodes:
  ns: { roles: [edge, geodns], location: [60.17, 24.94], addresses: [127.0.0.1] }
edge: { disk: 1GiB, data: %s/data }
geodns:
  listen: "%s"
  zones:
    - { name: test, file: test.zone }
    - { name: example.test, file: example.zone, edges: { www: {} }, dnssec: { key: example.key } }
`, k.dir, k.addr))
	const apex = "$TTL 7200\n@ IN SOA ns1 hostmaster 1 7200 1800 1209600 300\n@ IN NS ns1\nns1 IN A 127.0.0.1\n"
	k.write("example.zone", apex)
	k.registrar()
	k.run("dnssec", "keygen", filepath.Join(k.dir, "example.key"))
	k.server = &geodns.Server{Addr: k.addr}
	k.deploy()
	if err := k.server.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- k.server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return k
}

func (k *keyFleet) write(name, text string) {
	k.t.Helper()
	if err := os.WriteFile(filepath.Join(k.dir, name), []byte(text), 0o600); err != nil {
		k.t.Fatal(err)
	}
}

// registrar sets the parent's DS records.
func (k *keyFleet) registrar(ds ...string) {
	k.t.Helper()
	k.write("test.zone", "$TTL 3600\n@ IN SOA ns1 hostmaster 1 7200 1800 1209600 300\n@ IN NS ns1\nns1 IN A 127.0.0.1\n"+
		"example IN NS ns1\n"+strings.Join(ds, ""))
	if k.server != nil {
		k.deploy()
	}
}

// deploy makes the name server load all files.
func (k *keyFleet) deploy() {
	k.t.Helper()
	f, zones, err := config.Load(filepath.Join(k.dir, "fleet.yaml"))
	if err != nil {
		k.t.Fatal(err)
	}
	if err := k.server.Reload(f.GeoDNSConfig(zones)); err != nil {
		k.t.Fatal(err)
	}
}

func (k *keyFleet) run(args ...string) string {
	k.t.Helper()
	var out bytes.Buffer
	if err := run(k.t.Context(), args, &out, &out); err != nil {
		k.t.Fatalf("kaiku %s: %v\n%s", strings.Join(args, " "), err, &out)
	}
	return out.String()
}

// ds returns what kaiku dnssec ds prints.
func (k *keyFleet) ds() string {
	k.t.Helper()
	return k.run("dnssec", "ds", "example.test", "--config", filepath.Join(k.dir, "fleet.yaml"))
}

// step does a step at the test's current time. It expects the text want in the output or in the
// error.
func (k *keyFleet) step(step func(*keyStep) error, want string) {
	k.t.Helper()
	zones, err := signedZones(filepath.Join(k.dir, "fleet.yaml"), "example.test")
	if err != nil {
		k.t.Fatal(err)
	}
	var out strings.Builder
	o := dnssecOptions{resolver: k.addr}
	err = step(&keyStep{view: o.view(k.t.Context(), zones[0]), now: k.now,
		say: func(format string, a ...any) { fmt.Fprintf(&out, format+"\n", a...) }})
	if err != nil {
		fmt.Fprintf(&out, "error: %v", err)
	}
	if !strings.Contains(out.String(), want) {
		k.t.Fatalf("want %q:\n%s", want, &out)
	}
}

// status expects a text in what kaiku dnssec status prints, and a fault if bad is true.
func (k *keyFleet) status(bad bool, want string) {
	k.t.Helper()
	var out bytes.Buffer
	err := run(k.t.Context(), []string{"dnssec", "status", "--config", filepath.Join(k.dir, "fleet.yaml"),
		"--resolver", k.addr}, &out, &out)
	if (err != nil) != bad || !strings.Contains(out.String(), want) {
		k.t.Fatalf("%v, want a fault: %v, and %q:\n%s", err, bad, want, &out)
	}
}

// TestDNSSECRollover replaces a key. It also tries each step too early, which must change nothing.
func TestDNSSECRollover(t *testing.T) {
	t.Parallel()
	k := newKeyFleet(t)
	rollover := (*keyStep).rollover
	k.status(false, "the parent has no DS record, so resolvers don't check")
	old := k.ds()
	k.registrar(old)
	k.status(false, "✓ the parent has the DS record")

	k.step(rollover, "step 1 of 4")
	k.step(rollover, "error: the step before isn't done at all name servers: ns: doesn't publish key")
	k.status(true, "doesn't publish key")
	k.deploy()
	k.step(rollover, "caches may still have the old set of keys")
	k.now = k.now.Add(keyWait + time.Second)
	k.step(rollover, "step 2 of 4")
	next := k.ds()
	if next == old {
		t.Fatal("the DS record is still that of the old key")
	}
	k.step(rollover, "step 2 of 4")
	k.registrar(old, next)
	k.step(rollover, "Caches may still have the previous one")
	k.registrar(next)
	k.step(rollover, "Caches may still have the previous one")
	k.now = k.now.Add(parentWait + time.Second)
	k.step(rollover, "step 3 of 4")
	k.step(rollover, "error: the step before isn't done at all name servers: ns: signs with key")
	k.deploy()
	k.step(rollover, "caches may still have its signatures")
	k.now = k.now.Add(time.Hour + time.Minute)
	k.step(rollover, "caches may still have its signatures") // the zone has a TTL of two hours
	k.now = k.now.Add(time.Hour)
	k.step(rollover, "step 4 of 4")
	k.step(rollover, "error: the step before isn't done at all name servers: ns: publishes 2 keys")
	k.deploy()
	k.status(false, "✓ the parent has the DS record")
	if ds := k.ds(); ds != next {
		t.Errorf("the DS record is %s, want %s", ds, next)
	}
	k.registrar(old)
	k.status(true, "none is of a key of this zone")
	k.step(rollover, "error: the parent's DS record belongs to another key than")
}

// TestDNSSECLeave takes a zone out of DNSSEC.
func TestDNSSECLeave(t *testing.T) {
	t.Parallel()
	k := newKeyFleet(t)
	leave := (*keyStep).leave
	k.registrar(k.ds())
	k.step(leave, "step 1 of 3")
	k.step(leave, "its CDS record doesn't match the key file")
	k.deploy()
	k.step(leave, "step 2 of 3")
	k.step((*keyStep).rollover, "error: example.test is leaving DNSSEC")
	k.registrar()
	k.step(leave, "Caches may still have the previous one")
	k.now = k.now.Add(parentWait + time.Second)
	k.step(leave, "step 3 of 3")
	if ds := k.ds(); !strings.Contains(ds, "no DS record") {
		t.Error(ds)
	}
}

// TestDNSSECKeygenKeeps checks that keygen does not overwrite a key.
func TestDNSSECKeygenKeeps(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "example.key")
	for i := range 2 {
		err := run(t.Context(), []string{"dnssec", "keygen", file}, new(bytes.Buffer), new(bytes.Buffer))
		if (err != nil) != (i == 1) {
			t.Fatalf("call %d: %v", i+1, err)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

// TestInitSigns checks that a fleet with a key from the start has a zone that is signed with it.
func TestInitSigns(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "fleet")
	out, err := runInit(t, "", "--domain", "example.com", "--origin", "http://192.0.2.9:8000", "--node",
		"hel1=203.0.113.10@60.17,24.94", "--no-origin-check", "--dnssec", "--dir", dir)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	zones, err := signedZones(filepath.Join(dir, "fleet.yaml"), "")
	if err != nil || len(zones) != 1 || zones[0].name() != "example.com" || zones[0].keys.Wanted() == nil {
		t.Fatalf("%v, %v", zones, err)
	}
	if info, err := os.Stat(zones[0].file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}
