//go:build linux

package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

const (
	theService = "kaiku.service"
	theSocket  = "kaiku.socket"
)

// manager has the units of a machine: one service, and one socket for it.
type manager struct {
	job sync.Mutex // held while a unit is started or stopped

	mu        sync.Mutex
	units     map[string]unit // as read since the last daemon-reload
	listeners []*os.File      // of the socket; nil if it is not active
	service   *service        // nil if it is not started
}

func newManager() *manager { return &manager{units: map[string]unit{}} }

// load returns a unit as it was when it was first used after the last daemon-reload.
func (m *manager) load(name string) (unit, error) {
	if name != theService && name != theSocket {
		return nil, fmt.Errorf("unit %s not found", name)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if u, ok := m.units[name]; ok {
		return u, nil
	}
	u, err := readUnit(name)
	if err == nil {
		m.units[name] = u
	}
	return u, err
}

func (m *manager) reload() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.units)
	return nil
}

func (m *manager) state(name string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case name == theSocket && m.listeners != nil:
		return "active"
	case name == theService && m.service != nil:
		return m.service.now()
	}
	return "inactive"
}

func (m *manager) mainPID() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.service == nil {
		return 0
	}
	return m.service.mainPID()
}

// invocation returns the ID of the service's last start, or "" if there was none.
func (m *manager) invocation() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.service == nil {
		return ""
	}
	return m.service.lastInvocation()
}

// statusText returns the status that the service has sent.
func (m *manager) statusText() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.service == nil {
		return ""
	}
	return m.service.statusText()
}

func (m *manager) start(name string) error {
	m.job.Lock()
	defer m.job.Unlock()
	return m.startUnit(name)
}

func (m *manager) startUnit(name string) error {
	u, err := m.load(name)
	if err != nil {
		return err
	}
	if state := m.state(name); state == "active" {
		return nil
	}
	for _, needed := range u["Unit.Requires"] {
		if err := m.startUnit(needed); err != nil {
			return fmt.Errorf("a dependency job for %s failed: %w", name, err)
		}
	}
	if name == theSocket {
		return m.listen(u)
	}
	m.stopService() // it may be waiting for a restart
	s := &service{unit: u, quit: make(chan struct{}), ended: make(chan struct{})}
	m.mu.Lock()
	s.listeners, s.names = m.listeners, m.units[theSocket].get("Socket.FileDescriptorName")
	m.service = s
	m.mu.Unlock()
	first := make(chan error, 1)
	go s.keep(first)
	return <-first
}

// listen opens the sockets of kaiku.socket. They stay open while the service restarts.
func (m *manager) listen(u unit) error {
	if m.state(theService) == "active" {
		return fmt.Errorf("%s: socket service %s already active, refusing", theSocket, theService)
	}
	free := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP,
				syscall.IP_FREEBIND, 1)
		}), err)
	}}
	var files []*os.File
	for _, addr := range u["Socket.ListenStream"] {
		if _, err := strconv.Atoi(addr); err == nil {
			addr = ":" + addr
		}
		l, err := free.Listen(context.Background(), "tcp", addr)
		if err != nil {
			closeAll(files)
			return fmt.Errorf("%s: %w", theSocket, err)
		}
		f, err := l.(*net.TCPListener).File() // a file descriptor of its own
		l.Close()
		if err != nil {
			closeAll(files)
			return err
		}
		files = append(files, f)
	}
	m.mu.Lock()
	m.listeners = files
	m.mu.Unlock()
	return nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

func (m *manager) stop(name string) error {
	m.job.Lock()
	defer m.job.Unlock()
	m.stopService() // even for the socket, which the service requires
	if name == theSocket {
		m.mu.Lock()
		closeAll(m.listeners)
		m.listeners = nil
		m.mu.Unlock()
	}
	return nil
}

func (m *manager) stopService() {
	m.mu.Lock()
	s := m.service
	m.mu.Unlock()
	if s == nil {
		return
	}
	close(s.quit)
	<-s.ended
	m.mu.Lock()
	m.service = nil
	m.mu.Unlock()
}

func (m *manager) reloadUnit(name string) error {
	m.job.Lock()
	defer m.job.Unlock()
	u, err := m.load(name)
	if err != nil {
		return err
	}
	if m.state(name) != "active" {
		return fmt.Errorf("%s is not active, cannot reload", name)
	}
	words := strings.Fields(strings.ReplaceAll(u.get("Service.ExecReload"), "$MAINPID", strconv.Itoa(m.mainPID())))
	if len(words) == 0 || !filepath.IsAbs(words[0]) {
		return fmt.Errorf("%s has no ExecReload", name)
	}
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
