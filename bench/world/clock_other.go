//go:build linux && !amd64

package world

import (
	"errors"
	"time"
)

// StepClock returns errors.ErrUnsupported: it needs machine code, which exists only for amd64.
func (p *Process) StepClock(time.Duration) error { return errors.ErrUnsupported }
