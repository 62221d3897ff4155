package certs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

// memoryVault is a Vault in memory.
type memoryVault struct {
	mu       sync.Mutex
	values   map[string][]byte
	revision map[string]uint64
	last     uint64
}

func newMemoryVault() *memoryVault {
	return &memoryVault{values: map[string][]byte{}, revision: map[string]uint64{}}
}

func (v *memoryVault) Load(_ context.Context, key string) ([]byte, uint64, time.Time, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.revision[key] == 0 {
		return nil, 0, time.Time{}, fmt.Errorf("%s: %w", key, fs.ErrNotExist)
	}
	return v.values[key], v.revision[key], time.Now(), nil
}

func (v *memoryVault) Save(_ context.Context, key string, value []byte, revision uint64) (uint64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.revision[key] != revision {
		return 0, errors.New("changed")
	}
	if value == nil {
		delete(v.values, key)
		delete(v.revision, key)
		return 0, nil
	}
	v.last++
	v.values[key], v.revision[key] = value, v.last
	return v.last, nil
}

func (v *memoryVault) Keys(context.Context) ([]string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var keys []string
	for k := range v.values {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys, nil
}

func (v *memoryVault) Reseal(context.Context) error { return nil }

// cutVault is a Vault that can be cut off. Calls then wait until their context ends.
type cutVault struct {
	*memoryVault
	cut chan struct{} // closed when the vault is cut off
}

func (v cutVault) Load(ctx context.Context, key string) ([]byte, uint64, time.Time, error) {
	select {
	case <-v.cut:
		<-ctx.Done()
		return nil, 0, time.Time{}, ctx.Err()
	default:
		return v.memoryVault.Load(ctx, key)
	}
}

func (v cutVault) Save(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	select {
	case <-v.cut:
		<-ctx.Done()
		return 0, ctx.Err()
	default:
		return v.memoryVault.Save(ctx, key, value, revision)
	}
}

// Only one process at a time holds a lease. When the holder ends, the next gets the lease at once.
// When the holder is cut off, the next gets it once the lease is stale.
func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := newMemoryVault()
		log := slog.New(slog.DiscardHandler)
		var mu sync.Mutex
		var leads []string
		leader := func() string {
			mu.Lock()
			defer mu.Unlock()
			if len(leads) > 1 {
				t.Errorf("%v lead at the same time", leads)
			}
			if len(leads) == 0 {
				return ""
			}
			return leads[0]
		}
		lead := func(name string) func(context.Context) {
			return func(ctx context.Context) {
				mu.Lock()
				leads = append(leads, name)
				mu.Unlock()
				<-ctx.Done()
				mu.Lock()
				leads = slices.DeleteFunc(leads, func(l string) bool { return l == name })
				mu.Unlock()
			}
		}
		var all sync.WaitGroup
		first, endFirst := context.WithCancel(t.Context())
		all.Go(func() { hold(first, shared, "lease", log, lead("first")) })
		synctest.Wait()
		second, endSecond := context.WithCancel(t.Context())
		cut := cutVault{shared, make(chan struct{})}
		all.Go(func() { hold(second, cut, "lease", log, lead("second")) })
		third, endThird := context.WithCancel(t.Context())
		for range 60 {
			time.Sleep(time.Second)
			if leader() != "first" {
				t.Fatalf("%q leads, want the first", leader())
			}
		}
		endFirst()
		time.Sleep(2 * time.Second)
		if leader() != "second" {
			t.Fatalf("%q leads after the end of the first", leader())
		}
		all.Go(func() { hold(third, shared, "lease", log, lead("third")) })
		time.Sleep(time.Minute)
		close(cut.cut)
		began := time.Now()
		for leader() != "third" {
			time.Sleep(100 * time.Millisecond)
			if time.Since(began) > time.Minute {
				t.Fatal("nobody takes the lease of one that is cut off")
			}
		}
		if took := time.Since(began); took < leaseLost || took > leaseStale+leaseRenew+2*leaseLook {
			t.Errorf("the lease changed hands after %v", took)
		}
		endSecond()
		endThird()
		all.Wait()
	})
}

// strangeVault is a Vault whose values can't be decrypted.
type strangeVault struct{ *memoryVault }

func (v strangeVault) Load(ctx context.Context, key string) ([]byte, uint64, time.Time, error) {
	_, revision, stored, err := v.memoryVault.Load(ctx, key)
	if err == nil {
		err = errors.New("it does not decrypt")
	}
	return nil, revision, stored, err
}

// A stale lease is taken even if its holder had another fleet key.
func TestLeaseOfAnotherKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := strangeVault{newMemoryVault()}
		if _, err := v.Save(t.Context(), "lease", []byte("?"), 0); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*leaseStale)
		defer cancel()
		led := false
		hold(ctx, v, "lease", slog.New(slog.DiscardHandler), func(context.Context) {
			led = true
			cancel()
		})
		if !led {
			t.Error("nobody got the lease")
		}
	})
}

func TestVaultStorage(t *testing.T) {
	ctx := t.Context()
	s := &vaultStorage{vault: newMemoryVault(), may: func() bool { return true }}
	for _, key := range []string{"certificates/le/a/a.crt", "certificates/le/a/a.key", "certificates/le/b/b.crt",
		"acme/le/users/ops"} {
		if err := s.Store(ctx, key, []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Store(ctx, "certificates/le/a/a.crt", []byte("newer")); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Load(ctx, "certificates/le/a/a.crt"); err != nil || string(v) != "newer" {
		t.Errorf("got %q, %v", v, err)
	}
	for _, c := range []struct {
		folder    string
		recursive bool
		want      []string
	}{
		{"certificates/le", false, []string{"certificates/le/a", "certificates/le/b"}},
		{"certificates/le/a", true, []string{"certificates/le/a/a.crt", "certificates/le/a/a.key"}},
		{"", false, []string{"acme", "certificates"}},
		{"cert", true, nil},
	} {
		got, err := s.List(ctx, c.folder, c.recursive)
		if err != nil || !slices.Equal(got, c.want) && len(got)+len(c.want) > 0 {
			t.Errorf("list %q: %q, %v, want %q", c.folder, got, err, c.want)
		}
	}
	if s.Exists(ctx, "certificates/le/c") || !s.Exists(ctx, "certificates/le") || !s.Exists(ctx, "acme/le/users/ops") {
		t.Error("what there is is not what was stored")
	}
	if info, err := s.Stat(ctx, "acme/le/users/ops"); err != nil || info.Size != 17 || !info.IsTerminal {
		t.Errorf("stat: %+v, %v", info, err)
	}
	if err := s.Delete(ctx, "certificates/le/a"); err != nil {
		t.Error(err)
	}
	if err := s.Delete(ctx, "certificates/le/a"); err != nil {
		t.Errorf("delete what is gone: %v", err)
	}
	if _, err := s.Load(ctx, "certificates/le/a/a.key"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("load what is gone: %v", err)
	}
	if err := s.Lock(ctx, "x"); err != nil {
		t.Fatal(err)
	}
	waiting, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Lock(waiting, "x"); err == nil {
		t.Error("a lock is taken twice")
	}
	if err := s.Unlock(ctx, "x"); err != nil {
		t.Error(err)
	}
	if err := s.Unlock(ctx, "x"); err == nil {
		t.Error("a lock is given back twice")
	}
}

// The wait after a failed order grows with each failure. It is at least about an hour after the
// authority's error rateLimited.
func TestAttempts(t *testing.T) {
	now := time.Now()
	var a attempt
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360} {
		a = a.after(errors.New("down"), now)
		if wait := a.next.Sub(now); wait < want*time.Minute*9/10 || wait > want*time.Minute*11/10 {
			t.Errorf("waits %v, want about %v", wait, want*time.Minute)
		}
	}
	a = attempt{}.after(fmt.Errorf("order: %w", acme.Problem{Type: acme.ProblemTypeRateLimited}), now)
	if wait := a.next.Sub(now); wait < 50*time.Minute {
		t.Errorf("waits %v after too many orders", wait)
	}
}

// ownZone is Challenges for the zone example.com.
type ownZone struct{ Challenges }

func (ownZone) Covers(host string) bool {
	return host == "example.com" || strings.HasSuffix(host, ".example.com")
}

// A host that a wildcard covers needs no certificate of its own. Addresses get none.
func TestNames(t *testing.T) {
	a := &ACME{Challenges: ownZone{}}
	a.setNames([]string{"www.example.com", "example.com", "*.example.com", "a.b.example.com", "203.0.113.1",
		"static.example.net", "example.com", "*.example.net"})
	if got, want := a.wanted(), []string{"*.example.com", "a.b.example.com", "example.com",
		"static.example.net"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Anyone with an edge's credential can save a key that leads out of the folder of copies. Such a
// key causes no file outside the folder when expired certificates are deleted.
func TestVaultKeysThatLeadOut(t *testing.T) {
	v, dir := newMemoryVault(), t.TempDir()
	for _, key := range []string{"certificates/../../x.crt", "certificates/../acme/x.crt", "certificates/le/../x.crt",
		"certificates/le/a/a.crt"} {
		if _, err := v.Save(t.Context(), key, []byte("junk"), 0); err != nil {
			t.Fatal(err)
		}
	}
	s := &vaultStorage{vault: v, copies: filepath.Join(dir, "acme"), may: func() bool { return true },
		log: slog.New(slog.DiscardHandler)}
	// CleanStorage may fail, because the values are no certificates.
	_ = certmagic.CleanStorage(t.Context(), s, certmagic.CleanStorageOptions{Logger: zap.NewNop(), ExpiredCerts: true})
	var files []string
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, strings.TrimPrefix(name, dir))
		}
		return err
	})
	if want := []string{"/acme/certificates/le/a/a.crt"}; err != nil || !slices.Equal(files, want) {
		t.Errorf("%q, %v, want %q", files, err, want)
	}
}

// The edge remembers no challenges of names that are not wanted. There may be any number of those.
func TestChallengesOfOtherNames(t *testing.T) {
	a := &ACME{Vault: newMemoryVault(), Dir: t.TempDir(), Directory: "https://ca.example/directory"}
	if err := a.start(slog.New(slog.DiscardHandler), &net.TCPAddr{Port: 80}, &net.TCPAddr{Port: 443}); err != nil {
		t.Fatal(err)
	}
	defer a.cache.Stop()
	a.setNames([]string{"www.example.com"})
	for i := range 1000 {
		a.Changed(fmt.Sprintf("acme/ca/challenge_tokens/%d.example.net.json", i))
	}
	a.Changed("acme/ca/challenge_tokens/www.example.com.json")
	if len(a.pending) != 1 || !a.mayBeOrdering("www.example.com") || a.mayBeOrdering("1.example.net") {
		t.Errorf("%d are pending, %v, %v", len(a.pending), a.mayBeOrdering("www.example.com"),
			a.mayBeOrdering("1.example.net"))
	}
	a.setNames(nil)
	a.Changed("acme/ca/challenge_tokens/www.example.com.json")
	if len(a.pending) != 0 {
		t.Errorf("%d are pending of names that are not wanted any more", len(a.pending))
	}
}
