//go:build linux && !amd64

package world

import (
	"errors"
	"time"
)

// StepClock is for amd64 only, as it brings machine code.
func (p *Process) StepClock(time.Duration) error { return errors.ErrUnsupported }
