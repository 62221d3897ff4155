//go:build linux

package machine

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// service is a process that is restarted when it ends.
type service struct {
	unit      unit
	listeners []*os.File
	names     string // of the listeners
	quit      chan struct{}
	ended     chan struct{} // closed when none of its processes is left

	mu         sync.Mutex
	status     string
	pid        int
	invocation string // ID of the last start
	text       string // the last STATUS that the process sent
}

func (s *service) now() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

func (s *service) mainPID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pid
}

func (s *service) lastInvocation() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.invocation
}

func (s *service) statusText() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text
}

// told handles a message of the process (sd_notify(3)). It reports whether the process is ready.
func (s *service) told(state string) (ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range strings.Lines(state) {
		line = strings.TrimSuffix(line, "\n")
		ready = ready || line == "READY=1"
		if text, ok := strings.CutPrefix(line, "STATUS="); ok {
			s.text = text
		}
	}
	return ready
}

// begins returns the ID of a new start.
func (s *service) begins(at time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.invocation, s.text = fmt.Sprintf("%032x", at.UnixNano()), ""
	return s.invocation
}

func (s *service) is(status string, pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.pid = status, pid
}

// keep runs the process until quit is closed. It restarts the process whenever that ends, for
// Restart=always. It sends the result of the first start to first.
func (s *service) keep(first chan<- error) {
	defer close(s.ended)
	for {
		err := s.run(first)
		s.is("activating", 0) // systemd's auto-restart
		select {              // nobody receives if it was ready before
		case first <- err:
		default:
		}
		pause, perr := s.unit.seconds("Service.RestartSec", 0)
		if perr != nil || s.unit.get("Service.Restart") != "always" {
			s.is("failed", 0)
			<-s.quit
			return
		}
		select {
		case <-s.quit:
			return
		case <-time.After(pause):
		}
	}
}

// run runs the process once, until it ends. It sends nil to ready when the process says that it
// is ready.
func (s *service) run(ready chan<- error) error {
	s.is("activating", 0)
	patience, err1 := s.unit.seconds("Service.TimeoutStartSec", 90*time.Second)
	grace, err2 := s.unit.seconds("Service.TimeoutStopSec", 90*time.Second)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	const notify = "/run/systemd/notify"
	_ = os.Remove(notify) // of the previous process
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer told.Close()
	if err := os.Chmod(notify, 0o777); err != nil {
		return err
	}
	cmd, err := s.command(notify)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(journal, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	began := time.Now()
	if _, err := fmt.Fprintf(log, "-- %s %d.%09d\n", s.begins(began), began.Unix(), began.Nanosecond()); err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	s.is("activating", cmd.Process.Pid)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	said := make(chan struct{}, 1)
	go func() {
		state := make([]byte, 4096)
		for {
			n, err := told.Read(state)
			if err != nil {
				return
			}
			if s.told(string(state[:n])) {
				select {
				case said <- struct{}{}:
				default:
				}
			}
		}
	}()
	isReady, late := said, time.After(patience)
	for {
		select {
		case <-isReady:
			s.is("active", cmd.Process.Pid)
			isReady, late = nil, nil
			select {
			case ready <- nil:
			default:
			}
		case err := <-ended:
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // processes that it left behind
			return fmt.Errorf("job for %s failed because the control process exited: %w", theService,
				cmp.Or(err, errEnded))
		case <-late:
			end(cmd, ended, grace)
			return fmt.Errorf("job for %s failed because a timeout was exceeded", theService)
		case <-s.quit:
			s.is("deactivating", cmd.Process.Pid)
			end(cmd, ended, grace)
			return errors.New("it was stopped")
		}
	}
}

var errEnded = errors.New("it ended by itself")

// end terminates the process, and kills it if it has not ended after grace.
func end(cmd *exec.Cmd, ended <-chan error, grace time.Duration) {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) // the whole group, as with KillMode=control-group
	select {
	case <-ended:
	case <-time.After(grace):
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	}
}

// command returns the command for the process as the unit describes it, without cgroups
// and sandbox.
func (s *service) command(notify string) (*exec.Cmd, error) {
	u := s.unit
	if u.get("Service.Type") != "notify" || u.get("Service.NoNewPrivileges") != "yes" ||
		u.get("Service.AmbientCapabilities") != "CAP_NET_BIND_SERVICE" {
		return nil, errors.New("want Type=notify, NoNewPrivileges=yes and AmbientCapabilities=CAP_NET_BIND_SERVICE: no other is known here")
	}
	who, err := user.Lookup(u.get("Service.User"))
	if err != nil {
		return nil, err
	}
	uid, err1 := strconv.Atoi(who.Uid)
	gid, err2 := strconv.Atoi(who.Gid)
	files, err3 := strconv.ParseUint(u.get("Service.LimitNOFILE"), 10, 64)
	mask, err4 := strconv.ParseUint(u.get("Service.UMask"), 8, 12)
	err5 := u.folder("/var/lib/", "StateDirectory", uid, gid)
	err6 := u.folder("/var/log/", "LogsDirectory", uid, gid)
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		return nil, err
	}
	// If this machine does not allow that many file descriptors, the process gets as many as it
	// allows. The shell execs the program, so LISTEN_PID is the program's PID.
	script := fmt.Sprintf(`ulimit -n %d 2>/dev/null || ulimit -n "$(ulimit -H -n)"; umask %o; LISTEN_PID=$$; export LISTEN_PID; exec setpriv --no-new-privs "$@"`, files, mask)
	cmd := exec.Command("/bin/sh",
		append([]string{"-c", script, "sh"}, strings.Fields(u.get("Service.ExecStart"))...)...)
	cmd.Dir = u.get("Service.WorkingDirectory")
	cmd.Env = append([]string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + who.HomeDir, "USER=" + who.Username,
		"NOTIFY_SOCKET=" + notify}, u["Service.Environment"]...)
	if len(s.listeners) > 0 {
		names := strings.TrimPrefix(strings.Repeat(":"+s.names, len(s.listeners)), ":")
		cmd.Env = append(cmd.Env, "LISTEN_FDS="+strconv.Itoa(len(s.listeners)), "LISTEN_FDNAMES="+names)
		cmd.ExtraFiles = s.listeners // from descriptor 3 on, as with systemd
	}
	// CAP_NET_BIND_SERVICE
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true,
		Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, AmbientCaps: []uintptr{10}}
	return cmd, nil
}

// folder creates the folder that a directive names below another folder, writable for the service.
func (u unit) folder(below, directive string, uid, gid int) error {
	mode, err := strconv.ParseUint(u.get("Service."+directive+"Mode"), 8, 12)
	if err != nil {
		return err
	}
	path := below + u.get("Service."+directive)
	return errors.Join(os.MkdirAll(path, 0o700), os.Chmod(path, os.FileMode(mode)), os.Chown(path, uid, gid))
}
