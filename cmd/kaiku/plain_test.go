package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode"

	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/origin"
)

// Texts from a node can't send control characters to the operator's terminal.
func TestHostileNodeOnTerminal(t *testing.T) {
	const evil = "\x1b]0;owned\x07\x1b[2J\u009b31m\rall is well"
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/status" {
			w.WriteHeader(http.StatusTeapot)
			_ = json.NewEncoder(w).Encode(map[string]string{"error": evil})
			return
		}
		_ = json.NewEncoder(w).Encode(admin.Status{Name: evil, Version: evil,
			Nodes: []admin.NodeStatus{{Node: "x" + evil, Roles: []string{evil}, Region: evil, Version: evil,
				Live: true}},
			Origins: []origin.Status{{Site: evil,
				Servers: []origin.ServerStatus{{Server: evil, State: evil,
					LastFailure: &origin.Failure{Error: evil}}}}}})
	}))
	defer node.Close()
	for _, args := range [][]string{{"status"}, {"purge", "--all"}, {"explain", "http", "http://www.example.com/"}} {
		var out bytes.Buffer
		if err := run(t.Context(), append(args, "--admin", node.URL), &out, &out); err != nil {
			printError(&out, err)
		}
		if i := strings.IndexFunc(out.String(),
			func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }); i >= 0 {
			t.Errorf("%q: %q", args, out.String()[i:])
		}
		if !strings.Contains(out.String(), "all is well") {
			t.Errorf("%q: %q", args, out.String())
		}
	}
}

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{"a\tb\r\nÄ\n": "a\tb\nÄ\n", "\x1b[1m": "\ufffd[1m",
		"\xff\x9b": "\ufffd\ufffd", "a\u0085\x7f": "a\ufffd\ufffd"} {
		var out bytes.Buffer
		if n, err := (plain{&out}).Write([]byte(in)); err != nil || n != len(in) || out.String() != want {
			t.Errorf("%q became %q, want %q: %d, %v", in, out.String(), want, n, err)
		}
	}
	if _, err := (plain{failing{}}).Write([]byte("a")); err == nil {
		t.Error("an error was lost")
	}
}

// failing fails every write.
type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("full") }
