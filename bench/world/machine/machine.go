//go:build linux

// Package machine runs a machine with Debian's OpenSSH server and a stand-in for systemd. It is for
// tests that deploy to machines, on hosts where systemd is not process 1.
//
// A machine is a process in namespaces of its own: for mounts, for processes and, if it needs a
// network of its own, for the network. It sees the files of the host. What it writes goes to an
// overlay in memory. When its process 1 ends, the kernel kills all its other processes.
//
// The stand-in does what units say about processes and sockets: ExecStart, User, Type=notify,
// Restart, the timeouts, Requires, ListenStream, and so on. It has no cgroups and no sandbox, so it
// enforces neither memory limits nor restrictions of a unit. An unknown directive is an error, so
// that tests cover every directive of a unit.
package machine

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	control = "/run/systemd/manager" // socket of process 1
	folder  = "/mnt/node"            // where a machine mounts the folder from Prepare
	first   = "machine"              // the argument that makes a program process 1
)

// Journal is the name of the file, in a machine's folder, with the output of its services.
const Journal = "journal"

const journal = folder + "/" + Journal

// journalctl replaces the program of that name. It supports what a deploy uses: the service's
// entries since a time, in journalctl's export format. In the file, a line "-- ID TIME" begins the
// output of each start.
const journalctl = `#!/bin/sh
since=0
while [ $# -gt 0 ]; do
  case $1 in
  --since) since=${2#@} && shift ;;
  -u | -n | -o) shift ;;
  esac
  shift
done
awk -v since="$since" '
  function show(end) {
    if (end >= since + 0) printf "%s", entries
    entries = ""
  }
  $1 == "--" { show($3 + 0); id = $2; next }
  { entries = entries "_SYSTEMD_INVOCATION_ID=" id "\nMESSAGE=" $0 "\n\n" }
  END { show(since + 0) }
' ` + journal + "\n"

// Prepare creates the folder of a machine. It has the configuration of an SSH server with a host
// key of its own. The server accepts root with the public key in the file authorized.
func Prepare(dir, authorized string) error {
	key, err := os.ReadFile(authorized)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir+"/scratch", 0o755); err != nil {
		return err
	}
	conf := "HostKey " + folder + "/host_key\nAuthorizedKeysFile " + folder +
		"/authorized_keys\nPidFile none\nUsePAM no\nPasswordAuthentication no\n" +
		"LogLevel ERROR\nStrictModes no\n# The folder of the test is not only root's.\n"
	if err := errors.Join(os.WriteFile(dir+"/authorized_keys", key, 0o644),
		os.WriteFile(dir+"/sshd_config", []byte(conf), 0o644)); err != nil {
		return err
	}
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
		dir+"/host_key").CombinedOutput(); err != nil {
		return fmt.Errorf("make the host key of %s: %w: %s", dir, err, out)
	}
	return nil
}

// Args returns the arguments that make a program that calls Run process 1 of the machine with a
// folder, until its standard input ends. The program must be started in the machine's namespaces,
// as process 1 of its PID namespace.
func Args(dir string) []string { return []string{first, dir} }

// Run must come first in main or TestMain. If the program was started as process 1 of a machine, or
// as its systemctl, Run does that job and exits. Otherwise it returns at once.
func Run() {
	switch {
	case filepath.Base(os.Args[0]) == "systemctl":
		os.Exit(systemctl(os.Args[1:]))
	case len(os.Args) == 3 && os.Args[1] == first:
		if err := boot(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "machine:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// boot turns the namespaces of this process into a machine, and runs it until standard input ends.
func boot(dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	scratch := dir + "/scratch"
	root := scratch + "/root"
	const systemctl = "/usr/local/sbin/systemctl" // this program is mounted there
	steps := []func() error{
		func() error { return syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "") },
		func() error { return syscall.Mount("tmpfs", scratch, "tmpfs", 0, "mode=755") },
		func() error {
			return errors.Join(os.Mkdir(scratch+"/upper", 0o755), os.Mkdir(scratch+"/work", 0o755),
				os.Mkdir(root, 0o755))
		},
		func() error {
			return syscall.Mount("overlay", root, "overlay", 0,
				fmt.Sprintf("lowerdir=/,upperdir=%[1]s/upper,workdir=%[1]s/work", scratch))
		},
		func() error { return syscall.Mount("/dev", root+"/dev", "", syscall.MS_BIND|syscall.MS_REC, "") },
		func() error { return syscall.Mount("proc", root+"/proc", "proc", 0, "") },
		func() error { return syscall.Mount("tmpfs", root+"/run", "tmpfs", 0, "mode=755") },
		func() error { return os.MkdirAll(root+folder, 0o755) },
		func() error { return syscall.Mount(dir, root+folder, "", syscall.MS_BIND, "") },
		func() error { return syscall.Mount("tmpfs", root+"/tmp", "tmpfs", 0, "mode=1777") },
		func() error {
			return errors.Join(os.MkdirAll(filepath.Dir(root+systemctl), 0o755),
				os.WriteFile(root+systemctl, nil, 0o755))
		},
		func() error { return syscall.Mount(self, root+systemctl, "", syscall.MS_BIND, "") },
		func() error { return syscall.Chroot(root) },
		func() error { return os.Chdir("/") },
		func() error {
			return errors.Join(os.MkdirAll("/run/systemd/system", 0o755), os.Mkdir("/run/sshd", 0o755),
				os.Mkdir("/run/lock", 0o1777))
		},
		func() error {
			return os.WriteFile("/usr/local/sbin/journalctl", []byte(journalctl), 0o755)
		},
		// The host may have an account kaiku, or a locked root account.
		func() error { return sh("! id kaiku >/dev/null 2>&1 || userdel kaiku; usermod -p '*' root") },
		func() error { return sh("ip link set lo up") },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	sshd := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", folder+"/sshd_config")
	sshd.Stderr = os.Stderr
	if err := sshd.Start(); err != nil {
		return err
	}
	l, err := net.Listen("unix", control)
	if err != nil {
		return err
	}
	go serve(l, newManager())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err // the kernel kills everything else together with process 1
}

func sh(script string) error {
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", script, err, out)
	}
	return nil
}

// answer has the output and exit code of systemctl.
type answer struct {
	Out, Err string
	Code     int
}

func serve(l net.Listener, m *manager) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			var args []string
			if line, err := bufio.NewReader(c).ReadBytes('\n'); err == nil && json.Unmarshal(line, &args) == nil {
				_ = json.NewEncoder(c).Encode(m.do(args))
			}
		}()
	}
}

// systemctl sends its command line to process 1.
func systemctl(args []string) int {
	c, err := net.Dial("unix", control)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer c.Close()
	var a answer
	if err := errors.Join(json.NewEncoder(c).Encode(args), json.NewDecoder(c).Decode(&a)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Print(a.Out)
	fmt.Fprint(os.Stderr, a.Err)
	return a.Code
}

// do runs a command line of systemctl.
func (m *manager) do(args []string) answer {
	if len(args) == 0 {
		return answer{Err: "no command\n", Code: 1}
	}
	verb, flags, units := args[0], "", []string(nil)
	for _, a := range args[1:] {
		if strings.HasPrefix(a, "-") {
			flags += " " + a
		} else {
			units = append(units, a)
		}
	}
	var err error
	switch verb + flags {
	case "is-active", "is-active -q":
		if state := m.state(units[0]); state != "active" {
			return answer{Out: state + "\n", Code: 3}
		}
		return answer{Out: "active\n"}
	case "is-enabled":
		if !enabled(units[0]) {
			return answer{Out: "disabled\n", Code: 1}
		}
		return answer{Out: "enabled\n"}
	case "show -p --value":
		switch units[0] {
		case "MainPID":
			return answer{Out: fmt.Sprintln(m.mainPID())}
		case "InvocationID":
			return answer{Out: m.invocation() + "\n"}
		case "StatusText":
			return answer{Out: m.statusText() + "\n"}
		}
		err = fmt.Errorf("the property %s is not known here", units[0])
	case "daemon-reload":
		err = m.reload()
	case "enable -q":
		err = each(units, m.enable)
	case "disable -q --now":
		err = errors.Join(each(units, m.disable), each(units, m.stop))
	case "start":
		err = each(units, m.start)
	case "stop":
		err = each(units, m.stop)
	case "restart":
		err = errors.Join(each(units, m.stop), each(units, m.start))
	case "reload":
		err = each(units, m.reloadUnit)
	default:
		err = fmt.Errorf("systemctl %s%s is not known here", verb, flags)
	}
	if err != nil {
		return answer{Err: err.Error() + "\n", Code: 1}
	}
	return answer{}
}

func each(units []string, do func(string) error) error {
	for _, u := range units {
		if err := do(u); err != nil {
			return err
		}
	}
	return nil
}
