package fleet

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

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
		testwait.Until(t, "it is connected", c.conn.IsConnected)
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
	testwait.Until(t, "ns1 is connected", dns.Client.conn.IsConnected)
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
