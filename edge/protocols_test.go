package edge

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// notAgain are tests that need not run with each protocol: they begin others, are about purges,
// origins or freshness, which know no protocol, or take long.
const notAgain = "TestEveryProtocol|TestPurge|TestPurge(In|By).*|TestWhoMayPurge.*|TestManyFollowersOfOneFill|TestOrigin(s|Killed).*|" +
	"TestWarm.*|TestOpenAPI.*|TestLease|TestFreshness|TestRawRequests|TestReadersThatReadOnGetLargeSlices|TestReaderUsesWhatOthersFetched|" +
	"Test(Fragments|Notes)AreBounded|TestEntriesThatCantBeApplied|TestRestartKeepsTheCache|TestCutOff.*|TestLargerThanTheStoreTakes|" +
	"TestReadersAreForgotten|TestInvalidation"

// The behaviour of the edge is the same over all protocols: the tests of this package run with
// clients of each.
func TestEveryProtocol(t *testing.T) {
	if protocol() != "" {
		t.Skip("this is such a run")
	}
	if testing.Short() {
		t.Skip("takes three times as long as all others")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, protocol string }{{"HTTP/1.1 over TLS", "h1"}, {"HTTP/2", "h2"}, {"HTTP/3", "h3"}} {
		t.Run(c.name, func(t *testing.T) {
			if raced && c.protocol != "h2" {
				t.Skip("the race detector makes it slow: make test runs it without")
			}
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), exe, "-test.skip", "^("+notAgain+")$", "-test.timeout", "15m")
			cmd.Env = append(os.Environ(), "KAIKU_TEST_PROTOCOL="+c.protocol)
			out, err := cmd.CombinedOutput()
			if err != nil {
				fmt.Fprintf(t.Output(), "%s\n", out)
				t.Errorf("run KAIKU_TEST_PROTOCOL=%s go test ./edge: %v", c.protocol, err)
			}
		})
	}
}
