package deploy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// A process reports the fleet file that it runs, and a newer one that it rejected, to systemd
// (STATUS=). `systemctl status` shows the report and a deploy reads it. A version that reports
// nothing is assumed to run the current file.
const (
	runsPrefix     = "runs the fleet file "
	rejectedPrefix = "; it did not take "
	fleetFile      = etc + "/fleet.yaml"
)

// FleetSum returns the identifier of a fleet file: the first 16 digits of its SHA-256.
func FleetSum(text []byte) string {
	s := sha256.Sum256(text)
	return hex.EncodeToString(s[:8])
}

// Taken returns the status of a process that runs a fleet file.
func Taken(sum string) string { return runsPrefix + sum }

// NotTaken returns the status of a process that rejected a new fleet file and still runs the old
// one.
func NotTaken(runs, sum string, err error) string {
	line, _, _ := strings.Cut(strings.TrimSpace(err.Error()), "\n")
	return fmt.Sprintf("%s%s%s%s: %.300s", runsPrefix, runs, rejectedPrefix, sum, line)
}

// checkStatus returns nil if the status of a process says that it runs the fleet file with the
// checksum sum.
func checkStatus(status, sum string) error {
	rest, tells := strings.CutPrefix(status, runsPrefix)
	if !tells || sum == "" {
		return nil
	}
	// Also if only a file that fleet.yaml names has changed.
	if _, why, not := strings.Cut(rest, rejectedPrefix+sum+": "); not {
		return fmt.Errorf("%w: it refused the new fleet file: %s", ErrRefused, why)
	}
	if after, is := strings.CutPrefix(rest, sum); is && (after == "" || strings.HasPrefix(after, rejectedPrefix)) {
		return nil
	}
	return fmt.Errorf("it has not loaded the new fleet file yet")
}
