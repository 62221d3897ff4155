package deploy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Bind is an address that the process of a node listens on, or systemd for it.
type Bind struct {
	Network string // tcp or udp
	Addr    string // as :80 or 192.0.2.1:80
	Key     string // that gives the address in the fleet file
}

// socket is a listener that is on a node.
type socket struct {
	network string
	addr    netip.Addr // not valid for all addresses
	port    uint16
	owners  []owner // none if they are not known
}

// owner is a process that has a socket.
type owner struct {
	name string
	pid  int
}

// ownerRE matches a process in the last column of ss -p, as ("nginx",pid=812,fd=6).
var ownerRE = regexp.MustCompile(`\("((?:[^"\\]|\\.){0,64})",pid=(\d{1,9}),fd=\d+\)`)

// interfaceRE matches the interface of an address, as in 127.0.0.53%lo:53.
var interfaceRE = regexp.MustCompile(`%[^:\]]*`)

// parseSocket reads a line of ss -Hlntup.
func parseSocket(line string) (socket, error) {
	f := strings.Fields(line)
	if len(f) < 6 || f[0] != "tcp" && f[0] != "udp" {
		return socket{}, errors.New("no listener of TCP or UDP")
	}
	host, port, err := net.SplitHostPort(interfaceRE.ReplaceAllString(f[4], ""))
	if err != nil {
		return socket{}, err
	}
	s := socket{network: f[0]}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return socket{}, err
	}
	s.port = uint16(n)
	if host != "*" { // all addresses of both families
		if s.addr, err = netip.ParseAddr(host); err != nil {
			return socket{}, err
		}
		if s.addr = s.addr.Unmap(); s.addr.IsUnspecified() {
			s.addr = netip.Addr{}
		}
	}
	for _, m := range ownerRE.FindAllStringSubmatch(line, 64) {
		pid, _ := strconv.Atoi(m[2]) // of nine digits at most
		if o := (owner{m[1], pid}); !slices.Contains(s.owners, o) {
			s.owners = append(s.owners, o)
		}
	}
	return s, nil
}

// String is the address for people.
func (s socket) String() string {
	host := "*"
	if s.addr.IsValid() {
		host = s.addr.String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(s.port))) + "/" + s.network
}

// holder is who has the socket, for people.
func (s socket) holder() string {
	var out []string
	for _, o := range s.owners {
		out = append(out, fmt.Sprintf("%s (pid %d)", o.name, o.pid))
	}
	if len(out) == 0 {
		return "a program"
	}
	return strings.Join(out[:min(len(out), 3)], ", ")
}

// inTheWay reports whether a node can't bind an address because of the socket.
func (s socket) inTheWay(b Bind) bool {
	host, port, err := net.SplitHostPort(b.Addr)
	if err != nil {
		return false
	}
	n, err := net.LookupPort(b.Network, port)
	if err != nil || n != int(s.port) || b.Network != s.network || n == 0 {
		return false
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	want, err := netip.ParseAddr(host)
	return err != nil || want.IsUnspecified() || !s.addr.IsValid() || s.addr == want.Unmap()
}

// busy are the addresses of a node that another program has.
func (st *state) busy(n *Node) error {
	var errs []error
	told := map[string]bool{}
	for _, b := range n.Binds {
		for _, s := range st.sockets {
			if !s.inTheWay(b) || st.own(s) || n.needsPort53() && s.isStub() || told[s.String()] {
				continue
			}
			told[s.String()] = true
			mend := "stop it"
			if len(s.owners) > 0 {
				mend = fmt.Sprintf("stop it (systemctl status %d tells its unit)", s.owners[0].pid)
			}
			errs = append(errs, fmt.Errorf("%s listens on %s, which %s needs: %s, or change %s", s.holder(), s, b.Key, mend, b.Key))
		}
	}
	return errors.Join(errs...)
}

// own reports whether a socket is that of the running kaiku.service, or of its kaiku.socket.
func (st *state) own(s socket) bool {
	if slices.ContainsFunc(s.owners, func(o owner) bool { return o.pid == st.pid }) {
		return true
	}
	return s.network == "tcp" && slices.ContainsFunc(s.owners, func(o owner) bool { return o.pid == 1 }) &&
		slices.ContainsFunc(st.listens, func(l string) bool {
			if !strings.Contains(l, ":") {
				l = ":" + l
			}
			return s.inTheWay(Bind{Network: "tcp", Addr: l})
		})
}

// isStub reports whether a socket is that of systemd-resolved, which a deploy has give it up.
func (s socket) isStub() bool {
	return (s.addr == netip.AddrFrom4([4]byte{127, 0, 0, 53}) || s.addr == netip.AddrFrom4([4]byte{127, 0, 0, 54})) &&
		slices.ContainsFunc(s.owners, func(o owner) bool { return strings.HasPrefix(o.name, "systemd-resolve") })
}
