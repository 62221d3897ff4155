package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/node"
	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/fleet/freeport"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
	"github.com/kaiku-cdn/kaiku/geodns"
)

// keeping is a name server with two zones and a folder of its own, which can be restarted.
type keeping struct {
	t          *testing.T
	dir        string
	dns, admin string
	log        *logLines
	p          *node.Process
}

func newKeeping(t *testing.T) *keeping {
	k := &keeping{t: t, dir: t.TempDir(), dns: freeport.Addr(t), admin: freeport.Addr(t)}
	k.write("fleet.yaml", fmt.Sprintf(`
nodes: { fra1: { roles: [geodns], location: [0, 0], addresses: [127.0.0.1], admin: %q } }
geodns: { listen: %q, data: copies, geoip: finland.mmdb, zones: [{ name: a.example, file: zones/a.zone }, { name: B.example., file: zones/b.zone }] }
`, k.admin, k.dns))
	mmdb, err := os.ReadFile("../../geodns/testdata/finland.mmdb")
	if err != nil {
		t.Fatal(err)
	}
	k.write("finland.mmdb", string(mmdb))
	k.zone("a", "$INCLUDE parts/www.inc\n")
	k.write("zones/parts/www.inc", "www A 192.0.2.1\n")
	k.zone("b", "www A 192.0.2.2\n")
	return k
}

func (k *keeping) write(name, text string) {
	k.t.Helper()
	file := filepath.Join(k.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
		k.t.Fatal(err)
	}
}

func (k *keeping) zone(name, records string) {
	k.t.Helper()
	k.write("zones/"+name+".zone", "$TTL 60\n@ SOA ns1 hostmaster 1 3600 600 86400 60\n@ NS ns1\nns1 A 127.0.0.1\n"+
		records)
}

// start runs the node until stop is called. It waits until the copies are as expected.
func (k *keeping) start(copies bool) (stop func()) {
	k.t.Helper()
	k.log = new(logLines)
	p, err := node.New(filepath.Join(k.dir, "fleet.yaml"), "fra1", nil, node.Overrides{},
		slog.New(slog.NewTextHandler(k.log, nil)))
	if err != nil {
		k.t.Fatalf("start: %v", err)
	}
	k.p = p
	stop = serveNode(k.t, "fra1", p)
	testwait.Until(k.t, "it answers", func() bool {
		return askSOA(k.t.Context(), (&net.Dialer{}).DialContext, k.dns, "b.example") == nil
	})
	if copies {
		testwait.Until(k.t, "copies are kept", func() bool {
			for _, name := range []string{"zones/a.example.tar", "zones/b.example.tar", "geoip.mmdb"} {
				if !exists(filepath.Join(k.dir, "copies", name)) {
					return false
				}
			}
			return true
		})
	}
	return stop
}

// answers reports whether a name has an address; "" means no address.
func (k *keeping) answers(name, want string) bool {
	got, _ := geodns.Lookup(k.t.Context(), k.dns, name, netip.MustParsePrefix("203.0.113.0/24"))
	return want == "" && len(got) == 0 || len(got) == 1 && got[0].String() == want
}

// faults returns the faults that status shows.
func (k *keeping) faults() string {
	k.t.Helper()
	resp, err := http.Get("http://" + k.admin + "/v1/status")
	if err != nil {
		k.t.Fatal(err)
	}
	defer resp.Body.Close()
	var st admin.Status
	if err := json.NewDecoder(resp.Body).Decode(&st); err != nil {
		k.t.Fatal(err)
	}
	return strings.Join(st.Faults, "\n")
}

// wants waits for answers. It checks where faults are reported: in the status, in the log, in
// `kaiku status` and to systemd.
func (k *keeping) wants(step string, answers map[string]string, faults ...string) {
	k.t.Helper()
	for name, want := range answers {
		testwait.Until(k.t, fmt.Sprintf("%s: %s is %q", step, name, want), func() bool { return k.answers(name, want) })
	}
	testwait.Until(k.t, step+": faults are told", func() bool { return (k.faults() != "") == (len(faults) > 0) })
	told := k.faults()
	for _, want := range faults {
		if !strings.Contains(told, want) {
			k.t.Errorf("%s: faults are\n%s\nwant %s", step, told, want)
		}
		if log := k.log.text(); !strings.Contains(log, "level=ERROR") || !strings.Contains(log, want) {
			k.t.Errorf("%s: the log is\n%s", step, log)
		}
	}
	out, err := command(k.t, "status", "--admin", k.admin)
	if err != nil || strings.Contains(out, "problem:") != (len(faults) == 1) || len(faults) > 0 &&
		!strings.Contains(out, faults[0]) {
		k.t.Errorf("%s: status is %v\n%s", step, err, out)
	}
}

// A name server starts with the last good copy of a damaged file, answers everything else as usual,
// and reports the fault.
func TestStartWithDamagedFiles(t *testing.T) {
	k := newKeeping(t)
	stop := k.start(true)
	k.wants("whole", map[string]string{"www.a.example": "192.0.2.1", "www.b.example": "192.0.2.2"})
	stop()

	k.write("zones/parts/www.inc", "www A 192.0.2.1\nwww CNAME www\n")
	k.write("finland.mmdb", "cut off")
	k.zone("b", "www A 192.0.2.3\n")
	stop = k.start(true)
	k.wants("damaged", map[string]string{"www.a.example": "192.0.2.1", "www.b.example": "192.0.2.3"},
		"zone a.example is answered from its last good copy, of 2", "the geoip database is the last good copy")
	if got := k.p.Status(); !strings.Contains(got, "did not take") || !strings.Contains(got, "parts/www.inc:2:1") {
		t.Errorf("systemd is told %s", got)
	}
	k.write("zones/parts/www.inc", "www A 192.0.2.4\n")
	mmdb, err := os.ReadFile("../../geodns/testdata/finland.mmdb")
	if err != nil {
		t.Fatal(err)
	}
	k.write("finland.mmdb", string(mmdb))
	k.wants("repaired", map[string]string{"www.a.example": "192.0.2.4", "www.b.example": "192.0.2.3"})

	k.write("zones/a.zone", "no zone")
	k.zone("b", "www A 192.0.2.5\n")
	k.wants("damaged while it runs", map[string]string{"www.a.example": "192.0.2.4", "www.b.example": "192.0.2.5"},
		"zone a.example is answered from its last good copy")
	stop()
	if err := os.Remove(filepath.Join(k.dir, "zones/a.zone")); err != nil {
		t.Fatal(err)
	}
	stop = k.start(true)
	k.wants("gone", map[string]string{"www.a.example": "192.0.2.4"}, "there is no such file")
	stop()
}

// A zone without a good copy is left out, unless the name server would then answer nothing.
func TestStartWithoutCopies(t *testing.T) {
	k := newKeeping(t)
	k.write("copies/zones/a.example.tar", "damaged as well")
	k.write("zones/a.zone", "no zone")
	stop := k.start(false)
	k.wants("damaged", map[string]string{"www.a.example": "", "www.b.example": "192.0.2.2"},
		"zone a.example is not served")
	k.zone("a", "www A 192.0.2.6\n")
	k.wants("repaired", map[string]string{"www.a.example": "192.0.2.6"})
	testwait.Until(t, "the copy is replaced", func() bool {
		text, err := os.ReadFile(filepath.Join(k.dir, "copies/zones/a.example.tar"))
		return err == nil && strings.Contains(string(text), "192.0.2.6")
	})
	stop()
	if err := os.RemoveAll(filepath.Join(k.dir, "copies")); err != nil {
		t.Fatal(err)
	}
	k.write("zones/a.zone", "no zone")
	k.write("zones/b.zone", "no zone")
	if _, err := node.New(filepath.Join(k.dir, "fleet.yaml"), "fra1", nil, node.Overrides{},
		slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "a.zone:1:") ||
		!strings.Contains(err.Error(), "b.zone:1:") {
		t.Errorf("with no zone at all the error is %v", err)
	}
}

// Copies of zones that the fleet file no longer has are deleted. If the folder is not writable, the
// name server logs a warning and runs on.
func TestCopiesOfOtherZones(t *testing.T) {
	k := newKeeping(t)
	k.write("copies/zones/old.example.tar", "")
	stop := k.start(true)
	testwait.Until(t, "the old copy is gone", func() bool {
		_, err := os.Stat(filepath.Join(k.dir, "copies/zones/old.example.tar"))
		return errors.Is(err, fs.ErrNotExist)
	})
	stop()
	if err := os.RemoveAll(filepath.Join(k.dir, "copies")); err != nil {
		t.Fatal(err)
	}
	k.write("copies", "a file where a folder should be")
	stop = k.start(false)
	testwait.Until(t, "it is warned of", func() bool { return strings.Contains(k.log.text(), "can't keep copies") })
	k.wants("without copies", map[string]string{"www.a.example": "192.0.2.1"})
	stop()
}

// A zone may have a name as in RFC 2317, section 4. It is answered like any other, and its copy is
// a normal file.
func TestZoneOfRFC2317(t *testing.T) {
	k := newKeeping(t)
	k.zone("b", "1 PTR www.a.example.\n")
	text, err := os.ReadFile(filepath.Join(k.dir, "fleet.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	const zone = "0/25.2.0.192.in-addr.arpa"
	k.write("fleet.yaml", strings.Replace(string(text), "}]", "}, { name: "+zone+", file: zones/b.zone }]", 1))
	stop := k.start(true)
	defer stop()
	if err := askSOA(t.Context(), (&net.Dialer{}).DialContext, k.dns, zone); err != nil {
		t.Error(err)
	}
	testwait.Until(t, "its copy is kept", func() bool {
		return exists(filepath.Join(k.dir,
			"copies/zones/0%2F25.2.0.192.in-addr.arpa.tar"))
	})
}
