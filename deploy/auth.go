package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// signers returns the keys to try, in this order: keys of the agent that ssh_config names a file
// of, key files, other keys of the agent. With IdentitiesOnly in ssh_config, it leaves out the
// other keys of the agent. The order matters because servers close a connection after a few wrong
// keys. A key file with a passphrase is used only if there is no other key. close closes the
// connection to the agent.
func (d *Dialer) signers(h host) (out []ssh.Signer, close func(), err error) {
	close = func() {}
	var agents []ssh.Signer
	if d.Agent != "" {
		conn, err := net.Dial("unix", d.Agent)
		if err != nil {
			return nil, close, fmt.Errorf("connect to the SSH agent: %w", err)
		}
		close = func() { conn.Close() }
		if agents, err = agent.NewClient(conn).Signers(); err != nil {
			close()
			return nil, func() {}, fmt.Errorf("list the keys of the SSH agent: %w", err)
		}
	}
	var files []ssh.Signer
	var locked []string // key files with a passphrase
	for _, name := range h.identities {
		if public := publicKey(name); public != nil {
			if i := slices.IndexFunc(agents,
				func(s ssh.Signer) bool { return bytes.Equal(s.PublicKey().Marshal(), public.Marshal()) }); i >= 0 {
				out = append(out, agents[i])
				agents = slices.Delete(agents, i, i+1)
				continue
			}
		}
		s, err := readKey(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case errors.As(err, new(*ssh.PassphraseMissingError)):
			locked = append(locked, name)
		case err != nil:
			close()
			return nil, func() {}, fmt.Errorf("key %s: %w", name, err)
		default:
			files = append(files, s)
		}
	}
	out = append(out, files...)
	if !h.identitiesOnly {
		out = append(out, agents...)
	}
	if len(out) == 0 && d.Ask != nil { // asks for a passphrase only if it is needed
		for _, name := range locked {
			s, err := d.unlock(name)
			if err != nil {
				close()
				return nil, func() {}, fmt.Errorf("key %s: %w", name, err)
			}
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		close()
		if len(locked) > 0 {
			return nil, func() {}, fmt.Errorf("no usable SSH key: %v has a passphrase; add it to the agent with ssh-add", locked)
		}
		return nil, func() {}, fmt.Errorf("no SSH key for %[2]s: none of %[1]v exists, and the agent (SSH_AUTH_SOCK) has no key; make one with ssh-keygen -t ed25519, and copy it to each machine with ssh-copy-id USER@ADDRESS", h.identities, h.name)
	}
	return out, close, nil
}

// publicKey returns the public key in the .pub file beside a key file, or nil if it can't be read.
func publicKey(name string) ssh.PublicKey {
	b, err := os.ReadFile(name + ".pub")
	if err != nil {
		return nil
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(b)
	if err != nil {
		return nil
	}
	return key
}

func readKey(name string) (ssh.Signer, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return ssh.ParsePrivateKey(b)
}

// unlock reads a key file with its passphrase. It asks the operator once, for all connections.
func (d *Dialer) unlock(name string) (ssh.Signer, error) {
	d.asking.Lock()
	defer d.asking.Unlock()
	if s := d.unlocked[name]; s != nil {
		return s, nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	passphrase, err := d.Ask(fmt.Sprintf("Passphrase of %s: ", name), true)
	if err != nil {
		return nil, err
	}
	s, err := ssh.ParsePrivateKeyWithPassphrase(b, []byte(passphrase))
	if err != nil {
		return nil, err
	}
	if d.unlocked == nil {
		d.unlocked = map[string]ssh.Signer{}
	}
	d.unlocked[name] = s
	return s, nil
}
