package fleet

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func key(t testing.TB, letter string) Key {
	t.Helper()
	k, err := NewKey([]byte(strings.Repeat(letter, 44)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// shake connects a client to a server and returns what each side says of it. In TLS 1.3 a client
// learns at its first read that it was refused.
func shake(t *testing.T, client, server *tls.Config) (clientErr, serverErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		b, err := l.Accept()
		if err == nil {
			defer b.Close()
			_, err = tls.Server(b, server).Write([]byte("x"))
		}
		served <- err
	}()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, clientErr = io.ReadFull(tls.Client(a, client), make([]byte, 1))
	a.Close()
	return clientErr, <-served
}

func TestNodesKnowEachOther(t *testing.T) {
	conf := func(k Key, node string) *tls.Config {
		c, err := k.TLS(node)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	fleet, other := key(t, "a"), key(t, "b")
	server := conf(fleet, "hel1")
	for _, c := range []struct {
		name           string
		client         *tls.Config
		wants          string
		client1, serve bool // whether each is content
	}{
		{"another node", conf(fleet, "nyc1"), "hel1", true, true},
		{"another node that wants a third", conf(fleet, "nyc1"), "sin1", false, false},
		{"a node of another fleet", conf(other, "nyc1"), "hel1", false, false},
		{"anybody", &tls.Config{InsecureSkipVerify: true}, "hel1", false, false},
		{"a node of another fleet that trusts anybody", func() *tls.Config {
			c := conf(other, "nyc1")
			c.InsecureSkipVerify = true
			return c
		}(), "hel1", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := c.client.Clone()
			client.ServerName = c.wants
			clientErr, serverErr := shake(t, client, server)
			if (clientErr == nil) != c.client1 || (serverErr == nil) != c.serve {
				t.Errorf("client: %v; server: %v", clientErr, serverErr)
			}
		})
	}
}

func TestReadKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fleet.key")
	if _, err := ReadKey(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("no file: %v", err)
	}
	for text, ok := range map[string]bool{"": false, "short\n": false, strings.Repeat(" ", 50): false,
		strings.Repeat("k", 31): false,
		strings.Repeat("k", 32): true, strings.Repeat("k", 32) + "\n#\n" + strings.Repeat("l", 32): true,
		strings.Repeat("k", 32) + "\nshort": false} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadKey(file); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
	// White space around the key is not part of it: it is the same one with and without a newline
	// at the end.
	a, _ := NewKey([]byte(strings.Repeat("k", 40)))
	b, _ := NewKey([]byte(strings.Repeat("k", 40) + "\n"))
	x, _ := a.derive("test", 16)
	y, _ := b.derive("test", 16)
	z, _ := a.derive("another", 16)
	if len(x) != 1 || string(x[0]) != string(y[0]) || string(x[0]) == string(z[0]) {
		t.Error("derived secrets don't depend on key and purpose alone")
	}
}

func TestSplitSecrets(t *testing.T) {
	for text, want := range map[string][]string{
		"a": {"a"}, "a\n": {"a"}, " a \r\n": {"a"}, "a\nb\n": {"a", "b"},
		"# of 2026\na\n\n  # the old one:\n\tb c#d\n": {"a", "b c#d"},
		"": nil, " \n\n": nil, "# a\n": nil, "a\x00b": nil, "a\nb\x7f": nil, "a\rb": nil,
	} {
		got, err := SplitSecrets([]byte(text))
		if !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%q is %q, %v; want %q", text, got, err, want)
		}
	}
}

// keys is a key of several secrets, each a letter.
func keys(t testing.TB, letters string) Key {
	t.Helper()
	var text string
	for _, l := range letters {
		text += strings.Repeat(string(l), 44) + "\n"
	}
	k, err := NewKey([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// While a key is replaced, nodes that were changed and nodes that were not know each other at each
// step, also those that have a credential.
func TestNodesKnowEachOtherInRotation(t *testing.T) {
	credentialOf := func(k Key) Key {
		text, err := k.Credential("nyc1", []string{RoleControl}, nil)
		if err != nil {
			t.Fatal(err)
		}
		c, err := parseCredential(text)
		if err != nil {
			t.Fatal(err)
		}
		return Key{credential: c}
	}
	for _, c := range []struct {
		a, b string
		know bool
	}{
		{"a", "a", true}, {"a", "ab", true}, {"ab", "ab", true}, {"ab", "ba", true}, {"ba", "ba", true}, {"ba", "b",
			true},
		{"a", "b", false}, {"a", "ba", false}, {"ab", "b", false},
	} {
		own, plain := keys(t, c.a), keys(t, c.b)
		for what, other := range map[string]Key{"": plain, " as a credential": credentialOf(plain)} {
			if know, err := own.Knows(other); know != c.know || err != nil {
				t.Errorf("%s knows %s%s: %v, %v", c.a, c.b, what, know, err)
			}
			hel1, err1 := own.TLS("hel1", RoleControl)
			nyc1, err2 := other.TLS("nyc1", RoleControl)
			if err1 != nil || err2 != nil {
				t.Fatal(err1, err2)
			}
			for _, swap := range []bool{false, true} {
				server, client, wants := hel1, nyc1.Clone(), "hel1"
				if swap {
					server, client, wants = nyc1, hel1.Clone(), "nyc1"
				}
				client.ServerName = wants
				for _, client := range []*tls.Config{client, withRole(client, RoleControl)} {
					clientErr, serverErr := shake(t, client, server)
					if know := clientErr == nil && serverErr == nil; know != c.know {
						t.Errorf("%s and %s%s, to %s: %v, %v", c.a, c.b, what, wants, clientErr, serverErr)
					}
				}
			}
		}
	}
}

// Only edges are peers of an edge, on both sides of a connection.
func TestPeersAreEdges(t *testing.T) {
	conf := func(node string, roles ...string) *tls.Config {
		c, err := key(t, "a").PeerTLS(node, roles...)
		if err != nil {
			t.Fatal(err)
		}
		c.ServerName = "hel1"
		return c
	}
	for _, c := range []struct {
		client, server []string
		ok             bool
	}{
		{[]string{RoleEdge}, []string{RoleEdge}, true},
		{[]string{RoleGeoDNS, RoleEdge}, []string{RoleEdge, RoleControl}, true},
		{[]string{RoleGeoDNS}, []string{RoleEdge}, false},
		{[]string{RoleControl}, []string{RoleEdge}, false},
		{[]string{RoleAdmin}, []string{RoleEdge}, false},
		{nil, []string{RoleEdge}, false},
		{[]string{RoleEdge}, []string{RoleGeoDNS}, false},
	} {
		client, server := shake(t, conf("nyc1", c.client...), conf("hel1", c.server...))
		if ok := client == nil && server == nil; ok != c.ok {
			t.Errorf("client %v, server %v: %v, %v; want a connection: %v", c.client, c.server, client, server, c.ok)
		}
	}
}
