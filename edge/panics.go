package edge

import (
	"errors"
)

var errPanic = errors.New("a fault of the edge itself, which its log tells of")

// flySafely is fly, of which a panic is an error like others.
func (s *Server) flySafely(f *flight, t *fetch) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.panics.Caught("a fetch", p, "key", f.key)
			err = errPanic
		}
	}()
	return s.fly(f, t)
}
