package deploy

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	xknownhosts "golang.org/x/crypto/ssh/knownhosts"
)

// ErrHostKeyChanged means that a machine's host key differs from the one in known_hosts.
var ErrHostKeyChanged = errors.New("the host key changed")

// ErrHostKeyUnknown means that known_hosts has no key of the machine and that its key was not
// accepted.
var ErrHostKeyUnknown = errors.New("the host key is unknown")

// hostKeyCheck returns the callback that verifies a machine's host key, and the key algorithms to
// request. It requests the algorithms of keys in known_hosts. Otherwise a machine with several keys
// could present one that is not there, and would look like another machine.
func (d *Dialer) hostKeyCheck(h host) (ssh.HostKeyCallback, []string, error) {
	var files []string
	for _, f := range append(h.knownHosts, d.globalKnownHosts...) {
		if _, err := os.Stat(f); err == nil {
			files = append(files, f)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
	}
	known, err := knownhosts.NewDB(files...)
	if err != nil {
		return nil, nil, fmt.Errorf("read known_hosts: %w", err)
	}
	check := known.HostKeyCallback()
	return func(addr string, remote net.Addr, key ssh.PublicKey) error {
		err := check(addr, remote, key)
		switch {
		case err == nil:
			return nil
		case knownhosts.IsHostKeyChanged(err):
			return changedKeyError(addr, key, err)
		case knownhosts.IsHostUnknown(err):
			return d.acceptHostKey(h, addr, remote, key)
		}
		return err
	}, known.HostKeyAlgorithms(h.addr()), nil
}

// changedKeyError returns an error with both keys and the position of the known one.
func changedKeyError(addr string, key ssh.PublicKey, err error) error {
	var changed *xknownhosts.KeyError
	if !errors.As(err, &changed) {
		return err
	}
	var known []string
	for _, k := range changed.Want {
		known = append(known, fmt.Sprintf("%s %s (%s:%d)", k.Key.Type(), ssh.FingerprintSHA256(k.Key), k.Filename,
			k.Line))
	}
	return fmt.Errorf("%w: %s has the key %s %s, but known_hosts has %s: somebody may be intercepting the connection; if the machine was reinstalled, delete that line and run this again",
		ErrHostKeyChanged, addr, key.Type(), ssh.FingerprintSHA256(key), strings.Join(known, ", "))
}

// acceptHostKey adds the key of an unknown machine to known_hosts if the operator accepts it.
func (d *Dialer) acceptHostKey(h host, addr string, remote net.Addr, key ssh.PublicKey) error {
	d.asking.Lock() // one question at a time; also guards the file
	defer d.asking.Unlock()
	is := fmt.Sprintf("%s %s", key.Type(), ssh.FingerprintSHA256(key))
	who := addr
	if h.node != "" {
		who = fmt.Sprintf("%s (%s)", h.node, addr)
	}
	switch d.taken[addr] {
	case "":
	case is:
		return nil // added by another connection in the meantime
	default: // known_hosts may be a device such as /dev/null, which keeps nothing
		return fmt.Errorf("%w: %s has the key %s, but had %s before: somebody may be intercepting the connection", ErrHostKeyChanged, who,
			is, d.taken[addr])
	}
	if !d.AcceptNew {
		if d.Ask == nil {
			return fmt.Errorf("%w: %s has the key %s: compare it with what `%s` prints on the machine, then connect once with ssh, or give --accept-new-host-keys",
				ErrHostKeyUnknown, who, is, showKeyCommand(key))
		}
		answer, err := d.Ask(fmt.Sprintf(`%s is not in known_hosts yet. It shows this host key:
    %s
Compare it with what the machine itself prints, on the console that your provider has for it:
    %s
Are they the same (yes/no)? `, who, is, showKeyCommand(key)), false)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrHostKeyUnknown, who, err)
		}
		if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
			return fmt.Errorf("%w: %s: you did not accept it", ErrHostKeyUnknown, who)
		}
	}
	if len(h.knownHosts) > 0 {
		if err := appendKnownHost(h.knownHosts[0], addr, remote, key); err != nil {
			return fmt.Errorf("write the host key to known_hosts: %w", err)
		}
	}
	if d.taken == nil {
		d.taken = map[string]string{}
	}
	d.taken[addr] = is
	return nil
}

// showKeyCommand returns the command that shows a machine's host key on Debian.
func showKeyCommand(key ssh.PublicKey) string {
	kind := strings.TrimPrefix(key.Type(), "ssh-")
	if strings.HasPrefix(kind, "ecdsa-") {
		kind = "ecdsa"
	}
	return "ssh-keygen -lf /etc/ssh/ssh_host_" + kind + "_key.pub"
}

func appendKnownHost(file, addr string, remote net.Addr, key ssh.PublicKey) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	// If the last line has no line feed, the new one would be appended to it.
	if info, err := f.Stat(); err == nil && info.Size() > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
			_, _ = f.WriteString("\n")
		}
	}
	return errors.Join(knownhosts.WriteKnownHost(f, addr, remote, key), f.Close())
}
