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

// Bind is an address that a node's process listens on, or systemd on its behalf.
type Bind struct {
	Network string // tcp or udp
	Addr    string // such as :80 or 192.0.2.1:80
	Key     string // key of the address in the fleet file
}

// socket is a listening socket of a node.
type socket struct {
	network string
	addr    netip.Addr // invalid means all addresses
	port    uint16
	owners  []owner // empty if unknown
}

// owner is a process that has a socket open.
type owner struct {
	name string
	pid  int
}

// ownerRE matches a process in the last column of ss -p, such as ("nginx",pid=812,fd=6).
var ownerRE = regexp.MustCompile(`\("((?:[^"\\]|\\.){0,64})",pid=(\d{1,9}),fd=\d+\)`)

// interfaceRE matches the interface in an address such as 127.0.0.53%lo:53.
var interfaceRE = regexp.MustCompile(`%[^:\]]*`)

// parseSocket parses a line of ss -Hlntup.
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
	if host != "*" { // "*" means all addresses of both families
		if s.addr, err = netip.ParseAddr(host); err != nil {
			return socket{}, err
		}
		if s.addr = s.addr.Unmap(); s.addr.IsUnspecified() {
			s.addr = netip.Addr{}
		}
	}
	for _, m := range ownerRE.FindAllStringSubmatch(line, 64) {
		pid, _ := strconv.Atoi(m[2]) // ownerRE allows at most nine digits
		if o := (owner{m[1], pid}); !slices.Contains(s.owners, o) {
			s.owners = append(s.owners, o)
		}
	}
	return s, nil
}

// String returns the address as messages show it.
func (s socket) String() string {
	host := "*"
	if s.addr.IsValid() {
		host = s.addr.String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(s.port))) + "/" + s.network
}

// ownerNames returns the processes that own the socket, as messages show them.
func (s socket) ownerNames() string {
	var out []string
	for _, o := range s.owners {
		out = append(out, fmt.Sprintf("%s (pid %d)", o.name, o.pid))
	}
	if len(out) == 0 {
		return "a program"
	}
	return strings.Join(out[:min(len(out), 3)], ", ")
}

// conflicts reports whether the socket prevents a node from binding an address.
func (s socket) conflicts(b Bind) bool {
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

// checkPorts returns an error if another program uses an address of the node.
func (st *state) checkPorts(n *Node) error {
	var errs []error
	told := map[string]bool{}
	for _, b := range n.Binds {
		for _, s := range st.sockets {
			if !s.conflicts(b) || st.isOwn(s) || n.needsPort53() && s.isStub() || told[s.String()] {
				continue
			}
			told[s.String()] = true
			mend := "stop it"
			if len(s.owners) > 0 {
				mend = fmt.Sprintf("stop it (systemctl status %d prints its unit)", s.owners[0].pid)
			}
			errs = append(errs, fmt.Errorf("%s listens on %s, which %s needs: %s, or change %s", s.ownerNames(), s,
				b.Key, mend, b.Key))
		}
	}
	return errors.Join(errs...)
}

// isOwn reports whether a socket belongs to the running kaiku.service or to its kaiku.socket.
func (st *state) isOwn(s socket) bool {
	if slices.ContainsFunc(s.owners, func(o owner) bool { return o.pid == st.pid }) {
		return true
	}
	return s.network == "tcp" && slices.ContainsFunc(s.owners, func(o owner) bool { return o.pid == 1 }) &&
		slices.ContainsFunc(st.listens, func(l string) bool {
			if !strings.Contains(l, ":") {
				l = ":" + l
			}
			return s.conflicts(Bind{Network: "tcp", Addr: l})
		})
}

// isStub reports whether a socket belongs to systemd-resolved, which releases it during a deploy.
func (s socket) isStub() bool {
	return (s.addr == netip.AddrFrom4([4]byte{127, 0, 0, 53}) || s.addr == netip.AddrFrom4([4]byte{127, 0, 0, 54})) &&
		slices.ContainsFunc(s.owners, func(o owner) bool { return strings.HasPrefix(o.name, "systemd-resolve") })
}
