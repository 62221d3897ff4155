package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/template"
)

var firstFleet = template.Must(template.New("fleet.yaml").Parse(`# One file describes the fleet. Every node gets the same file and is told its own name: kaiku serve --config fleet.yaml --node NAME
# Run kaiku check fleet.yaml after every change. docs/fleet.yaml of Kaiku explains every key.

sites:
  - name: www
    hosts: [{{.Domain}}, www.{{.Domain}}]
    origin:
      servers: ["{{.Origin}}"]
{{- if .Unhealthy}}
      # health: { path: /health }        # the origin answers {{.Unhealthy}} to /: name a path that it answers with 200
{{- else}}
      health: { path: / }              # asked every 5 s; a server that answers with 400 or more, or not at all, is down
{{- end}}
    cache: { stale_if_error: 24h }     # while the origin fails, what is stored is served for so long
{{- if .Email}}
    https: { redirect: true }          # plain HTTP is sent to https://

tls:
  acme: { email: "{{.Email}}" }   # certificates for all hosts, by themselves
{{- end}}

nodes:
{{- range .Nodes}}
  {{.Name}}:
    roles: [{{.Roles}}]
    location: [{{index .Place 0}}, {{index .Place 1}}]{{with .Where}}   # {{.}}{{end}}
    addresses: [{{range $i, $a := .Addresses}}{{if $i}}, {{end}}"{{$a}}"{{end}}]
{{- end}}

geodns:
  zones:
    - name: {{.Domain}}
      file: {{.Domain}}.zone           # all other records of the domain
      edges: { "@": {}, www: {} }      # answered with the nearest healthy edges; "@" is the domain itself

secrets:                               # files, which every node needs a copy of; the paths are relative to this file
  admin_token: admin.token
  fleet_key: fleet.key
`))

var firstZone = template.Must(template.New("zone").Funcs(template.FuncMap{"inc": func(i int) int { return i + 1 }}).Parse(`$ORIGIN {{.Domain}}.
$TTL 3600
@    IN SOA ns1 hostmaster 1 14400 3600 1209600 300
{{- range $i, $n := .Nodes}}{{if lt $i 2}}
@    IN NS  ns{{inc $i}}{{end}}{{end}}
{{- range $i, $n := .Nodes}}{{if lt $i 2}}{{range $n.Addresses}}
ns{{inc $i}}  IN {{if $n.IPv6 .}}AAAA{{else}}A{{end}} {{.}}{{end}}{{end}}{{end}}
{{- range .OriginAddresses}}
{{$.OriginLabel}} IN {{if .Is6}}AAAA{{else}}A{{end}} {{.}}{{end}}

; These name servers answer for all of {{.Domain}}: put its other records here, such as those that its present name servers have.
; {{.Domain}} itself and www are edge names of fleet.yaml, and have no A, AAAA or CNAME here.
; @    IN MX  10 mail.example.net.
; @    IN TXT "v=spf1 mx -all"
; blog IN CNAME example.net.
`))

// firstFile is a file that init writes.
type firstFile struct {
	name string
	text []byte
	mode os.FileMode
}

// files makes the files.
func (f *firstFiles) files() ([]firstFile, error) {
	var fleetText, zoneText bytes.Buffer
	if err := errors.Join(firstFleet.Execute(&fleetText, f), firstZone.Execute(&zoneText, f)); err != nil {
		return nil, err
	}
	out := []firstFile{{"fleet.yaml", fleetText.Bytes(), 0o644}, {f.Domain + ".zone", zoneText.Bytes(), 0o644}}
	for _, name := range []string{"fleet.key", "admin.token"} {
		b := make([]byte, 32)
		if _, err := rand.Read(b); err != nil {
			return nil, err
		}
		out = append(out, firstFile{name, append([]byte(base64.StdEncoding.EncodeToString(b)), '\n'), 0o600})
	}
	return out, nil
}

// write writes the files, none of which may be there.
func (f *firstFiles) write(dir string, out io.Writer) error {
	files, err := f.files()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, file := range files {
		if _, err := os.Lstat(filepath.Join(dir, file.name)); err == nil {
			return fmt.Errorf("init: %s is there already: give another --dir, or remove it", filepath.Join(dir, file.name))
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
	config := filepath.Join(dir, "fleet.yaml")
	if _, _, err := loadFleet(config); err != nil {
		fmt.Fprintf(out, "%v\n", err)
	}
	_, err = fmt.Fprintf(out, `next: kaiku check %[1]s
then kaiku deploy --config %[1]s --dry-run, which tells what it would do on the machines, and the same without --dry-run
`, config)
	return err
}
