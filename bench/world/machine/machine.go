//go:build linux

// Package machine makes a machine with Debian's OpenSSH server and something that stands for
// systemd, for tests that deploy to machines which have none as process 1.
//
// A machine is a process in namespaces of its own for mounts, processes and, if it shall have a
// network of its own, the network. Its files are those of the machine for tests below what it
// writes itself, which is kept in memory. When its process 1 ends, the kernel ends all else in it.
//
// The stand-in does what units say about processes and sockets: ExecStart, User, Type=notify,
// Restart, the timeouts, Requires, ListenStream, and so on. It has no cgroups and no sandbox:
// limits of memory and what a unit may not do are not held here. A directive that it does not know
// is an error, so that no unit means more than was tried.
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
	control = "/run/systemd/manager" // where process 1 is asked
	folder  = "/mnt/node"            // where a machine has the folder that Prepare made
	first   = "machine"              // the argument that makes a program process 1
)

// Journal is the file in the folder of a machine that has what its services print.
const Journal = "journal"

const journal = folder + "/" + Journal

// journalctl stands for the program of that name, as a deploy asks it: with --since, for the
// entries of the service in journalctl's export format. In the file, a line "-- ID TIME" begins
// what is printed by one start.
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

// Prepare makes the folder of a machine: an SSH server with a key of its own, which takes root by
// the public key in a file.
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

// Args are the arguments of a program that calls Run: it is process 1 of the machine whose folder
// this is then, until its standard input ends. It is to be started in the machine's namespaces, as
// process 1 of the one for processes.
func Args(dir string) []string { return []string{first, dir} }

// Run is what main and TestMain begin with: a program that was called as process 1 of a machine, or
// as the systemctl of one, is that, and ends. Else Run returns at once.
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

// boot makes a machine of the namespaces that this process is in, and runs it until standard input
// ends.
func boot(dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	scratch := dir + "/scratch"
	root := scratch + "/root"
	const systemctl = "/usr/local/sbin/systemctl" // this program
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
		// A machine for tests may have an account of that name, or have root's locked.
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
	return err // the kernel ends all else with process 1
}

func sh(script string) error {
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", script, err, out)
	}
	return nil
}

// answer is what systemctl prints, and its exit code.
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

// systemctl asks process 1.
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

// do does what a command line of systemctl says.
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
