package deploy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

// watched is what a deploy prints, and tells when there is something in it.
type watched struct {
	mu   sync.Mutex
	text bytes.Buffer
	news chan struct{}
}

// Write keeps it.
func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case w.news <- struct{}{}:
	default:
	}
	return w.text.Write(p)
}

// wait waits until a text was printed.
func (w *watched) wait(ctx context.Context, want string) error {
	for {
		w.mu.Lock()
		found := strings.Contains(w.text.String(), want)
		w.mu.Unlock()
		if found {
			return nil
		}
		select {
		case <-w.news:
		case <-ctx.Done():
			return errors.New(want + " is not said")
		}
	}
}

// A step that takes long says again and again what it waits for.
func TestProgress(t *testing.T) {
	f := newTestFleet(t, "hel1")
	out := &watched{news: make(chan struct{}, 1)}
	f.Out, f.Tell = out, time.Millisecond
	looks := 0
	f.Deploy.Fleet = lookedAt{f, func(ctx context.Context) error {
		if looks++; looks == 1 {
			return errors.New("the cache is cold")
		}
		return out.wait(t.Context(), "hel1: still waiting for it to be well: the cache is cold (")
	}}
	f.deploy(t)
	setConfig(f, "c: 1\n")
	f.Settle = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_ = out.wait(t.Context(), "hel1: still waiting for resolvers, 1h0m0s in all (")
		cancel()
	}()
	if _, _, err := f.try(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// An upload says how much of it is there.
func TestProgressOfUpload(t *testing.T) {
	out := &watched{news: make(chan struct{}, 1)}
	d := &Deploy{Out: out, Tell: time.Millisecond}
	w := d.waits("hel1", "beginning")
	s := &sending{from: io.LimitReader(zeros{}, 5<<20), size: 9 << 20, w: w}
	if _, err := io.Copy(io.Discard, s); err != nil {
		t.Error(err)
	}
	if err := out.wait(t.Context(), "hel1: still uploading the binary, 5 of 9 MiB ("); err != nil {
		t.Error(err)
	}
	w.end()
}

// zeros are without end.
type zeros struct{}

// Read reads some.
func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
