package certs

import (
	"bytes"
	"context"
	"crypto/rand"
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

// Vault keeps what the edges of a fleet share of their certificates, where nobody else can read it.
type Vault interface {
	// Load returns a value, its revision, and when it was stored. The error is fs.ErrNotExist if there is none; what is there and can't be read has its revision beside the error.
	Load(ctx context.Context, key string) (value []byte, revision uint64, stored time.Time, err error)
	// Save stores a value, or takes it away if it is nil, unless the key has another revision by now; 0 is that of none. It returns the new one.
	Save(ctx context.Context, key string, value []byte, revision uint64) (uint64, error)
	// Keys lists all keys.
	Keys(ctx context.Context) ([]string, error)
	// Reseal encrypts with the secret that is used now what was encrypted with one of before.
	Reseal(ctx context.Context) error
}

// vaultStorage is a Vault as certmagic uses one. Its locks hold within the process: only one edge at a time does what needs them.
type vaultStorage struct {
	vault  Vault
	copies string      // folder of copies of certificates, which are read when the vault can't be; "" means none
	may    func() bool // whether this edge is the one that orders, and may change certificates
	log    *slog.Logger

	mu    sync.Mutex
	locks map[string]chan struct{} // closed when it is given back
}

// Lock takes a lock.
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

// Unlock gives it back.
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

var errLeaseLost = errors.New("another edge orders certificates by now")

// certificateFolder has all certificates.
const certificateFolder = "certificates/"

// Store stores a value, whatever was there.
func (s *vaultStorage) Store(ctx context.Context, key string, value []byte) error {
	if strings.HasPrefix(key, certificateFolder) && !s.may() {
		return errLeaseLost // two that store the files of one certificate would mix them
	}
	return s.replace(ctx, key, append([]byte{}, value...))
}

// replace stores a value, or takes it away.
func (s *vaultStorage) replace(ctx context.Context, key string, value []byte) error {
	var err error
	for range 3 { // another edge may be at it
		var revision uint64
		if _, revision, _, err = s.vault.Load(ctx, key); err != nil && !errors.Is(err, fs.ErrNotExist) && revision == 0 {
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

// Load reads a value. One that can't be decrypted, as after a change of the fleet key, is as none: it is made anew.
func (s *vaultStorage) Load(ctx context.Context, key string) ([]byte, error) {
	value, revision, _, err := s.vault.Load(ctx, key)
	switch {
	case err != nil && revision != 0:
		s.log.Warn("what the edges share of certificates can't be read, and is made anew", "key", key, "error", err)
		return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	case s.copies == "" || !strings.HasPrefix(key, certificateFolder):
	case err == nil:
		if e := keepCopy(filepath.Join(s.copies, filepath.FromSlash(key)), value); e != nil {
			s.log.Warn("no copy of a certificate can be kept", "error", e)
		}
	case !errors.Is(err, fs.ErrNotExist):
		if copied, e := os.ReadFile(filepath.Join(s.copies, filepath.FromSlash(key))); e == nil {
			return copied, nil
		}
	}
	return value, err
}

// keepCopy writes a file that only its owner can read, unless it is so already.
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

// Delete takes away a value, or all in a folder.
func (s *vaultStorage) Delete(ctx context.Context, key string) error {
	keys, err := s.within(ctx, key)
	for _, k := range keys {
		err = errors.Join(err, s.replace(ctx, k, nil))
	}
	return err
}

// within are the keys that are this one, or in this folder. One that leads out of it, as with .., was saved by nobody who is well: certmagic would load it, and a copy be written elsewhere.
func (s *vaultStorage) within(ctx context.Context, folder string) ([]string, error) {
	keys, err := s.vault.Keys(ctx)
	return slices.DeleteFunc(keys, func(k string) bool {
		return path.Clean(k) != k || !filepath.IsLocal(filepath.FromSlash(k)) || folder != "" && k != folder && !strings.HasPrefix(k, strings.TrimSuffix(folder, "/")+"/")
	}), err
}

// Exists says whether there is a value, or a folder that has one.
func (s *vaultStorage) Exists(ctx context.Context, key string) bool {
	keys, err := s.within(ctx, key)
	return err == nil && len(keys) > 0
}

// List lists what is in a folder.
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

// Stat tells of a value.
func (s *vaultStorage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	value, _, stored, err := s.vault.Load(ctx, key)
	return certmagic.KeyInfo{Key: key, Modified: stored, Size: int64(len(value)), IsTerminal: true}, err
}

const (
	leaseRenew = 4 * time.Second  // how often who holds a lease renews it
	leaseLost  = 10 * time.Second // after which who can't renew it gives it up
	leaseStale = 15 * time.Second // after which another takes one that was not renewed
	leaseLook  = time.Second      // how often it is looked at by who waits
)

// hold has f called while this process holds a lease, until ctx ends. f's context ends when the lease is lost; then it is waited for again. Nobody's clock is compared with another's: a
// lease is stale once its revision has not changed for a while by the clock of who waits.
func hold(ctx context.Context, v Vault, key string, log *slog.Logger, f func(context.Context)) {
	owner := []byte(rand.Text())
	var seen uint64
	var since time.Time
	var failing time.Time // since when it can't be asked; zero is not
	told := false
	for ctx.Err() == nil {
		_, revision, _, err := v.Load(ctx, key)
		if errors.Is(err, fs.ErrNotExist) {
			revision, err = 0, nil
		}
		if err == nil || revision != 0 {
			told, failing = false, time.Time{}
		}
		switch {
		case err != nil && revision == 0: // with a revision it is somebody's, who has another fleet key
			if failing.IsZero() {
				failing = time.Now()
			}
			if !told && time.Since(failing) > startTime {
				log.Warn("certificates: the control plane can't be asked who orders; what is there is used", "error", err)
				told = true
			}
			since = time.Time{}
		case revision != 0 && (revision != seen || since.IsZero()):
			seen, since = revision, time.Now()
		case revision == 0 || time.Since(since) > leaseStale:
			mine, err := v.Save(ctx, key, owner, revision)
			if err != nil {
				break // another was faster
			}
			log.Info("certificates: this edge orders and renews for the fleet")
			keep(ctx, v, key, owner, mine, f)
			since = time.Time{}
			continue
		}
		select {
		case <-time.After(leaseLook):
		case <-ctx.Done():
		}
	}
}

// keep renews a lease while f runs, and ends f when it is lost.
func keep(ctx context.Context, v Vault, key string, owner []byte, revision uint64, f func(context.Context)) {
	held, lose := context.WithCancel(ctx)
	defer lose()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(held)
	}()
	lost := time.AfterFunc(leaseLost, lose)
	defer lost.Stop()
	tick := time.NewTicker(leaseRenew)
	defer tick.Stop()
	for {
		select {
		case <-done:
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_, _ = v.Save(end, key, nil, revision) // so that nobody has to wait for it to be stale; if it is another's by now, this does nothing
			return
		case <-tick.C:
		}
		call, cancel := context.WithTimeout(held, leaseRenew)
		now, err := v.Save(call, key, owner, revision)
		if err != nil { // it may have been saved all the same
			value, at, _, e := v.Load(call, key)
			switch {
			case e == nil && string(value) == string(owner):
				now, err = at, nil
			case e == nil || errors.Is(e, fs.ErrNotExist):
				lose() // another has it, or all of the vault is new
			}
		}
		cancel()
		if err == nil {
			revision = now
			lost.Reset(leaseLost)
		}
	}
}
