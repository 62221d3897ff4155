//go:build !linux

package geodns

import (
	"errors"
	"os/exec"
)

func aloneOnLoopback(*exec.Cmd) bool { return false }

func loopbackUp() error { return errors.ErrUnsupported }
