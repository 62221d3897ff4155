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

// watchedOutput keeps what a deploy prints and signals each write.
type watchedOutput struct {
	mu   sync.Mutex
	text bytes.Buffer
	news chan struct{}
}

// Write implements io.Writer.
func (w *watchedOutput) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case w.news <- struct{}{}:
	default:
	}
	return w.text.Write(p)
}

// wait waits until want was printed.
func (w *watchedOutput) wait(ctx context.Context, want string) error {
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

// A long step prints at intervals what it is waiting for.
func TestProgress(t *testing.T) {
	f := newTestFleet(t, "hel1")
	out := &watchedOutput{news: make(chan struct{}, 1)}
	f.Out, f.Tell = out, time.Millisecond
	looks := 0
	f.Deploy.Fleet = healthFunc{f, func(ctx context.Context) error {
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
	if _, _, err := f.tryDeploy(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// An upload prints how many bytes it has sent.
func TestProgressOfUpload(t *testing.T) {
	out := &watchedOutput{news: make(chan struct{}, 1)}
	d := &Deploy{Out: out, Tell: time.Millisecond}
	w := d.startProgress("hel1", "beginning")
	s := &uploadReader{from: io.LimitReader(zeros{}, 5<<20), size: 9 << 20, progress: w}
	if _, err := io.Copy(io.Discard, s); err != nil {
		t.Error(err)
	}
	if err := out.wait(t.Context(), "hel1: still uploading the binary, 5 of 9 MiB ("); err != nil {
		t.Error(err)
	}
	w.stop()
}

// zeros is an endless io.Reader.
type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
