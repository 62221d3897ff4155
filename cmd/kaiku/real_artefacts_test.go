//go:build real

package main

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/deploy"
)

// inCopy runs a script as root in a copy of this machine's files, and then discards the copy: it is
// an overlay in the script's mount namespace.
func inCopy(t *testing.T, script string, args ...string) string {
	t.Helper()
	const enter = `
scratch=$1 script=$2; shift 2
mount -t tmpfs -o mode=755 tmpfs "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" "$scratch/root"
for d in proc dev; do mount --rbind "/$d" "$scratch/root/$d"; done
mkdir -p "$scratch/root/mnt/test" && mount --bind "${script%/*}" "$scratch/root/mnt/test"
exec chroot "$scratch/root" sh -eu "/mnt/test/${script##*/}" "$@"`
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, a := range args { // copies the files that the script needs beside it
		if err := os.Link(a, filepath.Join(filepath.Dir(file), filepath.Base(a))); err != nil {
			b, err := os.ReadFile(a)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(filepath.Dir(file), filepath.Base(a)), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	cmd := exec.Command(need(t, "unshare"), "-m", "sh", "-euc", enter, "sh", t.TempDir(), file)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// The package installs with dpkg, its units are valid for systemd, and removing it leaves only its
// user. systemd does not run here, so the package's scripts start nothing.
func TestRealDeb(t *testing.T) {
	for _, program := range []string{"dpkg", "adduser", "systemd-analyze", "make"} {
		need(t, program)
	}
	dist := t.TempDir()
	cmd := exec.Command("make", "-C", "../..", "deb", "DIST="+dist)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make deb: %v\n%s", err, out)
	}
	debs, err := filepath.Glob(dist + "/*.deb")
	if err != nil || len(debs) != 1 {
		t.Fatalf("%v, %v", debs, err)
	}
	out := inCopy(t, `
cd /mnt/test
deb=$(echo ./*.deb)
dpkg-deb -c "$deb" | awk '$1 !~ /^d/ { sub(/^\./, "", $6); print $6 }' >/tmp/files
[ "$(wc -l </tmp/files)" -gt 30 ]
! getent passwd kaiku || userdel kaiku
dpkg -i "$deb"
while read -r f; do [ -f "$f" ] || { echo "$f is not there"; exit 1; }; done </tmp/files
getent passwd kaiku | grep ':/var/lib/kaiku:/usr/sbin/nologin$'
[ "$(stat -c %a:%U /usr/share/man/man1 /usr/bin/kaiku | xargs)" = "755:root 755:root" ]
kaiku version
# The program as the unit starts it.
printf 'KAIKU_NODE=n1\n' >/etc/kaiku/node
printf 'sites: [{ name: www, hosts: [a.example], origin: { servers: ["http://127.0.0.1:1"] } }]\nnodes: { n1: { roles: [edge], location: [1, 2], addresses: [127.0.0.1] } }\n' >/etc/kaiku/fleet.yaml
KAIKU_NODE=n1 kaiku check --config /etc/kaiku/fleet.yaml
systemd-analyze verify --man=no /lib/systemd/system/kaiku.service /lib/systemd/system/kaiku.socket 2>&1 | tee /tmp/verify
! grep -i kaiku /tmp/verify
systemd-analyze security --offline=yes --no-pager /lib/systemd/system/kaiku.service | grep Overall
# An upgrade leaves what was changed.
dpkg -i "$deb"
grep -qx KAIKU_NODE=n1 /etc/kaiku/node
mkdir -p /var/lib/kaiku/cache
dpkg -r kaiku
while read -r f; do
  case $f in
  /etc/*) [ -f "$f" ] || { echo "$f is gone, with what was changed"; exit 1; } ;;
  *) [ ! -e "$f" ] || { echo "$f is left"; exit 1; } ;;
  esac
done </tmp/files
rm /etc/kaiku/fleet.yaml
dpkg -P kaiku
while read -r f; do [ ! -e "$f" ] || { echo "$f is left"; exit 1; }; done </tmp/files
for d in /etc/kaiku /var/lib/kaiku /usr/share/doc/kaiku; do [ ! -e "$d" ] || { echo "$d is left"; exit 1; }; done
! dpkg -s kaiku 2>/dev/null
echo all gone
`, debs[0])
	t.Log(out)
	if !strings.HasSuffix(out, "all gone\n") {
		t.Error("the script did not come to its end")
	}
	score := regexp.MustCompile(`Overall exposure level for kaiku.service: ([0-9.]+)`).FindStringSubmatch(out)
	if score == nil {
		t.Fatal("no exposure level")
	}
	if v, err := strconv.ParseFloat(score[1], 64); err != nil || v > 2.0 {
		t.Errorf("the exposure level is %s, want 2.0 at most", score[1])
	}
}

// promtool accepts the alerts, where it is installed.
func TestRealAlerts(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed (Debian: prometheus): the names in the alerts are checked, their syntax is not")
	}
	for _, args := range []string{"check rules alerts.yaml", "check config --syntax-only prometheus.yaml"} {
		cmd := exec.Command(promtool, strings.Fields(args)...)
		cmd.Dir = deployDir + "/prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", args, err, out)
		}
	}
}

// A release has a static and stripped program for each kind of processor, which deploy accepts. A
// second build gives the same files.
func TestRealRelease(t *testing.T) {
	need(t, "make")
	dist := t.TempDir()
	var sums [2]string
	for i := range sums {
		if out, err := exec.Command("make", "-C", "../..", "release", "DIST="+dist).CombinedOutput(); err != nil {
			t.Fatalf("make release: %v\n%s", err, out)
		}
		sums[i] = readFile(t, dist, "SHA256SUMS")
	}
	if sums[0] != sums[1] || strings.Count(sums[0], "\n") != 4 {
		t.Errorf("the checksums are\n%s\nand then\n%s", sums[0], sums[1])
	}
	check := exec.Command("sha256sum", "--quiet", "-c", "SHA256SUMS")
	check.Dir = dist
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	binaries, err := deploy.OpenBinaries(dist) // which requires static ones
	if err != nil || len(binaries) != 2 {
		t.Fatalf("%v, %v", binaries, err)
	}
	for _, b := range binaries {
		program, err := elf.Open(b.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer program.Close()
		if program.Section(".symtab") != nil || program.Section(".debug_info") != nil ||
			program.Section(".zdebug_info") != nil {
			t.Errorf("%s is not stripped", b.Path)
		}
		t.Logf("%s: %.1f MB", filepath.Base(b.Path), float64(b.Size)/1e6)
		if b.Size > 40e6 { // see "The program" in docs/deploy.md
			t.Errorf("%s has %d bytes, want 40 MB at most", b.Path, b.Size)
		}
		if list := readFile(t, b.Path+".cdx.json"); !strings.Contains(list, `"bomFormat": "CycloneDX"`) ||
			!strings.Contains(list, "github.com/dgraph-io/badger/v4") {
			t.Errorf("what %s is made of: %.300s", b.Path, list)
		}
	}
}
