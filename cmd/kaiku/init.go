package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"

	"github.com/spf13/cobra"
)

// first files of a fleet.
type firstFiles struct {
	Domain, Origin, Email string
	Nodes                 []firstNode
}

// firstNode is a machine as it is given to init: name=address@latitude,longitude.
type firstNode struct {
	Name     string
	Address  netip.Addr
	Lat, Lon float64
	Roles    string
}

func initCommand() *cobra.Command {
	var domain, originURL, email, dir string
	var nodes []string
	cmd := &cobra.Command{
		Use:   "init --domain example.com --origin https://origin.example.net --node hel1=203.0.113.10@60.17,24.94 …",
		Short: "Write the first fleet.yaml, its zone, fleet key and admin token; asks for what is not given",
		Long: `Write the first fleet.yaml, its zone, fleet key and admin token, into a folder that has none of them yet.

The first node, or the first three, get the role control, the first two geodns, all of them edge. What is not given by flags is asked for.`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := askFirst(cmd.InOrStdin(), cmd.OutOrStdout(), domain, originURL, email, nodes)
			if err != nil {
				return err
			}
			return f.write(dir, cmd.OutOrStdout())
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&domain, "domain", "", "the domain that the name servers answer for; the site is www below it, and the domain itself")
	fl.StringVar(&originURL, "origin", "", "`URL` of the server that has the site")
	fl.StringVar(&email, "email", "", "`ADDRESS` of an account at Let's Encrypt, for certificates; none means no TLS")
	fl.StringArrayVar(&nodes, "node", nil, "a machine: `NAME=IP@LATITUDE,LONGITUDE` (may be repeated)")
	fl.StringVar(&dir, "dir", ".", "the folder to write to")
	return cmd
}

// askFirst asks for what was not given.
func askFirst(in io.Reader, out io.Writer, domain, originURL, email string, nodes []string) (*firstFiles, error) {
	lines := bufio.NewScanner(in)
	ask := func(question string) (string, error) {
		fmt.Fprint(out, question+": ")
		if !lines.Scan() {
			return "", usageError{fmt.Errorf("no answer to %q: give it by a flag, see kaiku init --help", question)}
		}
		return strings.TrimSpace(lines.Text()), nil
	}
	var err error
	if domain == "" {
		if domain, err = ask("domain, such as example.com"); err != nil {
			return nil, err
		}
	}
	domain = strings.TrimSuffix(strings.ToLower(domain), ".")
	if !isHost(domain) || !strings.Contains(domain, ".") {
		return nil, usageError{fmt.Errorf("%q is not a domain", domain)}
	}
	if originURL == "" {
		if originURL, err = ask("origin, such as https://origin.example.net"); err != nil {
			return nil, err
		}
	}
	if err := new(OriginURL).UnmarshalText([]byte(originURL)); err != nil {
		return nil, usageError{fmt.Errorf("origin: %w", err)}
	}
	asked := len(nodes) == 0
	for len(nodes) == 0 || nodes[len(nodes)-1] == "more" {
		line, err := ask("a machine as NAME=IP@LATITUDE,LONGITUDE, such as hel1=203.0.113.10@60.17,24.94 (an empty line ends)")
		if err != nil {
			return nil, err
		}
		nodes = nodes[:max(0, len(nodes)-1)]
		if line == "" {
			break
		}
		nodes = append(nodes, line, "more")
	}
	if asked && email == "" {
		if line, err := ask("e-mail address for certificates from Let's Encrypt (an empty line: no TLS)"); err == nil {
			email = line
		}
	}
	if email != "" && !strings.Contains(email, "@") {
		return nil, usageError{fmt.Errorf("%q is not an e-mail address", email)}
	}
	f := &firstFiles{Domain: domain, Origin: originURL, Email: email}
	for _, text := range nodes {
		n, err := parseFirstNode(text)
		if err != nil {
			return nil, usageError{err}
		}
		f.Nodes = append(f.Nodes, n)
	}
	if len(f.Nodes) == 0 {
		return nil, usageError{errors.New("a fleet has at least one machine")}
	}
	controls := 1
	if len(f.Nodes) >= 3 {
		controls = 3
	}
	for i := range f.Nodes {
		roles := []string{roleEdge}
		if i < 2 {
			roles = append(roles, roleGeoDNS)
		}
		if i < controls && len(f.Nodes) > 1 {
			roles = append(roles, roleControl)
		}
		f.Nodes[i].Roles = strings.Join(roles, ", ")
	}
	return f, nil
}

func parseFirstNode(text string) (firstNode, error) {
	name, rest, ok1 := strings.Cut(text, "=")
	ip, place, ok2 := strings.Cut(rest, "@")
	lat, lon, ok3 := strings.Cut(place, ",")
	n := firstNode{Name: strings.TrimSpace(name)}
	var errs [3]error
	n.Address, errs[0] = netip.ParseAddr(strings.TrimSpace(ip))
	n.Lat, errs[1] = strconv.ParseFloat(strings.TrimSpace(lat), 64)
	n.Lon, errs[2] = strconv.ParseFloat(strings.TrimSpace(lon), 64)
	if err := errors.Join(errs[:]...); err != nil || !ok1 || !ok2 || !ok3 || !labelRE.MatchString(n.Name) {
		return n, fmt.Errorf("node %q: want NAME=IP@LATITUDE,LONGITUDE, such as hel1=203.0.113.10@60.17,24.94", text)
	}
	return n, nil
}

var firstFleet = template.Must(template.New("fleet.yaml").Parse(`# One file describes the fleet. Every node gets the same file and is told its own name: kaiku serve --config fleet.yaml --node NAME
# Run kaiku check --config fleet.yaml after every change.

sites:
  - name: www
    hosts: [{{.Domain}}, www.{{.Domain}}]
    origin:
      servers: ["{{.Origin}}"]
{{- if .Email}}
    https: { redirect: true }          # plain HTTP is sent to https://

tls:
  acme: { email: "{{.Email}}" }        # certificates for all hosts, by themselves
{{- end}}

nodes:
{{- range .Nodes}}
  {{.Name}}:
    roles: [{{.Roles}}]
    location: [{{.Lat}}, {{.Lon}}]     # latitude, longitude
    addresses: ["{{.Address}}"]
{{- end}}

geodns:
  zones:
    - name: {{.Domain}}
      file: {{.Domain}}.zone           # all other records of the domain
      edges:
        "@": {}
        www: {}

secrets:                               # files, which every node needs a copy of; the paths are relative to this file
  admin_token: admin.token
  fleet_key: fleet.key
`))

var firstZone = template.Must(template.New("zone").Funcs(template.FuncMap{"inc": func(i int) int { return i + 1 }}).Parse(`$ORIGIN {{.Domain}}.
$TTL 3600
@    IN SOA ns1 hostmaster 1 14400 3600 1209600 300
{{- range $i, $n := .Nodes}}{{if lt $i 2}}
@    IN NS  ns{{inc $i}}{{end}}{{end}}
{{- range $i, $n := .Nodes}}{{if lt $i 2}}
ns{{inc $i}}  IN {{if $n.Address.Is4}}A{{else}}AAAA{{end}} {{$n.Address}}{{end}}{{end}}
`))

// write writes the files, none of which may be there.
func (f *firstFiles) write(dir string, out io.Writer) error {
	key, err := newSecret()
	if err != nil {
		return err
	}
	token, err := newSecret()
	if err != nil {
		return err
	}
	var fleetText, zoneText bytes.Buffer
	if err := errors.Join(firstFleet.Execute(&fleetText, f), firstZone.Execute(&zoneText, f)); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	files := []struct {
		name string
		text []byte
		mode os.FileMode
	}{{"fleet.yaml", fleetText.Bytes(), 0o644}, {f.Domain + ".zone", zoneText.Bytes(), 0o644}, {"fleet.key", []byte(key + "\n"), 0o600}, {"admin.token", []byte(token + "\n"), 0o600}}
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
	_, err = fmt.Fprintf(out, `next: kaiku check --config %[1]s
then kaiku deploy --config %[1]s --dry-run, which tells what it would do on the machines, and the same without --dry-run
`, filepath.Join(dir, "fleet.yaml"))
	return err
}
