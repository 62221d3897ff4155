package fleet

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

func vaultOf(t testing.TB, c *Client) *Vault {
	t.Helper()
	return vaultWith(t, c, "k")
}

// vaultWith is one of a key of several secrets, each a letter.
func vaultWith(t testing.TB, c *Client, letters string) *Vault {
	t.Helper()
	secrets, err := keys(t, letters).CertificateSecrets()
	if err != nil {
		t.Fatal(err)
	}
	return &Vault{Client: c, Secrets: secrets}
}

// untilReady waits until the bucket is there.
func untilReady(t testing.TB, v *Vault) {
	t.Helper()
	testwait.Until(t, "the vault is there", func() bool {
		_, err := v.Keys(t.Context())
		return err == nil
	})
}

func TestVault(t *testing.T) {
	for _, n := range []int{1, 3} {
		nodes := startControl(t, t.TempDir(), n)
		a, b := vaultOf(t, dial(t, nodes, "hel1", RoleEdge)), vaultOf(t, dial(t, nodes, "nyc1", RoleEdge))
		untilReady(t, a)
		testVault(t, a, b)
	}
}

// vaultName is a key as certmagic makes them.
const vaultName = "certificates/acme-v02.api.letsencrypt.org-directory/wildcard_.*example.com/*.example.com.crt"

// wantValue loads vaultName.
func (v *Vault) wantValue(t *testing.T, want string, wantRevision uint64) {
	t.Helper()
	value, revision, stored, err := v.Load(t.Context(), vaultName)
	if err != nil || string(value) != want || revision != wantRevision || time.Since(stored).Abs() > time.Minute {
		t.Errorf("loaded %.40q of revision %d, stored %v: %v; want %.40q of %d", value, revision, stored, err, want,
			wantRevision)
	}
}

// wantNone loads vaultName, which is not there.
func (v *Vault) wantNone(t *testing.T) {
	t.Helper()
	if _, _, _, err := v.Load(t.Context(), vaultName); !errors.Is(err, fs.ErrNotExist) ||
		errors.Is(err, ErrUnavailable) {
		t.Errorf("load what is not there: %v", err)
	}
}

// mustSave saves vaultName over a revision, and returns the new one. A nil value deletes.
func (v *Vault) mustSave(t *testing.T, value []byte, revision uint64) uint64 {
	t.Helper()
	saved, err := v.Save(t.Context(), vaultName, value, revision)
	if err != nil || (saved == 0) != (value == nil) {
		t.Fatalf("save over revision %d: revision %d, %v", revision, saved, err)
	}
	return saved
}

// wantConflict saves vaultName over a revision that is not the stored one.
func (v *Vault) wantConflict(t *testing.T, value []byte, revision uint64) {
	t.Helper()
	_, err := v.Save(t.Context(), vaultName, value, revision)
	if !errors.Is(err, ErrChanged) || errors.Is(err, ErrUnavailable) {
		t.Errorf("save over revision %d: %v", revision, err)
	}
}

func testVault(t *testing.T, a, b *Vault) {
	t.Run("revisions", func(t *testing.T) { testRevisions(t, a, b) })
	t.Run("sizes", func(t *testing.T) { testSizes(t, a) })
	t.Run("race", func(t *testing.T) { testRace(t, a, b) })
	keys, err := b.Keys(t.Context())
	slices.Sort(keys)
	if want := []string{vaultName, strings.Repeat("k", maxVaultKey)}; err != nil || !slices.Equal(keys, want) {
		t.Errorf("keys are %q: %v", keys, err)
	}
}

// testRevisions saves and deletes one key at two edges.
func testRevisions(t *testing.T, a, b *Vault) {
	a.wantNone(t)
	a.mustSave(t, nil, 0)
	a.wantConflict(t, nil, 7)
	a.wantConflict(t, []byte("x"), 7)
	one := a.mustSave(t, []byte("one"), 0)
	b.wantValue(t, "one", one)
	b.wantConflict(t, []byte("x"), 0)
	b.wantConflict(t, nil, 0)
	two := b.mustSave(t, []byte("two"), one)
	a.wantValue(t, "two", two)
	a.wantConflict(t, []byte("x"), one)
	a.wantConflict(t, nil, one)
	a.wantValue(t, "two", two)
	a.mustSave(t, nil, two)
	b.wantNone(t)
	b.wantConflict(t, nil, two)
	b.wantConflict(t, []byte("x"), two)
	a.mustSave(t, nil, 0)
	three := b.mustSave(t, []byte{}, 0) // over the mark of a deletion
	a.wantValue(t, "", three)
	large := bytes.Repeat([]byte("x"), maxVaultValue)
	four := a.mustSave(t, large, three)
	b.wantValue(t, string(large), four)
}

// testSizes saves the longest key, and keys and values that are too long.
func testSizes(t *testing.T, v *Vault) {
	tooLarge := bytes.Repeat([]byte("x"), maxVaultValue+1)
	for key, value := range map[string][]byte{"": nil, strings.Repeat("k", maxVaultKey+1): nil, "k": tooLarge} {
		if _, err := v.Save(t.Context(), key, value, 0); err == nil || errors.Is(err, ErrUnavailable) {
			t.Errorf("saved %d bytes as a key of %d: %v", len(value), len(key), err)
		}
	}
	longest := strings.Repeat("k", maxVaultKey)
	if _, err := v.Save(t.Context(), longest, []byte("of the longest key"), 0); err != nil {
		t.Error(err)
	}
}

// testRace saves over one revision eight times at once, of which one succeeds, and deletes the key.
func testRace(t *testing.T, a, b *Vault) {
	var group sync.WaitGroup
	results := make([]error, 8)
	for i := range results {
		group.Go(func() {
			_, results[i] = []*Vault{a, b}[i%2].Save(t.Context(), "locks/x", []byte{byte(i)}, 0)
		})
	}
	group.Wait()
	won := 0
	for _, err := range results {
		if err == nil {
			won++
		} else if !errors.Is(err, ErrChanged) {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d have saved", won)
	}
	if _, revision, _, err := a.Load(t.Context(), "locks/x"); err != nil {
		t.Error(err)
	} else if _, err := a.Save(t.Context(), "locks/x", nil, revision); err != nil {
		t.Error(err)
	}
}

// What is stored is told by the secret, and for its key alone.
func TestVaultEncrypted(t *testing.T) {
	nodes := startControl(t, t.TempDir(), 1)
	v := vaultOf(t, dial(t, nodes, "hel1", RoleEdge))
	untilReady(t, v)
	ctx := t.Context()
	if _, err := v.Save(ctx, "a", []byte("the private key"), 0); err != nil {
		t.Fatal(err)
	}
	kv, err := v.Client.open(ctx, certificateBucket)
	if err != nil {
		t.Fatal(err)
	}
	e, err := kv.Get(ctx, encodeToken("a"))
	if err != nil {
		t.Fatal(err)
	}
	stored := e.Value()
	if bytes.Contains(stored, []byte("private")) {
		t.Error("it is stored as it is")
	}
	flipped := bytes.Clone(stored)
	flipped[len(flipped)-1] ^= 1
	for i, c := range []struct {
		what, key string
		value     []byte
		ok        bool
	}{
		{"as it was", "a", stored, true}, {"moved", "b", stored, false}, {"flipped", "a", flipped, false}, {"cut", "a",
			stored[:len(stored)-1], false},
		{"no more than a nonce", "a", stored[:13], false}, {"short", "a", stored[:5], false}, {"empty", "a", nil,
			false}, {"of another version", "a", append([]byte{9}, stored[1:]...), false},
	} {
		if _, err := kv.Put(ctx, encodeToken(c.key), c.value); err != nil {
			t.Fatal(err)
		}
		value, _, _, err := v.Load(ctx, c.key)
		if (err == nil) != c.ok || c.ok && string(value) != "the private key" || errors.Is(err, ErrUnavailable) ||
			errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%d: %s: %q, %v", i, c.what, value, err)
		}
	}
	if _, err := kv.Put(ctx, encodeToken("a"), stored); err != nil {
		t.Fatal(err)
	}
	other := &Vault{Client: v.Client, Secrets: [][32]byte{{1}}}
	if _, _, _, err := other.Load(ctx, "a"); err == nil || !strings.Contains(err.Error(), "another fleet key") {
		t.Errorf("with another secret: %v", err)
	}
}

// watched is what a watch has told.
type watched struct {
	mu  sync.Mutex
	all map[string]int
}

func (w *watched) has(key string, times int) func() bool {
	return func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.all[key] == times
	}
}

// A watch goes on through a restart of the control node, and tells what has changed meanwhile, and
// no more.
func TestVaultWatch(t *testing.T) {
	dir := t.TempDir()
	nodes := startControl(t, dir, 1)
	wall := newRelay(t, nodes[0].Addr)
	a := vaultOf(t, dial(t, nodes, "hel1", RoleEdge))
	b := vaultOf(t, dial(t, []*control{{Control: &Control{Addr: wall.Addr().String()}}}, "nyc1", RoleEdge))
	untilReady(t, a)
	revisions := map[string]uint64{}
	save := func(key string, value []byte) {
		t.Helper()
		testwait.Until(t, "the vault takes "+key, func() bool {
			revision, err := a.Save(t.Context(), key, value, revisions[key])
			if err == nil {
				revisions[key] = revision
			} else if !errors.Is(err, ErrUnavailable) {
				t.Fatal(err)
			}
			return err == nil
		})
	}
	for _, key := range []string{"stays", "changes", "goes"} {
		save(key, []byte("1"))
	}
	seen := &watched{all: map[string]int{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- b.Watch(ctx, func(key string) {
			seen.mu.Lock()
			defer seen.mu.Unlock()
			seen.all[key]++
		})
	}()
	testwait.Until(t, "what is there is told",
		func() bool { return seen.has("stays", 1)() && seen.has("changes", 1)() && seen.has("goes", 1)() })
	save("new", []byte("1"))
	testwait.Until(t, "a new one is told", seen.has("new", 1))
	save("new", nil)
	testwait.Until(t, "a deletion is told", seen.has("new", 2))

	wall.set(true)
	nodes[0].stop()
	nodes[0].start(t)
	save("changes", []byte("2"))
	save("goes", nil)
	wall.set(false)
	testwait.Until(t, "what has changed is told",
		func() bool { return seen.has("changes", 2)() && seen.has("goes", 2)() })
	save("after", []byte("1"))
	testwait.Until(t, "the watch goes on", seen.has("after", 1))

	// A bucket that replaces another has revisions of its own.
	nodes[0].stop()
	nodes[0].Dir = filepath.Join(dir, "another")
	nodes[0].start(t)
	clear(revisions)
	testwait.Until(t, "the vault is there again", func() bool { _, err := a.Keys(t.Context()); return err == nil })
	save("stays", []byte("1"))
	testwait.Until(t, "it is told of",
		func() bool { seen.mu.Lock(); defer seen.mu.Unlock(); return seen.all["stays"] > 1 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	seen.mu.Lock()
	defer seen.mu.Unlock()
	if got := maps.Clone(seen.all); got["stays"] != 2 || got["changes"] != 2 || got["goes"] != 2 || got["new"] != 2 {
		t.Errorf("told %v", got)
	}
}

func TestVaultUnavailable(t *testing.T) {
	nodes := startControl(t, t.TempDir(), 1)
	v := vaultOf(t, dial(t, nodes, "hel1", RoleEdge))
	untilReady(t, v)
	nodes[0].stop()
	_, _, _, err := v.Load(t.Context(), "a")
	_, err2 := v.Save(t.Context(), "a", []byte("x"), 0)
	_, err3 := v.Keys(t.Context())
	for _, err := range []error{err, err2, err3} {
		if !errors.Is(err, ErrUnavailable) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrChanged) {
			t.Errorf("without a control node: %v", err)
		}
	}
}
