package deploy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// What a node runs is what its process tells systemd, which `systemctl status` shows, and a deploy
// reads: that it runs the fleet file with a sum, and with which one it does not. A version that
// tells nothing is taken at its word.
const (
	runsFile  = "runs the fleet file "
	tookNot   = "; it did not take "
	fleetFile = etc + "/fleet.yaml"
)

// FleetSum is what a fleet file is told of by: the begin of its checksum.
func FleetSum(text []byte) string {
	s := sha256.Sum256(text)
	return hex.EncodeToString(s[:8])
}

// Taken is what a process tells systemd that runs a fleet file.
func Taken(sum string) string { return runsFile + sum }

// NotTaken is what a process tells systemd that goes on with a fleet file, as it can't take another
// one.
func NotTaken(runs, sum string, err error) string {
	line, _, _ := strings.Cut(strings.TrimSpace(err.Error()), "\n")
	return fmt.Sprintf("%s%s%s%s: %.300s", runsFile, runs, tookNot, sum, line)
}

// runs returns nil if a process runs a fleet file, by what it told systemd.
func runs(status, sum string) error {
	rest, tells := strings.CutPrefix(status, runsFile)
	if !tells || sum == "" {
		return nil
	}
	if _, why, not := strings.Cut(rest, tookNot+sum+": "); not { // also if a file that it names is another one alone
		return fmt.Errorf("%w: it did not take the new fleet file: %s", ErrRefused, why)
	}
	if after, is := strings.CutPrefix(rest, sum); is && (after == "" || strings.HasPrefix(after, tookNot)) {
		return nil
	}
	return fmt.Errorf("it has not taken the new fleet file yet")
}
