package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/geodns/dnssec"
)

// firstFleet and firstZone are the templates of the files. Values replace the words in braces.
const firstFleet = `# One file describes the fleet. Every node has this same file, and gets its own name as a flag: kaiku serve --config fleet.yaml --node NAME
# Run kaiku check fleet.yaml after every change. docs/fleet.yaml of Kaiku explains every key.

sites:
  - name: www
    hosts: [{{domain}}, www.{{domain}}]
    origin:
      servers: ["{{origin}}"]
{{health}}
    cache: { stale_if_error: 24h }     # while the origin fails, edges serve stale responses for up to this time
{{tls}}
nodes:
{{nodes}}
geodns:
  zones:
    - name: {{domain}}
      file: {{domain}}.zone           # all other records of the domain
      edges: { "@": {}, www: {} }      # answered with the nearest healthy edges; "@" is the domain itself
{{dnssec}}
secrets:                               # files; every node needs a copy of them; the paths are relative to this file
  admin_token: admin.token
  fleet_key: fleet.key
`

const firstZone = `$ORIGIN {{domain}}.
$TTL 3600
@    IN SOA ns1 hostmaster 1 14400 3600 1209600 300
{{records}}
; These name servers answer for all of {{domain}}: put its other records here, such as those that its present name servers have.
; {{domain}} itself and www are edge names of fleet.yaml, and have no A, AAAA or CNAME here.
; @    IN MX  10 mail.example.net.
; @    IN TXT "v=spf1 mx -all"
; blog IN CNAME example.net.
`

// firstFile is a file that init writes.
type firstFile struct {
	name string
	text []byte
	mode os.FileMode
}

// values returns what replaces the words in braces.
func (f *firstFiles) values() *strings.Replacer {
	health := "      health: { path: / }              # probed every 5 s; a server that answers with 400 or more, or not at all, is unhealthy"
	if f.Unhealthy != 0 {
		health = fmt.Sprintf("      # health: { path: /health }        # the origin answers %d to /: name a path that it answers with 200", f.Unhealthy)
	}
	secure := ""
	if f.Email != "" {
		secure = fmt.Sprintf(`    https: { redirect: true }          # redirects plain HTTP to https://

tls:
  acme: { email: "%s" }   # edges order and renew certificates for all hosts
`, f.Email)
	}
	record := func(name string, a netip.Addr) string {
		if a.Is6() {
			return fmt.Sprintf("%s IN AAAA %s\n", name, a)
		}
		return fmt.Sprintf("%s IN A %s\n", name, a)
	}
	var nodes, servers, addrs string
	for i, n := range f.Nodes {
		var quoted []string
		for _, a := range n.Addresses {
			quoted = append(quoted, fmt.Sprintf("%q", a))
			if i < 2 {
				addrs += record(fmt.Sprintf("ns%d ", i+1), a)
			}
		}
		where := ""
		if n.Where != "" {
			where = "   # " + n.Where
		}
		nodes += fmt.Sprintf("  %s:\n    roles: [%s]\n    location: [%v, %v]%s\n    addresses: [%s]\n", n.Name, n.Roles,
			n.Place[0], n.Place[1], where, strings.Join(quoted, ", "))
		if i < 2 {
			servers += fmt.Sprintf("@    IN NS  ns%d\n", i+1)
		}
	}
	for _, a := range f.OriginAddresses {
		addrs += record(f.OriginLabel, a)
	}
	signed := ""
	if f.Signed {
		signed = fmt.Sprintf("      dnssec: { key: %s }   # name servers sign the zone; the registrar needs what kaiku dnssec ds prints, at the very end\n", f.keyFile())
	}
	return strings.NewReplacer("{{domain}}", f.Domain, "{{dnssec}}", signed, "{{origin}}", f.Origin.String(),
		"{{health}}", health, "{{tls}}",
		secure, "{{nodes}}", nodes, "{{records}}", servers+addrs)
}

// files returns the files to write, with new secrets.
func (f *firstFiles) files() ([]firstFile, error) {
	values := f.values()
	out := []firstFile{{"fleet.yaml", []byte(values.Replace(firstFleet)), 0o644},
		{f.Domain + ".zone", []byte(values.Replace(firstZone)), 0o644}}
	for _, name := range []string{"fleet.key", "admin.token"} {
		b := make([]byte, 32)
		if _, err := rand.Read(b); err != nil {
			return nil, err
		}
		out = append(out, firstFile{name, append([]byte(base64.StdEncoding.EncodeToString(b)), '\n'), 0o600})
	}
	if !f.Signed {
		return out, nil
	}
	key, err := dnssec.Generate()
	if err != nil {
		return nil, err
	}
	text, err := dnssec.Keys{key}.Format()
	return append(out, firstFile{f.keyFile(), text, 0o600}), err
}

// keyFile returns the name of the file with the zone's DNSSEC key.
func (f *firstFiles) keyFile() string { return f.Domain + ".dnssec.key" }

// write writes the files and checks them. It is an error if one of them exists.
func (f *firstFiles) write(ctx context.Context, dir string, out io.Writer) error {
	files, err := f.files()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, file := range files {
		if _, err := os.Lstat(filepath.Join(dir, file.name)); err == nil {
			return fmt.Errorf("init: %s is there already: give another --dir, or remove it",
				filepath.Join(dir, file.name))
		}
	}
	for _, file := range files {
		path := filepath.Join(dir, file.name)
		w, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, file.mode)
		if err != nil {
			return fmt.Errorf("init: %w", err)
		}
		_, err = w.Write(file.text)
		if err := errors.Join(err, w.Close()); err != nil {
			return fmt.Errorf("init: write %s: %w", path, err)
		}
		fmt.Fprintf(out, "wrote %s\n", path)
	}
	if len(f.Nodes) == 1 {
		fmt.Fprintln(out, "one machine is one name server, and most registries want two: add a second machine before you delegate the domain")
	}
	if f.Email == "" {
		fmt.Fprintln(out, `no TLS: for certificates, add tls: { acme: { email: "…" } } to fleet.yaml`)
	}
	fleetFile := filepath.Join(dir, "fleet.yaml")
	fleet, zones, err := config.Load(fleetFile)
	if err == nil {
		err = fleet.Audit(ctx, zones, config.Audit{})
	}
	if err != nil {
		fmt.Fprintf(out, "%v\n%s fails its check: correct it, and run kaiku check %[2]s\n", err, fleetFile)
		return errReported
	}
	fleet.PrintWarnings(out)
	before := ""
	if f.Unreached {
		before = "start the origin, or correct its URL in " + fleetFile + "; then "
	}
	_, err = fmt.Fprintf(out, `next: %[2]skaiku check %[1]s
then kaiku deploy --config %[1]s --dry-run, which prints what it would change, and the same command without --dry-run
`, fleetFile, before)
	return err
}
