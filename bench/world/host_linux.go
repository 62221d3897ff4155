package world

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Host describes a host to add.
type Host struct {
	Name string // a-z, 0-9
	At   Place
	Addr netip.Addr // an IPv4 address that no other host has
	Line Line
	// Home puts the host at the end of a home's line, so each of its round trips takes
	// Access longer.
	Home bool
}

// Hosts is a list of hosts to add.
type Hosts []Host

// Add adds a host in a network of its own. The n-th host has the address 198.18.n.10.
func (hs *Hosts) Add(h Host) {
	h.Addr = netip.AddrFrom4([4]byte{198, 18, byte(len(*hs) + 1), 10})
	*hs = append(*hs, h)
}

// Address returns the address of the host with a name, or "" if there is none.
func (hs Hosts) Address(name string) string {
	for _, h := range hs {
		if h.Name == name {
			return h.Addr.String()
		}
	}
	return ""
}

// World has hosts and the router between them. All its hosts are network namespaces whose names
// begin with prefix and the ID of this process.
type World struct {
	*Router
	// Congestion is the TCP congestion control of all hosts.
	Congestion string
	prefix     string

	mu        sync.Mutex
	hosts     map[string]Host
	processes []*Process
}

// prefix begins the names of the namespaces of all worlds.
const prefix = "kaikulab-"

// device is the name of each host's TUN device.
const device = "wan0"

// New returns an empty world. It removes what worlds of ended processes have left.
func New(seed uint64) (*World, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("network namespaces need root")
	}
	if err := removeStale(); err != nil {
		return nil, err
	}
	return &World{Router: newRouter(seed, newTimerfdAlarm), Congestion: "cubic",
		prefix: fmt.Sprintf("%s%d-", prefix, os.Getpid()), hosts: map[string]Host{}}, nil
}

// removeStale removes the namespaces of worlds whose process has ended. The kernel has killed their
// programs together with that process.
func removeStale() error {
	names, err := filepath.Glob("/run/netns/" + prefix + "*")
	for _, path := range names {
		name := filepath.Base(path)
		pid, _, _ := strings.Cut(strings.TrimPrefix(name, prefix), "-")
		n, bad := strconv.Atoi(pid)
		if bad == nil && errors.Is(syscall.Kill(n, 0), syscall.ESRCH) {
			err = errors.Join(err, ip("netns", "del", name))
		}
	}
	return err
}

// ip runs ip(8).
func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

const congestion = "/proc/sys/net/ipv4/tcp_congestion_control"

// settings returns the kernel settings of all hosts. They are Linux's defaults, whatever this
// machine is tuned to. One differs: hosts don't remember metrics of earlier connections, so that
// new connections start cold.
func settings() map[string]string {
	return map[string]string{
		"net/ipv4/tcp_no_metrics_save": "1", "net/ipv4/tcp_rmem": "4096 131072 6291456",
		"net/ipv4/tcp_wmem": "4096 16384 4194304", "net/ipv4/ip_local_port_range": "10000 65000",
		"net/ipv6/conf/all/disable_ipv6": "1",
	}
}

// Add adds a host, with links to all others.
func (w *World) Add(h Host) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := w.prefix + h.Name
	if err := ip("netns", "add", name); err != nil {
		return err
	}
	w.hosts[h.Name] = h
	err := inNamespace(name, func() error {
		// cubic is Linux's default. A namespace can use only an algorithm that the machine allows
		// to all users. Otherwise it keeps the machine's.
		if os.WriteFile(congestion, []byte("cubic"), 0o644) != nil {
			b, err := os.ReadFile(congestion)
			if err != nil {
				return err
			}
			w.Congestion = strings.TrimSpace(string(b))
		}
		for key, value := range settings() {
			if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0o644); err != nil &&
				!errors.Is(err, os.ErrNotExist) {
				// the setting does not exist without IPv6, and is not needed then
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	tun, err := openTUN(name, device)
	if err != nil {
		return err
	}
	for _, args := range [][]string{
		{"link", "set", "lo", "up"}, {"addr", "add", h.Addr.String() + "/24", "dev", device},
		{"link", "set", device, "mtu", strconv.Itoa(MTU), "txqueuelen", "10000", "up"}, {"route", "add", "default",
			"dev", device},
	} {
		if err := ip(append([]string{"-n", name}, args...)...); err != nil {
			tun.Close()
			return err
		}
	}
	if err := w.attach(h.Name, h.Addr, h.Line, tun); err != nil {
		tun.Close()
		return err
	}
	for _, other := range w.hosts {
		if other.Name == h.Name {
			continue
		}
		rtt, err := Between(h.At, other.At)
		if err != nil {
			return err
		}
		for _, end := range []Host{h, other} {
			if end.Home {
				rtt += Access
			}
		}
		if err := w.SetLink(h.Name, other.Name, func(l *Link) { l.Delay = rtt / 2 }); err != nil {
			return err
		}
	}
	return nil
}

// Dial connects from a host to an address, which has a port.
func (w *World) Dial(ctx context.Context, host, network, addr string) (c net.Conn, err error) {
	err = inNamespace(w.prefix+host, func() error {
		// The socket is made on this thread, because Go dials an IP address in the goroutine that
		// calls DialContext. The socket stays in this namespace.
		c, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

// Listen listens on an address of a host, which has a port. This process accepts the connections.
func (w *World) Listen(ctx context.Context, host, network, addr string) (l net.Listener, err error) {
	err = inNamespace(w.prefix+host, func() error {
		l, err = (&net.ListenConfig{}).Listen(ctx, network, addr)
		return err
	})
	return l, err
}

// Close kills all processes and removes all hosts.
func (w *World) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ends sync.WaitGroup
	for _, p := range w.processes {
		ends.Go(func() { p.Stop(syscall.SIGTERM, 5*time.Second) })
	}
	ends.Wait()
	w.close()
	var err error
	for name := range w.hosts {
		err = errors.Join(err, ip("netns", "del", w.prefix+name))
	}
	return err
}
