package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// check warns of paths that the systemd unit hides from the process, and deploy refuses them.
func TestCheckSandbox(t *testing.T) {
	const fleet = `sites: [{ name: www, hosts: [a.example], origin: { servers: ["https://b.example"] } }]
nodes: { hel1: { roles: [edge], location: [1, 2], addresses: [203.0.113.10] } }
`
	const own = ": use /var/lib/kaiku, /var/log/kaiku or a folder for it alone, which deploy makes"
	for _, c := range []struct{ name, rest, want string }{
		{"what is documented", "edge: { data: /var/lib/kaiku/cache, access_log: { file: /var/log/kaiku/access.json } }\ngeodns: { query_log: { file: /var/log/kaiku/dns/q.json } }\ncontrol: { data: /var/lib/kaiku/control }\n", ""},
		{"folders of its own", "edge: { data: /srv/cache, access_log: { file: \"-\" } }\ngeodns: { query_log: { file: /var/log/cdn/q.json } }\ncontrol: { data: /data/my log }\n", ""},
		{"below its folder", "edge: { data: cache }\n", ""},
		{"data in a home", "edge: { data: /home/ops/cache }\n",
			"edge.data: kaiku.service can't write /home/ops/cache: ProtectHome keeps it from /home"},
		{"data in a folder that is lost", "edge: { data: /tmp/../tmp/cache }\n",
			"edge.data: kaiku.service can't write /tmp/../tmp/cache: PrivateTmp keeps it from /tmp"},
		{"data of a node", "control: { data: /root/control }\n",
			"control.data: kaiku.service can't write /root/control: ProtectHome keeps it from /root"},
		{"a log of root's", "edge: { access_log: { file: /var/log/access.json } }\n",
			"edge.access_log.file: kaiku.service can't write /var/log/access.json: /var/log belongs to root" + own},
		{"a log beside the fleet file", "geodns: { query_log: { file: queries.json } }\n",
			"geodns.query_log.file: kaiku.service can't write queries.json: /etc/kaiku belongs to root" + own},
		{"a log that is a device", "edge: { access_log: { file: /dev/stdout } }\n",
			"edge.access_log.file: kaiku.service can't write /dev/stdout: PrivateDevices keeps it from /dev"},
		{"a folder that no script takes", "edge: { data: /srv/$HOME }\n",
			`edge.data: kaiku.service can't write /srv/$HOME: "/srv/$HOME" is not a valid path on a node: want an absolute path of letters, digits and ._-+@`},
		{"a certificate in a home", "tls: { certificates: [{ cert: /root/tls.crt, key: /etc/kaiku/tls.key }] }\n",
			"tls.certificates[0].cert: kaiku.service can't read /root/tls.crt: ProtectHome keeps it from /root"},
		{"a certificate of certbot", "tls: { certificates: [{ cert: /etc/letsencrypt/live/a.example/fullchain.pem, key: /etc/kaiku/tls.key }] }\n",
			"tls.certificates[0].cert: kaiku.service can't read /etc/letsencrypt/live/a.example/fullchain.pem: /etc/letsencrypt/live is for root alone: have a copy in /etc/kaiku"},
		{"a database in a home", "geodns: { geoip: /home/ops/geo.mmdb }\n",
			"geodns.geoip: kaiku.service can't read /home/ops/geo.mmdb: ProtectHome keeps it from /home"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := filepath.Join(t.TempDir(), "fleet.yaml")
			writeAll(t, filepath.Dir(config), map[string]string{"fleet.yaml": fleet + c.rest})
			told, failed := checked(t, config)
			var got []string
			for line := range strings.Lines(told) {
				if _, msg, ok := strings.Cut(line, "warning: "); ok && strings.Contains(msg, "kaiku.service") {
					got = append(got, strings.TrimSpace(msg))
				}
			}
			if failed || strings.Join(got, "\n") != c.want {
				t.Errorf("failed is %v, and it tells\n%s\nwant\n%s", failed, strings.Join(got, "\n"), c.want)
			}
			if c.want == "" {
				return
			}
			if told, failed := audited(t, config, Audit{Files: true, Strict: true}); !failed ||
				!strings.Contains(told, c.want) {
				t.Errorf("as deploy asks: %s", told)
			}
		})
	}
	unit, err := os.ReadFile("../../../deploy/systemd/kaiku.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, setting := range []string{"ProtectHome=yes", "PrivateTmp=yes", "PrivateDevices=yes",
		"ProtectKernelTunables=yes", "ProtectSystem=strict", "User=kaiku", "StateDirectory=kaiku",
		"LogsDirectory=kaiku"} {
		if !strings.Contains(string(unit), "\n"+setting+"\n") {
			t.Errorf("the unit has no %s, which check takes for granted", setting)
		}
	}
}
