package fleet

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
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

// shake connects a client to a server and returns what each side says of it. In TLS 1.3 a client learns at its first read that it was refused.
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
	for text, ok := range map[string]bool{"": false, "short\n": false, strings.Repeat(" ", 50): false, strings.Repeat("k", 31): false,
		strings.Repeat("k", 32): true} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadKey(file); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
	// White space around the key is not part of it: it is the same one with and without a newline at the end.
	a, _ := NewKey([]byte(strings.Repeat("k", 40)))
	b, _ := NewKey([]byte(strings.Repeat("k", 40) + "\n"))
	x, _ := a.derive("test", 16)
	y, _ := b.derive("test", 16)
	z, _ := a.derive("another", 16)
	if string(x) != string(y) || string(x) == string(z) {
		t.Error("derived secrets don't depend on key and purpose alone")
	}
}
