package fleet

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
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
	until(t, "the vault is there", func() bool {
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

func testVault(t *testing.T, a, b *Vault) {
	ctx := t.Context()
	const name = "certificates/acme-v02.api.letsencrypt.org-directory/wildcard_.*example.com/*.example.com.crt"
	load := func(v *Vault, want string, wantRevision uint64) {
		t.Helper()
		value, revision, stored, err := v.Load(ctx, name)
		if err != nil || string(value) != want || revision != wantRevision || time.Since(stored).Abs() > time.Minute {
			t.Errorf("loaded %q of revision %d, stored %v: %v; want %q of %d", value, revision, stored, err, want,
				wantRevision)
		}
	}
	save := func(v *Vault, value []byte, revision uint64) uint64 {
		t.Helper()
		saved, err := v.Save(ctx, name, value, revision)
		if err != nil || (saved == 0) != (value == nil) {
			t.Fatalf("save over revision %d: revision %d, %v", revision, saved, err)
		}
		return saved
	}
	conflict := func(v *Vault, value []byte, revision uint64) {
		t.Helper()
		if _, err := v.Save(ctx, name, value, revision); !errors.Is(err, ErrChanged) || errors.Is(err, ErrUnavailable) {
			t.Errorf("save over revision %d: %v", revision, err)
		}
	}
	none := func(v *Vault) {
		t.Helper()
		if _, _, _, err := v.Load(ctx, name); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrUnavailable) {
			t.Errorf("load what is not there: %v", err)
		}
	}
	none(a)
	save(a, nil, 0)
	conflict(a, nil, 7)
	conflict(a, []byte("x"), 7)
	one := save(a, []byte("one"), 0)
	load(b, "one", one)
	conflict(b, []byte("x"), 0)
	conflict(b, nil, 0)
	two := save(b, []byte("two"), one)
	load(a, "two", two)
	conflict(a, []byte("x"), one)
	conflict(a, nil, one)
	load(a, "two", two)
	save(a, nil, two)
	none(b)
	conflict(b, nil, two)
	conflict(b, []byte("x"), two)
	save(a, nil, 0)
	three := save(b, []byte{}, 0) // over the mark of a deletion
	load(a, "", three)
	large := bytes.Repeat([]byte("x"), maxVaultValue)
	load2 := save(a, large, three)
	load(b, string(large), load2)
	for bad, value := range map[string][]byte{"": nil, strings.Repeat("k", maxVaultKey+1): nil,
		"k": append(large, 'x')} {
		if _, err := a.Save(ctx, bad, value, 0); err == nil || errors.Is(err, ErrUnavailable) {
			t.Errorf("saved %d bytes as a key of %d: %v", len(value), len(bad), err)
		}
	}

	// Of several who save over the same revision, one does.
	var group sync.WaitGroup
	results := make([]error, 8)
	for i := range results {
		group.Go(func() {
			_, results[i] = []*Vault{a, b}[i%2].Save(ctx, "locks/x", []byte{byte(i)}, 0)
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

	if _, err := a.Save(ctx, strings.Repeat("k", maxVaultKey), []byte("of the longest key"), 0); err != nil {
		t.Error(err)
	}
	if _, revision, _, err := a.Load(ctx, "locks/x"); err != nil {
		t.Error(err)
	} else if _, err := a.Save(ctx, "locks/x", nil, revision); err != nil {
		t.Error(err)
	}
	keys, err := b.Keys(ctx)
	slices.Sort(keys)
	if want := []string{name, strings.Repeat("k", maxVaultKey)}; err != nil || !slices.Equal(keys, want) {
		t.Errorf("keys are %q: %v", keys, err)
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
		until(t, "the vault takes "+key, func() bool {
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
	until(t, "what is there is told",
		func() bool { return seen.has("stays", 1)() && seen.has("changes", 1)() && seen.has("goes", 1)() })
	save("new", []byte("1"))
	until(t, "a new one is told", seen.has("new", 1))
	save("new", nil)
	until(t, "a deletion is told", seen.has("new", 2))

	wall.set(true)
	nodes[0].stop()
	nodes[0].start(t)
	save("changes", []byte("2"))
	save("goes", nil)
	wall.set(false)
	until(t, "what has changed is told", func() bool { return seen.has("changes", 2)() && seen.has("goes", 2)() })
	save("after", []byte("1"))
	until(t, "the watch goes on", seen.has("after", 1))

	// A bucket that replaces another has revisions of its own.
	nodes[0].stop()
	nodes[0].Dir = filepath.Join(dir, "another")
	nodes[0].start(t)
	clear(revisions)
	until(t, "the vault is there again", func() bool { _, err := a.Keys(t.Context()); return err == nil })
	save("stays", []byte("1"))
	until(t, "it is told of", func() bool { seen.mu.Lock(); defer seen.mu.Unlock(); return seen.all["stays"] > 1 })
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

// Only edges may read and write certificates, and only they may publish challenges.
func TestVaultPermissions(t *testing.T) {
	nodes := startControl(t, t.TempDir(), 1)
	edge := vaultOf(t, dial(t, nodes, "hel1", RoleEdge))
	untilReady(t, edge)
	if _, err := edge.Save(t.Context(), "a", []byte("the private key"), 0); err != nil {
		t.Fatal(err)
	}
	token := "$KV." + certificateBucket + "." + encodeToken("a")
	for _, role := range []string{RoleGeoDNS, RoleControl, RoleAdmin} {
		c := dial(t, nodes, "n-"+role, role)
		until(t, "it is connected", c.conn.IsConnected)
		inbox := inbox(c.Node) + ".x"
		sub, err := c.conn.SubscribeSync(inbox + ".>")
		if err != nil {
			t.Fatal(err)
		}
		consumer := `{"stream_name":"KV_certificates","config":{"deliver_subject":"` + inbox +
			`.d","ack_policy":"none","name":"x"}}`
		for i, m := range [][2]string{
			{"$JS.API.STREAM.MSG.GET.KV_certificates", `{"last_by_subj":"` + token + `"}`},
			{"$JS.API.DIRECT.GET.KV_certificates", `{"last_by_subj":"` + token + `"}`},
			{"$JS.API.DIRECT.GET.KV_certificates." + token, ""},
			{"$JS.API.CONSUMER.CREATE.KV_certificates", consumer},
			{"$JS.API.CONSUMER.CREATE.KV_certificates.x", consumer},
			{"$JS.API.CONSUMER.CREATE.KV_certificates.x.>", consumer},
			{"$JS.API.CONSUMER.DURABLE.CREATE.KV_certificates.x", consumer},
			{"$JS.API.STREAM.MSG.GET.KV_leases", `{"last_by_subj":"` + token + `"}`},
			{token, "written"},
			{"$KV." + challengeBucket + ".61.62", "written"},
		} {
			if err := c.conn.PublishMsg(&nats.Msg{Subject: m[0], Reply: inbox + ".r", Data: []byte(m[1])}); err != nil {
				t.Errorf("%s: %d: %v", role, i, err)
			}
		}
		if err := c.conn.Flush(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond) // what is not allowed is not answered
		defer cancel()
		for {
			m, err := sub.NextMsgWithContext(ctx)
			if err != nil {
				break
			}
			if !bytes.Contains(m.Data, []byte(`"error"`)) && m.Header.Get("Status") == "" {
				t.Errorf("%s got %s with %q, %v", role, m.Subject, m.Data, m.Header)
			}
		}
		if err := c.conn.LastError(); !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("%s: %v", role, err)
		}
	}
	if value, _, _, err := edge.Load(t.Context(), "a"); err != nil || string(value) != "the private key" {
		t.Errorf("afterwards: %q, %v", value, err)
	}
	challenges, err := edge.Client.bucketAt(t.Context(), challengeBucket)
	if err != nil || challenges.Seq != 0 {
		t.Errorf("challenges are at %v: %v", challenges, err)
	}
	dns := vaultOf(t, dial(t, nodes, "ns1", RoleGeoDNS))
	until(t, "ns1 is connected", dns.Client.conn.IsConnected)
	if _, err := dns.Client.bucketAt(t.Context(), challengeBucket); err != nil {
		t.Errorf("a name server can't read challenges: %v", err)
	}
	if _, _, _, err := dns.Load(t.Context(), "a"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a name server loads a certificate: %v", err)
	}
}

// Values of the secret of before are read, and encrypted with the new one before the old one is
// given up.
func TestVaultReseal(t *testing.T) {
	nodes := startControl(t, t.TempDir(), 1)
	c := dial(t, nodes, "hel1", RoleEdge)
	before, both, after := vaultWith(t, c, "a"), vaultWith(t, c, "ba"), vaultWith(t, c, "b")
	untilReady(t, before)
	ctx := t.Context()
	stored := func(key string, revision uint64, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("store %s: revision %d, %v", key, revision, err)
		}
	}
	for _, key := range []string{"certificates/x", "accounts/y", "empty"} {
		revision, err := before.Save(ctx, key, []byte(strings.TrimPrefix(key, "empty")), 0)
		stored(key, revision, err)
	}
	revision, err := vaultWith(t, c, "z").Save(ctx, "strange", []byte("z"), 0)
	stored("strange", revision, err)
	revision, err = both.Save(ctx, "new", []byte("new"), 0)
	stored("new", revision, err)
	value, _, _, err := both.Load(ctx, "certificates/x")
	if err != nil || string(value) != "certificates/x" {
		t.Fatalf("a value of the secret of before: %q, %v", value, err)
	}
	if _, _, _, err := after.Load(ctx, "certificates/x"); err == nil {
		t.Fatal("a value of the secret of before is read without that")
	}
	if err := both.Reseal(ctx); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"certificates/x": "certificates/x", "accounts/y": "accounts/y",
		"empty": "", "new": "new"} {
		value, now, _, err := after.Load(ctx, key)
		if err != nil || string(value) != want || value == nil {
			t.Errorf("%s is %q afterwards: %v", key, value, err)
		}
		if key == "new" && now != revision {
			t.Errorf("%s was encrypted again: its revision is %d, not %d", key, now, revision)
		}
	}
	if value, _, _, err := vaultWith(t, c, "z").Load(ctx, "strange"); err != nil || string(value) != "z" {
		t.Errorf("what can't be read was touched: %q, %v", value, err)
	}
}

// A credential has the secrets of its node's roles, the same as the fleet key gives, and no others.
func TestCredentialSecrets(t *testing.T) {
	k := keys(t, "kl")
	type secrets struct {
		cookie            [2][16]byte
		certificate, edge [2][32]byte
	}
	read := func(k Key) (s secrets, errs [3]error) {
		cookie, err0 := k.CookieSecrets()
		certificate, err1 := k.CertificateSecrets()
		edge, err2 := k.EdgeSecrets()
		copy(s.cookie[:], cookie)
		copy(s.certificate[:], certificate)
		copy(s.edge[:], edge)
		return s, [3]error{err0, err1, err2}
	}
	want, errs := read(k)
	if errs != [3]error{} || want.certificate == want.edge || want.certificate[0] == want.certificate[1] ||
		want.certificate[1] == [32]byte{} || want.cookie[1] == [16]byte{} {
		t.Fatalf("secrets of the fleet key: %v, %v", want, errs)
	}
	file := filepath.Join(t.TempDir(), "x.pem")
	for _, c := range []struct {
		roles        []string
		cookie, edge bool
	}{
		{[]string{RoleEdge}, false, true}, {[]string{RoleGeoDNS}, true, false}, {[]string{RoleControl}, false, false},
		{[]string{RoleEdge, RoleGeoDNS}, true, true}, {[]string{RoleGeoDNS, RoleControl}, true, false},
	} {
		text, err := k.Credential("x1", c.roles, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		own, err := ReadKey(file)
		if err != nil {
			t.Fatal(err)
		}
		got, errs := read(own)
		for i, has := range []bool{c.cookie, c.edge, c.edge} {
			if (errs[i] == nil) != has || !has && !strings.Contains(errs[i].Error(), "node x1") {
				t.Errorf("%v: secret %d: %v", c.roles, i, errs[i])
			}
		}
		if c.cookie && got.cookie != want.cookie ||
			c.edge && (got.certificate != want.certificate || got.edge != want.edge) {
			t.Errorf("%v: %v, want %v", c.roles, got, want)
		}
		if has := bytes.Contains(text, []byte("KAIKU CERTIFICATE SECRET")) ||
			bytes.Contains(text, []byte("KAIKU EDGE SECRET")); has != c.edge {
			t.Errorf("%v: the credential has secrets of edges: %v", c.roles, has)
		}
	}
	text, err := k.Credential("x1", []string{RoleEdge}, nil)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(text, []byte("-----END KAIKU EDGE SECRET"))
	if _, err := parseCredential(slices.Concat(text[:at-9], []byte("\n"), text[at:])); !errors.Is(err, errCredential) {
		t.Errorf("of a secret that is cut: %v", err)
	}
}
