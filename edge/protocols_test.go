package edge

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// ofHTTP2 are tests of HTTP/2 itself, with clients of their own.
const ofHTTP2 = "TestH2Spec|TestHTTP2Floods|TestPatientFloods|TestProtocolsAnswerAlike"

// The behaviour of the edge is the same over all protocols: the tests of this package run with
// clients of each, but for those that call plainOnly. Each protocol has a process, because tests
// measure the heap of theirs, and run beside each other only in this way.
func TestEveryProtocol(t *testing.T) {
	if protocol() != "" || os.Getenv("KAIKU_TEST_HTTP2") != "" {
		t.Skip("this is such a run")
	}
	if testing.Short() {
		t.Skip("takes three times as long as all others")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, protocol, http2 string
		args                  []string
		raced                 bool
	}{
		{"HTTP/1.1 over TLS", "h1", "", nil, false},
		{"HTTP/2 of net/http", "h2", "", nil, false},
		{"HTTP/2 of front/http2", "h2", "own", nil, true},
		{"front/http2", "", "own", []string{"-test.run", "^(" + ofHTTP2 + ")$"}, false},
		{"HTTP/3", "h3", "", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if raced != c.raced {
				t.Skip("each runs once, and the race detector makes it slow")
			}
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), exe, append(c.args, "-test.timeout", "15m")...)
			cmd.Env = append(os.Environ(), "KAIKU_TEST_PROTOCOL="+c.protocol, "KAIKU_TEST_HTTP2="+c.http2)
			out, err := cmd.CombinedOutput()
			if err != nil {
				fmt.Fprintf(t.Output(), "%s\n", out)
				t.Errorf("run KAIKU_TEST_PROTOCOL=%s KAIKU_TEST_HTTP2=%s go test ./edge: %v", c.protocol, c.http2, err)
			}
		})
	}
}
