package deploy

import (
	"fmt"
	"strings"
	"testing"
)

const nginxSocket = `tcp   LISTEN 0      511          0.0.0.0:80         0.0.0.0:*    users:(("nginx",pid=813,fd=6),("nginx",pid=812,fd=6))`

// A port that another program uses is reported with that program before anything is changed.
func TestBusyPort(t *testing.T) {
	f := newTestFleet(t, "hel1", "nyc1")
	for i := range f.Nodes {
		f.Nodes[i].Binds = []Bind{{"tcp", ":80", "edge.http"}, {"tcp", ":443", "edge.https"},
			{"udp", ":443", "edge.https"}, {"tcp", "127.0.0.1:9080", "edge.admin"}}
	}
	n := f.nodes["hel1"]
	n.write(t, "/run/sockets", nginxSocket+"\n"+
		"udp UNCONN 0 0 [::]:443 [::]:* users:((\"caddy\",pid=900,fd=3))\n"+
		"tcp LISTEN 0 5 [fe80::1]%eth0:22 [::]:*\n"+
		"tcp LISTEN 0 5 *:8080 *:* users:((\"other\",pid=1000,fd=3))\n")
	_, err := f.Plan(t.Context())
	want := "node hel1: nginx (pid 813), nginx (pid 812) listens on *:80/tcp, which edge.http needs: stop it (systemctl status 813 prints its unit), or change edge.http\n" +
		"caddy (pid 900) listens on *:443/udp, which edge.https needs: stop it (systemctl status 900 prints its unit), or change edge.https"
	if err == nil || err.Error() != want {
		t.Errorf("the error is\n%v\nwant\n%s", err, want)
	}
	if got := n.tree(t, "/etc") + n.tree(t, "/usr"); got != "" {
		t.Errorf("something was changed:\n%s", got)
	}

	// Sockets that every machine has don't conflict.
	n.write(t, "/run/sockets", "")
	f.deploy(t)
	n.write(t, "/run/sockets", fmt.Sprintf("tcp LISTEN 0 5 *:80 *:* users:((\"kaiku\",pid=%d,fd=3),(\"systemd\",pid=1,fd=9))\nudp UNCONN 0 0 *:443 *:* users:((\"kaiku\",pid=%[1]d,fd=3))\n", n.pid()))
	if p, _ := f.deploy(t); !p.Nothing() {
		t.Errorf("there is something to do:\n%s", planText(p))
	}
}

func TestInTheWay(t *testing.T) {
	for _, c := range []struct {
		network, want, there string
		is                   bool
	}{
		{"tcp", ":80", "0.0.0.0:80", true}, {"tcp", ":80", "[::]:80", true}, {"tcp", ":80", "*:80", true}, {"tcp",
			":80", "127.0.0.1:80", true},
		{"tcp", "192.0.2.1:80", "*:80", true}, {"tcp", "192.0.2.1:80", "192.0.2.1:80", true}, {"tcp", "192.0.2.1:80",
			"[::ffff:192.0.2.1]:80", true},
		{"tcp", "192.0.2.1:80", "192.0.2.2:80", false}, {"tcp", ":80", "*:81", false}, {"udp", ":80", "*:80", false},
		{"tcp", ":http", "*:80", true},
		{"tcp", "localhost:80", "127.0.0.1:80", true}, {"tcp", ":53", "127.0.0.53%lo:53", true}, {"tcp", "80", "*:80",
			false},
	} {
		s, err := parseSocket("tcp LISTEN 0 5 " + c.there + " *:*")
		if err != nil {
			t.Fatal(err)
		}
		if got := s.conflicts(Bind{Network: c.network, Addr: c.want}); got != c.is {
			t.Errorf("%s %s with %s: %v", c.network, c.want, c.there, got)
		}
	}
}

// Sockets that systemd-resolved releases, and those of kaiku.socket, don't conflict.
func TestStubIsNotBusy(t *testing.T) {
	for line, want := range map[string]bool{
		`udp UNCONN 0 0 127.0.0.53%lo:53 0.0.0.0:* users:(("systemd-resolve",pid=300,fd=13))`: false,
		`udp UNCONN 0 0 127.0.0.1:53 0.0.0.0:* users:(("dnsmasq",pid=300,fd=13))`:             true,
		`tcp LISTEN 0 5 *:53 *:* users:(("systemd",pid=1,fd=13))`:                             false, // of kaiku.socket
		`tcp LISTEN 0 5 *:54 *:* users:(("systemd",pid=1,fd=13))`:                             true,  // of another unit
		`tcp LISTEN 0 5 *:53 *:*`: true,
	} {
		st, err := parseState([]byte("kernel Linux\npid 0\nlistens 53\nsocket " + line + "\nend\n"))
		if err != nil {
			t.Fatal(err)
		}
		n := &Node{Service: Service{Listen: []string{":53"},
			Binds: []Bind{{"tcp", ":53", "geodns.listen"}, {"udp", ":53", "geodns.listen"}, {"tcp", ":54", "x"}}}}
		if err := st.checkPorts(n); (err != nil) != want || err != nil && !strings.Contains(err.Error(), " needs: ") {
			t.Errorf("%s: %v", line, err)
		}
	}
}
