package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writeAll writes files below a folder.
func writeAll(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// audited loads and audits a fleet file, and returns what kaiku check prints of it.
func audited(t *testing.T, file string, opt Audit) (told string, failed bool) {
	t.Helper()
	f, zones, err := Load(file)
	if err == nil {
		err = f.Audit(t.Context(), zones, opt)
	}
	if err != nil {
		return err.Error() + "\n", true
	}
	var out strings.Builder
	f.PrintWarnings(&out)
	return out.String(), false
}

// checked is audited without the file's name and lines.
func checked(t *testing.T, config string) (told string, failed bool) {
	t.Helper()
	text, failed := audited(t, config, Audit{Files: true})
	var lines []string
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, config+":"); ok {
			lines = append(lines, strings.ReplaceAll(strings.TrimSpace(rest), filepath.Dir(config), "DIR"))
		}
	}
	return strings.Join(lines, "\n"), failed
}

// selfSigned returns a self-signed certificate and its key, in PEM.
func selfSigned(t *testing.T, until time.Time) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"a.example"},
		NotBefore: until.Add(-time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

const filesFleet = `sites: [{ name: www, hosts: [a.example], origin: { servers: ["https://b.example"]ORIGIN } }]
nodes: { hel1: { roles: [edge], location: [1, 2], addresses: [203.0.113.10] } }
`

// Relative paths in the fleet file start from its folder. Files with absolute paths may exist only
// on nodes.
func TestCheckFiles(t *testing.T) {
	dir := t.TempDir()
	cert, key := selfSigned(t, time.Now().Add(time.Hour))
	past := time.Now().Add(-time.Hour)
	old, oldKey := selfSigned(t, past)
	writeAll(t, dir, map[string]string{"fleet.key": strings.Repeat("k", 40), "short.key": "k", "admin.token": "t\n",
		"empty.token": "\n", "tls.crt": cert, "tls.key": key, "old.crt": old, "old.key": oldKey,
		"beside/x.key": strings.Repeat("k", 40)})
	const inline = "hJ2kq9Qe1b0YxvT5oW7uRz3mN8cLpA6sDfGhJkL4="
	for _, c := range []struct {
		name, origin, rest string
		want               string
		fails              bool
	}{
		{"all there", "", "secrets: { fleet_key: fleet.key, admin_token: admin.token }\ntls: { certificates: [{ cert: tls.crt, key: tls.key }] }\n", "", false},
		{"a token that is not there", "", "secrets: { admin_token: admn.token }\n",
			"3:12: secrets.admin_token: there is no such file as DIR/admn.token: did you mean admin.token?", true},
		{"a key that is nowhere near", "", "secrets: { fleet_key: other/secret }\n",
			"3:12: secrets.fleet_key: there is no such file as DIR/other/secret", true},
		{"a key that nodes have", "", "secrets: { fleet_key: /etc/kaiku/nodes.key }\n",
			"3:12: warning: secrets.fleet_key: there is no file /etc/kaiku/nodes.key here, nor nodes.key beside the fleet file: nodes need it", false},
		{"a key that nodes have elsewhere", "", "secrets: { fleet_key: /run/secrets/nodes_key }\n",
			"3:12: warning: secrets.fleet_key: there is no file /run/secrets/nodes_key here: nodes need it", false},
		{"a key that nodes have, and the operator beside", "", "secrets: { fleet_key: /etc/kaiku/beside/x.key }\n", "",
			false},
		{"a key that is too short", "", "secrets: { fleet_key: short.key }\n",
			"3:12: secrets.fleet_key: read the fleet key: DIR/short.key: a fleet key of 1 characters is too short: want a line of at least 32 random characters, such as `openssl rand -base64 32` prints", true},
		{"an empty token", "", "secrets: { tokens: [{ file: empty.token, scopes: [purge] }] }\n",
			"3:23: secrets.tokens[0].file: DIR/empty.token: no secret: want one secret a line", true},
		{"a folder", "", "secrets: { fleet_key: beside }\n", "3:12: secrets.fleet_key: DIR/beside is not a file", true},
		{"the secret itself", "", "secrets: { fleet_key: " + inline + " }\n",
			"3:12: secrets.fleet_key: this is the place of a file's name, never of the secret itself: write the secret to a file that only you can read, and name that", true},
		{"a certificate that is not there", "", "tls: { certificates: [{ cert: tsl.crt, key: tls.key }] }\n",
			"3:25: tls.certificates[0].cert: there is no such file as DIR/tsl.crt: did you mean tls.crt?", true},
		{"a key of another certificate", "", "tls: { certificates: [{ cert: tls.crt, key: old.key }] }\n",
			"3:25: tls.certificates[0].cert: DIR/old.key is not the private key, in PEM, of the certificate DIR/tls.crt", true},
		{"certificate and key swapped", "", "tls: { certificates: [{ cert: tls.key, key: tls.crt }] }\n",
			"3:25: tls.certificates[0].cert: DIR/tls.key does not begin with a certificate in PEM: want -----BEGIN CERTIFICATE-----, its chain after it", true},
		{"a certificate of the past", "", "tls: { certificates: [{ cert: old.crt, key: old.key }] }\n",
			"3:25: warning: tls.certificates[0].cert: DIR/old.crt: the certificate was good until " +
				past.UTC().Format(time.DateOnly), false},
		{"an authority of the origin that is none", ", ca: admin.token", "",
			"1:84: sites[0].origin.ca: there is no certificate in PEM in DIR/admin.token", true},
		{"an authority of the origin that is not there", ", ca: ca.pem", "",
			"1:84: sites[0].origin.ca: there is no such file as DIR/ca.pem", true},
		{"an authority of ACME", "", "tls: { acme: { email: a@b.example, ca: short.key } }\n",
			"3:36: tls.acme.ca: there is no certificate in PEM in DIR/short.key", true},
		{"the origin's secret", ", auth: { header: X-A, secret: origin.secret }", "",
			"1:105: sites[0].origin.auth.secret: there is no such file as DIR/origin.secret", true},
		{"a certificate for the origin", ", client_certificate: { cert: tls.crt, key: old.key }", "",
			"1:106: sites[0].origin.client_certificate.cert: DIR/old.key is not the private key, in PEM, of the certificate DIR/tls.crt", true},
		{"a database that is not there", "", "geodns: { geoip: GeoLite2.mmdb }\n",
			"3:11: geodns.geoip: there is no such file as DIR/GeoLite2.mmdb", true},
		{"a database that nodes have", "", "geodns: { geoip: /var/lib/GeoIP/none.mmdb }\n",
			"3:11: warning: geodns.geoip: there is no file /var/lib/GeoIP/none.mmdb here: nodes need it", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := filepath.Join(dir, "fleet.yaml")
			writeAll(t, dir, map[string]string{"fleet.yaml": strings.Replace(filesFleet, "ORIGIN", c.origin,
				1) + c.rest})
			told, failed := checked(t, config)
			if told != c.want || failed != c.fails {
				t.Errorf("fails is %v, and it tells\n%s\nwant %v\n%s", failed, told, c.fails, c.want)
			}
			if strings.Contains(told, inline) {
				t.Error("the secret is shown")
			}
		})
	}
	writeAll(t, dir, map[string]string{"fleet.yaml": strings.Replace(filesFleet, "ORIGIN", "",
		1) + "secrets: { admin_token: " + inline + " }\n"})
	if told, _ := audited(t, filepath.Join(dir, "fleet.yaml"), Audit{Files: true}); strings.Contains(told, inline) {
		// nor as a part of the line
		t.Errorf("the secret is shown:\n%s", told)
	}
}
