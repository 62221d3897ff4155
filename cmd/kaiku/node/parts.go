package node

import (
	"context"
	"errors"
)

// PartFunc is a part without listeners.
type PartFunc func(ctx context.Context) error

// Listen implements Part and does nothing.
func (PartFunc) Listen(context.Context) error { return nil }

// Serve calls the function.
func (f PartFunc) Serve(ctx context.Context) error { return f(ctx) }

// Part is one of the services of a process. Serve blocks until ctx ends.
type Part interface {
	Listen(ctx context.Context) error
	Serve(ctx context.Context) error
}

// Run runs all parts until ctx ends or one of them fails. Then it stops the others.
func Run(ctx context.Context, parts ...Part) error {
	for i, p := range parts {
		if err := p.Listen(ctx); err != nil {
			done, cancel := context.WithCancel(ctx)
			cancel()
			for _, listening := range parts[:i] { // Serve closes the listeners
				err = errors.Join(err, listening.Serve(done))
			}
			return err
		}
	}
	return serveParts(ctx, parts...)
}

// serveParts is Run for parts that are listening.
func serveParts(ctx context.Context, parts ...Part) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, len(parts))
	for _, p := range parts {
		go func() { ended <- p.Serve(ctx) }()
	}
	var err error
	for range parts {
		err = errors.Join(err, <-ended)
		cancel()
	}
	return err
}
