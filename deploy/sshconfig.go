package deploy

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kevinburke/ssh_config"
)

// host describes how to reach a machine, according to the fleet file and ssh_config.
type host struct {
	node             string // the operator's name of the machine; may be ""
	user, name, port string
	identities       []string // key files
	identitiesOnly   bool
	knownHosts       []string
	jumps            []string // jump hosts in order
	proxyCommand     string   // run in place of a TCP connection; "" means none
}

// addr returns the address, in the form that known_hosts uses.
func (h host) addr() string { return net.JoinHostPort(h.name, h.port) }

// sshConfig is the list of ssh_config files, the user's first.
type sshConfig []*ssh_config.Config

// readSSHConfig reads the files. It skips missing ones.
func readSSHConfig(files ...string) (sshConfig, error) {
	var out sshConfig
	for _, name := range files {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		c, err := ssh_config.Decode(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, c)
	}
	return out, nil
}

// get returns the first value of a key, as OpenSSH does.
func (c sshConfig) get(alias, key string) (string, error) {
	for _, f := range c {
		if v, err := f.Get(alias, key); err != nil || v != "" {
			return v, err
		}
	}
	return "", nil
}

// getAll returns all values of a key that may occur several times.
func (c sshConfig) getAll(alias, key string) ([]string, error) {
	var out []string
	for _, f := range c {
		v, err := f.GetAll(alias, key)
		if err != nil {
			return nil, err
		}
		out = append(out, v...)
	}
	return out, nil
}

// splitTarget splits [user@]host[:port] or ssh://[user@]host[:port].
func splitTarget(target string) (user, name, port string, err error) {
	if rest, ok := strings.CutPrefix(target, "ssh://"); ok {
		u, err := url.Parse(target)
		if err != nil || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" {
			return "", "", "", fmt.Errorf("%q is not an SSH address: want [user@]host[:port]", rest)
		}
		return u.User.Username(), u.Hostname(), u.Port(), nil
	}
	name = target
	if i := strings.LastIndexByte(target, '@'); i >= 0 {
		user, name = target[:i], target[i+1:]
	}
	switch {
	case strings.HasPrefix(name, "["): // an IPv6 address, with or without a port
		if h, p, e := net.SplitHostPort(name); e == nil {
			name, port = h, p
		} else {
			name = strings.Trim(name, "[]")
		}
	case strings.Count(name, ":") == 1:
		name, port, _ = strings.Cut(name, ":")
	}
	if name == "" || strings.HasPrefix(name, "-") || strings.ContainsAny(name, " \t\r\n'\"/") {
		return "", "", "", fmt.Errorf("%q is not an SSH address: want [user@]host[:port]", target)
	}
	return user, name, port, nil
}

// CheckSSH returns an error if the SSH address of a node is invalid.
func CheckSSH(target string) error {
	_, _, port, err := splitTarget(target)
	if n, e := strconv.Atoi(port); err == nil && port != "" && (e != nil || n < 1 || n > 65535) {
		err = fmt.Errorf("%q is not an SSH address: its port is not 1 to 65535", target)
	}
	return err
}

// resolve returns how to reach target. home replaces ~ in paths.
func (c sshConfig) resolve(target, home string) (host, error) {
	u, alias, port, err := splitTarget(target)
	if err != nil {
		return host{}, err
	}
	var failed []error
	get := func(key string) string {
		v, err := c.get(alias, key)
		failed = append(failed, err)
		return v
	}
	h := host{user: cmp.Or(u, get("User"), localUser()), name: strings.ReplaceAll(cmp.Or(get("HostName"), alias), "%h",
		alias), port: cmp.Or(port, get("Port"), "22")}
	expand := func(path string) string {
		path = strings.NewReplacer("%%", "%", "%d", home, "%h", h.name, "%r", h.user, "%u", localUser(), "%p", h.port,
			"%n", alias).Replace(strings.Trim(path, `"`))
		if rest, ok := strings.CutPrefix(path, "~/"); ok {
			path = filepath.Join(home, rest)
		}
		return path
	}
	identities, err := c.getAll(alias, "IdentityFile")
	failed = append(failed, err)
	for _, f := range identities {
		h.identities = append(h.identities, expand(f))
	}
	if len(h.identities) == 0 {
		for _, f := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
			h.identities = append(h.identities, filepath.Join(home, ".ssh", f))
		}
	}
	h.identitiesOnly = strings.EqualFold(get("IdentitiesOnly"), "yes")
	for _, f := range strings.Fields(cmp.Or(get("UserKnownHostsFile"), "~/.ssh/known_hosts")) {
		h.knownHosts = append(h.knownHosts, expand(f))
	}
	if jump := get("ProxyJump"); jump != "" && !strings.EqualFold(jump, "none") {
		for _, j := range strings.Split(jump, ",") {
			h.jumps = append(h.jumps, strings.TrimSpace(j))
		}
	} else if command := get("ProxyCommand"); command != "" && !strings.EqualFold(command, "none") {
		for _, text := range []string{h.name, h.user, h.port, alias} {
			if strings.ContainsFunc(text, isShellSpecial) {
				failed = append(failed, fmt.Errorf("%q must not go into the shell command of ProxyCommand: "+
					"names and users may have letters, digits and . - _ : @ only", text))
			}
		}
		h.proxyCommand = strings.NewReplacer("%%", "%", "%h", h.name, "%p", h.port, "%r", h.user, "%n",
			alias).Replace(command)
	}
	if err := errors.Join(failed...); err != nil {
		return host{}, fmt.Errorf("ssh configuration of %s: %w", alias, err)
	}
	return h, nil
}

// localUser returns the name of the current user.
func localUser() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return os.Getenv("USER")
}

// isShellSpecial reports whether r may mean something to a shell.
func isShellSpecial(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(".-_:@", r)
}
