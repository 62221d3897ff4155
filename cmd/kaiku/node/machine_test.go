package node

import (
	"bytes"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
)

// A RAM tier larger than the machine's memory is an error with the numbers. One that may be too
// large is a warning.
func TestMachineFits(t *testing.T) {
	for _, c := range []struct {
		memory, disk, hasMemory, hasDisk config.Size
		refused, warned                  string
	}{
		{256 << 20, 10 << 30, 1 << 30, 20 << 30, "", ""},
		{256 << 20, 10 << 30, 0, 0, "", ""}, // unknown sizes
		{8 << 30, 10 << 30, 4_100_000_000, 20 << 30,
			"edge.memory is 8.0GiB, but this machine has 3.8GiB: use at most a quarter of it, such as 978MiB", ""},
		{3 << 30, 10 << 30, 4 << 30, 20 << 30, "", "edge.memory is more than half of this machine's memory"},
		{256 << 20, 50 << 30, 1 << 30, 20 << 30, "", "edge.disk is larger than the file system"},
	} {
		var log bytes.Buffer
		e := config.Edge{Memory: c.memory, Disk: c.disk, Data: "/var/lib/kaiku"}
		err := checkFit(&e, c.hasMemory, c.hasDisk, slog.New(slog.NewTextHandler(&log, nil)))
		if (err == nil) != (c.refused == "") || err != nil && err.Error() != c.refused {
			t.Errorf("%+v: %v", c, err)
		}
		if (log.Len() == 0) != (c.warned == "") || !strings.Contains(log.String(), c.warned) {
			t.Errorf("%+v: it logs %q", c, log.String())
		}
	}
}

// An edge checks the machine on which it runs.
func TestEdgeLargerThanTheMachine(t *testing.T) {
	if machineMemory() == 0 {
		t.Skip("this machine does not tell its memory")
	}
	data := filepath.Join(t.TempDir(), "data")
	if fileSystem(data) == 0 {
		t.Error("the file system of a folder that is not there yet has no size")
	}
	_, err := ForOrigin(&url.URL{Scheme: "http", Host: "127.0.0.1:1"}, "", config.Edge{Memory: 100 << 40, Data: data},
		slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "edge.memory is 100TiB, but this machine has") {
		t.Errorf("%v", err)
	}
}
