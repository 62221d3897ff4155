package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
)

// inherited has the listeners that systemd passed to this process. Connections wait in them while
// the process restarts. A nil inherited has none.
type inherited struct {
	mu        sync.Mutex
	listeners []net.Listener // those that are not in use yet
}

// firstInherited is the first file descriptor that systemd passes (SD_LISTEN_FDS_START).
const firstInherited = 3

// takeInherited takes the listeners that are passed as in sd_listen_fds(3). It unsets the
// environment variables, so that child processes don't see them.
func takeInherited() (*inherited, error) {
	pid, count := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(v)
	}
	if count == "" || pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > 1024 {
		return nil, fmt.Errorf("LISTEN_FDS is %q: want a number", count)
	}
	in := &inherited{}
	for fd := firstInherited; fd < firstInherited+n; fd++ {
		syscall.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), "systemd")
		l, err := net.FileListener(f) // has a descriptor of its own
		f.Close()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("socket %d of systemd: %w", fd, err), in.close())
		}
		in.listeners = append(in.listeners, l)
	}
	return in, nil
}

// listen returns the listener that was passed for an address, or binds one.
func (in *inherited) listen(ctx context.Context, addr string) (net.Listener, error) {
	if in != nil {
		in.mu.Lock()
		defer in.mu.Unlock()
		for i, l := range in.listeners {
			if sameAddress(l.Addr(), addr) {
				in.listeners = append(in.listeners[:i], in.listeners[i+1:]...)
				return l, nil
			}
		}
	}
	return (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
}

// close closes the listeners that are not in use, so that no client waits in them.
func (in *inherited) close() error {
	if in == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	var err error
	for _, l := range in.listeners {
		err = errors.Join(err, l.Close())
	}
	in.listeners = nil
	return err
}

// sameAddress reports whether a listener has an address of the fleet file. It takes "", 0.0.0.0 and
// :: as equal.
func sameAddress(at net.Addr, addr string) bool {
	tcp, ok := at.(*net.TCPAddr)
	if !ok {
		return false
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil || n != tcp.Port {
		return false
	}
	if host == "localhost" {
		return tcp.IP.IsLoopback()
	}
	ip, err := netip.ParseAddr(host)
	if host != "" && err != nil {
		return false
	}
	bound := tcp.AddrPort().Addr().Unmap()
	if host == "" || ip.IsUnspecified() {
		return bound.IsUnspecified()
	}
	return bound == ip.Unmap()
}

// notify sends systemd a state such as READY=1 or STOPPING=1, like sd_notify(3). Without systemd it
// does nothing.
func notify(state string) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	// package net handles the @ of abstract sockets
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	_, err = c.Write([]byte(state))
	return errors.Join(err, c.Close())
}

// readiness is a service that notifies systemd when the other services listen, and when they stop.
// It is the last service of a process.
type readiness struct {
	in     *inherited
	status string // a line for systemctl status
	log    *slog.Logger
}

// Listen notifies systemd that all services before it listen.
func (r readiness) Listen(context.Context) error {
	return errors.Join(r.in.close(), notify("READY=1\nSTATUS="+r.status))
}

// Serve waits until ctx ends.
func (r readiness) Serve(ctx context.Context) error {
	<-ctx.Done()
	if err := notify("STOPPING=1"); err != nil {
		r.log.Warn("notify systemd", "error", err)
	}
	return nil
}
