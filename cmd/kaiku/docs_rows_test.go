package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/deploy"
)

// succeeds only requires that a command does not fail.
var succeeds = prints()

// initFleet and the others are commands that README.md and deploy.md share.
var (
	initFleet = prints(`^wrote fleet/fleet\.yaml$`, `^wrote fleet/example\.com\.zone$`, `^wrote fleet/fleet\.key$`,
		`^wrote fleet/admin\.token$`)
	checkFleet = prints(`^fleet/fleet\.yaml is fine: 1 site, 3 nodes, 1 zone$`)
	explainDNS = prints(`^client\s+193\.166\.3\.2 .*FI`, `^hel1 .* A +the nearest place`, `^fra1 .* - +farther`)
	// to each host key
	dryRun    = prints(`SHA256:`, `hel1:$`, `kaiku\.service`, `fra1:$`, `nyc1:$`).onTerminal("yes\nyes\nyes\n")
	deployAll = prints(`hel1: started and well`, `fra1: started and well`, `nyc1: started and well`)
	allReady  = prints(`^3 of 3 nodes ready`, `^hel1 .*edge.* ready`, `^fra1 .*edge.* ready`, `^nyc1 .*edge.* ready`,
		`^all +\d.* 3 up`)
	drains   = succeeds.then(prints(`^hel1 .* draining`), statusOfFleet)
	undrains = succeeds.then(prints(`^hel1 .* ready`), statusOfFleet)
)

const statusOfFleet = "kaiku status --config fleet/fleet.yaml"

func readmeRows() []docRow {
	return []docRow{
		{begins: "git clone", lines: []docCheck{succeeds, succeeds, succeeds}},
		{begins: "$ kaiku demo --once", alone: true, lines: []docCheck{asShown}},
		{begins: "kaiku edge --origin", lines: []docCheck{stays("127.0.0.1:8080")}},
		{begins: "curl -i http://127.0.0.1:8080/", lines: []docCheck{
			twice(`^HTTP/1\.1 200 `, `(?s)^Age: \d.*^Cache-Status: kaiku; hit`),
			prints(`stored|cached`, `fresh`),
			succeeds.then(prints(`fwd=uri-miss`), "curl -i http://127.0.0.1:8080/"),
			prints(`^objects +1$`, `http://127\.0\.0\.1:8000 +up`),
			prints(`^kaiku_`),
		}},
		{begins: "kaiku init", alone: true, lines: []docCheck{initFleet, checkFleet}},
		{begins: "kaiku deploy", lines: []docCheck{dryRun, deployAll}},
		{begins: "kaiku explain dns", lines: []docCheck{prints(`^hel1 .* healthy .* A +the nearest place`), allReady,
			prints(`hel1`, `fra1`, `nyc1`), drains, undrains}},
	}
}

func deployRows() []docRow {
	return []docRow{
		{begins: "kaiku init", alone: true, lines: []docCheck{initFleet, checkFleet}},
		{begins: "kaiku explain dns", alone: true, lines: []docCheck{explainDNS}},
		{begins: "kaiku deploy", lines: []docCheck{dryRun, deployAll}},
		// once name servers have found the edges healthy
		{begins: "dig @203.0.113.10", lines: []docCheck{soon(`^203\.0\.113\.10$`), soon(`^198\.51\.100\.20$`)}},
		{begins: "dig NS", lines: []docCheck{
			prints(`^ns1\.example\.com\.$`, `^ns2\.example\.com\.$`),
			soon(`^cache-status: .*; hit`), // once there are certificates
			allReady,
		}},
		{begins: "kaiku status", lines: []docCheck{
			allReady,
			prints(`^hel1 +applied`, `^fra1 +applied`, `^nyc1 +applied`),
			prints(`^hel1: requested 1, stored 1$`, `^fra1: requested 1, stored 1$`, `^nyc1: requested 1, stored 1$`),
			prints(`^edge hel1:$`, `^key +https://www\.example\.com/$`),
			drains,
		}},
		{begins: "sudo kaiku status", on: "hel1",
			lines: []docCheck{prints(`^hel1 .* draining`, `^fra1 .* ready`, `^origin `),
				prints(`^hel1: undrain done`)}},
		{begins: "kaiku rotate", lines: []docCheck{
			prints(`^rotate: done`).then(allReady, statusOfFleet),
			prints(`^rotate: step 3 of 3`, `^rotate: done`).then(allReady, statusOfFleet).then(prints(`^HTTP/2 200`),
				"curl -sSi https://www.example.com/"),
		}},
	}
}

func purgeRows() []docRow {
	return []docRow{
		{begins: "sites:", text: writePurgeFleet},
		{begins: "$ kaiku purge", lines: []docCheck{asShown, asShown, asShown}},
		{begins: "$ curl -X POST http://127.0.0.1:9080/v1", lines: []docCheck{asShown, asShown, asShown, asShown}},
		{begins: "$ curl -X PURGE http://127.0.0.1:8080/a", lines: []docCheck{asShown}},
		{begins: "curl -X PURGE http://127.0.0.1:8080/ ", lines: []docCheck{prints(`^Purged`), prints(`^Purged`)}},
		{begins: "curl -X PURGE 'http://127.0.0.1:8080/.*'", lines: []docCheck{prints(`^Purged`)}},
		{begins: "curl -X PURGE http://127.0.0.1:8080/ ", lines: []docCheck{prints(`^Purged`)}},
		{begins: "curl -X BAN", lines: []docCheck{prints(`^Purged`)}},
		{begins: "curl -X BAN", lines: []docCheck{prints(`^Purged`), prints(`^Purged`)}},
		{begins: "$ curl -X BAN", lines: []docCheck{asShown}},
		{begins: "$ curl -X POST http://127.0.0.1:9080/service",
			lines: []docCheck{asShown, asShown, asShown, asShown, asShown, asShown}},
		{begins: "$ curl -X POST http://127.0.0.1:9080/client/v4", lines: []docCheck{asShown, asShown}},
		{begins: "$ kaiku warm", lines: []docCheck{asShown, asShown, asShown}},
	}
}

// writePurgeFleet writes the fleet file whose beginning purge.md shows, and its tokens.
func writePurgeFleet(t *testing.T, s *docShell, text string) {
	text += "nodes: { hel1: { roles: [edge], location: [60.17, 24.94], addresses: [127.0.0.1], edge: { data: " +
		filepath.Join(s.dir, "data") + ", disk: 128MiB } } }\n"
	writeFiles(t, s.dir, map[string]string{"fleet.yaml": text, "admin.token": "admin-secret\n",
		"deploy.token": "deploy-secret\n"})
	stays("127.0.0.1:9080")(t, s, "kaiku serve --config fleet.yaml --node hel1", "")
}

func originsRows() []docRow {
	return []docRow{
		{begins: "sites:", alone: true, text: isBucket},
		{begins: "kaiku edge", lines: []docCheck{stays("127.0.0.1:8080")}},
		{begins: "$ curl http://127.0.0.1:8080/", lines: []docCheck{asShown, asShown}},
	}
}

func tlsRows() []docRow {
	return []docRow{
		{begins: "tls:\n  acme:", alone: true, text: isFleetFile},
		{begins: "tls:\n  certificates:", alone: true, text: isFleetFile},
		{begins: "sysctl -w", alone: true, text: isWhatDeployWrites},
	}
}

func dnsRows() []docRow {
	return []docRow{
		{begins: "kaiku dnssec keygen", alone: true, lines: []docCheck{makesKey}},
		{begins: "geodns:", alone: true, text: isSignedZone},
	}
}

// makesKey checks that a command writes the key of a zone into the folder of a fleet.
func makesKey(t *testing.T, s *docShell, command, _ string) {
	folder := filepath.Join(s.dir, "fleet")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	succeeds(t, s, command, "")
	if files, err := os.ReadDir(folder); err != nil || len(files) != 1 {
		t.Errorf("%s wrote %v, %v", command, files, err)
	}
}

// isSignedZone checks that a part with a signed zone is valid in a fleet file.
func isSignedZone(t *testing.T, s *docShell, text string) {
	s.run(t, "kaiku dnssec keygen example.com.key")
	zone := "$TTL 300\n@ SOA ns1 hostmaster 1 7200 1800 1209600 60\n@ NS ns1\nns1 A 203.0.113.10\n"
	writeFiles(t, s.dir, map[string]string{"example.com.zone": zone})
	isFleet("edge, geodns")(t, s, "sites: [{ name: www, hosts: [www.example.com], "+
		"origin: { servers: [\"http://127.0.0.1:8000\"] } }]\n"+
		strings.Replace(text, "dnssec:", "edges: { www: {} }\n      dnssec:", 1))
}

// isBucket checks that a site with a bucket is valid, with a key in its file.
func isBucket(t *testing.T, s *docShell, text string) {
	if err := os.MkdirAll(filepath.Join(s.dir, "secrets"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFiles(t, s.dir, map[string]string{
		"secrets/assets.s3": "aws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = wJalrXUtnFEMI\n"})
	if err := os.Chmod(filepath.Join(s.dir, "secrets/assets.s3"), 0o600); err != nil {
		t.Fatal(err)
	}
	isFleet("edge")(t, s, text)
}

// isFleet checks that a text is a fleet file but for its node, which has some roles.
func isFleet(roles string) func(t *testing.T, s *docShell, text string) {
	return func(t *testing.T, s *docShell, text string) {
		writeFiles(t, s.dir, map[string]string{"part.yaml": text + "nodes: { hel1: { roles: [" + roles + "], " +
			"location: [60.17, 24.94], addresses: [203.0.113.10] } }\n"})
		prints(`is fine(, with [0-9]+ warnings?)?: 1 site, 1 node`)(t, s, "kaiku check --config part.yaml", "")
	}
}

// isFleetFile checks that a part that a document shows is valid in a fleet file.
func isFleetFile(t *testing.T, s *docShell, text string) {
	f := "sites: [{ name: www, hosts: [www.example.com], origin: { servers: [\"http://127.0.0.1:8000\"] } }]\n" +
		"nodes: { hel1: { roles: [edge], location: [60.17, 24.94], addresses: [203.0.113.10] } }\n"
	config := filepath.Join(s.dir, "part.yaml")
	if err := os.WriteFile(config, []byte(f+text), 0o600); err != nil {
		t.Fatal(err)
	}
	prints(`is fine(, with [0-9]+ warnings?)?: 1 site, 1 node`)(t, s, "kaiku check --config part.yaml", "")
}

// isWhatDeployWrites checks that a deploy sets the same kernel settings as a command. It does not
// run the command, which would change the machine of the test.
func isWhatDeployWrites(t *testing.T, _ *docShell, text string) {
	n := deploy.Node{Name: "hel1", Service: deploy.Service{}}
	files, err := n.Units()
	if err != nil {
		t.Fatal(err)
	}
	var settings string
	for _, f := range files {
		if strings.HasPrefix(f.Path, "/etc/sysctl.d/") {
			settings += string(f.Data)
		}
	}
	command, _, _ := strings.Cut(text, "#")
	for _, setting := range strings.Fields(command)[2:] {
		if name, value, _ := strings.Cut(setting, "="); !strings.Contains(settings, name+" = "+value) {
			t.Errorf("a deploy does not set %s, but:\n%s", setting, settings)
		}
	}
}

func performanceRows() []docRow {
	return []docRow{{begins: "make bench", alone: true, lines: []docCheck{takesFlags, takesFlags}}}
}

// takesFlags checks that a make command runs a program that accepts its flags. It does not run the
// benchmark, which takes a quarter of an hour: `make -n` prints the program's command line, and
// -list makes the program print its cases.
func takesFlags(t *testing.T, s *docShell, command, _ string) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(s.run(t,
		strings.Replace(command, "make ", "make -n -C "+root+" --no-print-directory ", 1))), "\n")
	program, flags, _ := strings.Cut(lines[len(lines)-1], " ")
	if program != "bin/bench-http" {
		t.Fatalf("%s runs %s", command, program)
	}
	prints(`nginx`)(t, s, "go run -C "+root+" ./bench/http "+flags+" -list", "")
}
