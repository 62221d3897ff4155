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

// ErrHostKeyChanged says that a machine showed another key than known_hosts has.
var ErrHostKeyChanged = errors.New("the host key changed")

// ErrHostKeyUnknown says that known_hosts has no key of a machine, and nobody took the one that it
// showed.
var ErrHostKeyUnknown = errors.New("the host key is unknown")

// hostKeys makes the check of a machine's key, and the algorithms to ask it for: those that
// known_hosts has keys of, or a machine with several keys could show one that is not there and look
// like another machine.
func (d *Dialer) hostKeys(h host) (ssh.HostKeyCallback, []string, error) {
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
			return changedKey(addr, key, err)
		case knownhosts.IsHostUnknown(err):
			return d.newKey(h, addr, remote, key)
		}
		return err
	}, known.HostKeyAlgorithms(h.addr()), nil
}

// changedKey tells both keys and where the known one stands.
func changedKey(addr string, key ssh.PublicKey, err error) error {
	var changed *xknownhosts.KeyError
	if !errors.As(err, &changed) {
		return err
	}
	var known []string
	for _, k := range changed.Want {
		known = append(known, fmt.Sprintf("%s %s (%s:%d)", k.Key.Type(), ssh.FingerprintSHA256(k.Key), k.Filename, k.Line))
	}
	return fmt.Errorf("%w: %s shows %s %s, known is %s: somebody may be in between; if the machine was made anew, remove that line and run this again",
		ErrHostKeyChanged, addr, key.Type(), ssh.FingerprintSHA256(key), strings.Join(known, ", "))
}

// newKey takes the key of a machine that was never seen, if the operator says so, and notes it.
func (d *Dialer) newKey(h host, addr string, remote net.Addr, key ssh.PublicKey) error {
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
		return nil // by another connection meanwhile
	default: // where known_hosts is no file, that one was not noted
		return fmt.Errorf("%w: %s shows %s, and showed %s before: somebody may be in between", ErrHostKeyChanged, who, is, d.taken[addr])
	}
	if !d.AcceptNew {
		if d.Ask == nil {
			return fmt.Errorf("%w: %s shows %s: compare it with what `%s` prints on the machine, and connect once with ssh, or run kaiku deploy with --accept-new-host-keys",
				ErrHostKeyUnknown, who, is, printKey(key))
		}
		answer, err := d.Ask(fmt.Sprintf(`%s is not in known_hosts yet. It shows this host key:
    %s
Compare it with what the machine itself prints, on the console that your provider has for it:
    %s
Are they the same (yes/no)? `, who, is, printKey(key)), false)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrHostKeyUnknown, who, err)
		}
		if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
			return fmt.Errorf("%w: %s: not taken", ErrHostKeyUnknown, who)
		}
	}
	if len(h.knownHosts) > 0 {
		if err := appendKnownHost(h.knownHosts[0], addr, remote, key); err != nil {
			return fmt.Errorf("note the host key: %w", err)
		}
	}
	if d.taken == nil {
		d.taken = map[string]string{}
	}
	d.taken[addr] = is
	return nil
}

// printKey is the command that prints a machine's key where Debian has it.
func printKey(key ssh.PublicKey) string {
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
	// A last line without an end would swallow the new one.
	if info, err := f.Stat(); err == nil && info.Size() > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
			_, _ = f.WriteString("\n")
		}
	}
	return errors.Join(knownhosts.WriteKnownHost(f, addr, remote, key), f.Close())
}
