package edge

import (
	"errors"
)

var errPanic = errors.New("a fault of the edge itself, which its log tells of")
