package certs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
)

// Vault is an encrypted store that the edges of a fleet share.
type Vault interface {
	// Load returns a value, its revision, and when it was stored. It returns fs.ErrNotExist if
	// there is none. For a value that can't be decrypted it returns the revision and an error.
	Load(ctx context.Context, key string) (value []byte, revision uint64, stored time.Time, err error)
	// Save stores a value, or deletes the key if value is nil, and returns the new revision. It
	// fails if the revision of the key is not the given one. A key without a value has revision 0.
	Save(ctx context.Context, key string, value []byte, revision uint64) (uint64, error)
	// Keys lists all keys.
	Keys(ctx context.Context) ([]string, error)
	// Reseal re-encrypts all values with the current fleet key.
	Reseal(ctx context.Context) error
}

// vaultStorage is a certmagic.Storage on a Vault. Its locks hold within the process only. That is
// enough, as only the edge with the lease does what needs them.
type vaultStorage struct {
	vault  Vault
	copies string      // folder of copies, for when the vault can't be reached; "" means none
	may    func() bool // reports whether this edge holds the lease and may change certificates
	log    *slog.Logger

	mu    sync.Mutex
	locks map[string]chan struct{} // closed on Unlock
}

// Lock waits for a lock and takes it.
func (s *vaultStorage) Lock(ctx context.Context, name string) error {
	for {
		s.mu.Lock()
		held := s.locks[name]
		if held == nil {
			if s.locks == nil {
				s.locks = map[string]chan struct{}{}
			}
			s.locks[name] = make(chan struct{})
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Unlock releases a lock. It fails if the lock isn't held.
func (s *vaultStorage) Unlock(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := s.locks[name]
	if held == nil {
		return fmt.Errorf("lock %s is not held", name)
	}
	delete(s.locks, name)
	close(held)
	return nil
}

var errLeaseLost = errors.New("another edge has taken over the orders of certificates")

// certificateFolder is the folder of all certificates.
const certificateFolder = "certificates/"

// Store stores a value. It fails for certificates if this edge doesn't hold the lease.
func (s *vaultStorage) Store(ctx context.Context, key string, value []byte) error {
	if strings.HasPrefix(key, certificateFolder) && !s.may() {
		return errLeaseLost // two edges would mix the files of a certificate
	}
	return s.replace(ctx, key, append([]byte{}, value...))
}

// replace stores a value, or deletes it if it is nil, whatever the key had before.
func (s *vaultStorage) replace(ctx context.Context, key string, value []byte) error {
	var err error
	for range 3 { // another edge may change it meanwhile
		var revision uint64
		if _, revision, _, err = s.vault.Load(ctx, key); err != nil && !errors.Is(err, fs.ErrNotExist) &&
			revision == 0 {
			return err
		}
		if value == nil && revision == 0 {
			return nil
		}
		if _, err = s.vault.Save(ctx, key, value, revision); err == nil {
			return nil
		}
	}
	return err
}

// Load returns a value. If it can't be decrypted, as after a change of the fleet key, Load returns
// fs.ErrNotExist, so that a new value is made. If it can't reach the vault, Load returns the copy.
func (s *vaultStorage) Load(ctx context.Context, key string) ([]byte, error) {
	value, revision, _, err := s.vault.Load(ctx, key)
	switch {
	case err != nil && revision != 0:
		s.log.Warn("a value of the vault can't be read, and is created anew", "key", key, "error", err)
		return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	case s.copies == "" || !strings.HasPrefix(key, certificateFolder):
	case err == nil:
		if e := keepCopy(filepath.Join(s.copies, filepath.FromSlash(key)), value); e != nil {
			s.log.Warn("a copy of a certificate can't be written to disk", "error", e)
		}
	case !errors.Is(err, fs.ErrNotExist):
		if copied, e := os.ReadFile(filepath.Join(s.copies, filepath.FromSlash(key))); e == nil {
			return copied, nil
		}
	}
	return value, err
}

// keepCopy writes a file that only its owner can read, unless the file has that value already.
func keepCopy(name string, value []byte) error {
	if old, err := os.ReadFile(name); err == nil && bytes.Equal(old, value) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(value)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}

// Delete deletes a value, or all values in a folder.
func (s *vaultStorage) Delete(ctx context.Context, key string) error {
	keys, err := s.within(ctx, key)
	for _, k := range keys {
		err = errors.Join(err, s.replace(ctx, k, nil))
	}
	return err
}

// within returns the key itself and the keys in the folder of that name. It leaves out keys with
// ".." and the like, which a stolen credential may have stored: their copies would land outside the
// folder.
func (s *vaultStorage) within(ctx context.Context, folder string) ([]string, error) {
	keys, err := s.vault.Keys(ctx)
	return slices.DeleteFunc(keys, func(k string) bool {
		if path.Clean(k) != k || !filepath.IsLocal(filepath.FromSlash(k)) {
			return true
		}
		return folder != "" && k != folder && !strings.HasPrefix(k, strings.TrimSuffix(folder, "/")+"/")
	}), err
}

// Exists reports whether there is a value of that key, or one in the folder of that name.
func (s *vaultStorage) Exists(ctx context.Context, key string) bool {
	keys, err := s.within(ctx, key)
	return err == nil && len(keys) > 0
}

// List returns the keys in a folder.
func (s *vaultStorage) List(ctx context.Context, folder string, recursive bool) ([]string, error) {
	keys, err := s.within(ctx, folder)
	if err != nil || recursive {
		return keys, err
	}
	prefix := strings.TrimSuffix(folder, "/") + "/"
	if folder == "" {
		prefix = ""
	}
	for i, k := range keys {
		name, _, _ := strings.Cut(strings.TrimPrefix(k, prefix), "/")
		keys[i] = prefix + name
	}
	slices.Sort(keys)
	return slices.Compact(keys), nil
}

// Stat returns the size of a value and when it was stored.
func (s *vaultStorage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	value, _, stored, err := s.vault.Load(ctx, key)
	return certmagic.KeyInfo{Key: key, Modified: stored, Size: int64(len(value)), IsTerminal: true}, err
}
