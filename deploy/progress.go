package deploy

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// waiting is a long step that says every few seconds what it waits for.
type waiting struct {
	mu    sync.Mutex
	text  string
	quit  chan struct{}
	ended sync.WaitGroup
}

// waits begins a step of a node, which is named as "restarting"; end ends it.
func (d *Deploy) waits(node, format string, a ...any) *waiting {
	w := &waiting{quit: make(chan struct{})}
	w.now(format, a...)
	began := time.Now()
	w.ended.Go(func() {
		tick := time.NewTicker(first(d.Tell, 5*time.Second))
		defer tick.Stop()
		for {
			select {
			case <-w.quit:
				return
			case <-tick.C:
			}
			w.mu.Lock()
			text := w.text
			w.mu.Unlock()
			d.say("%s: still %s (%v)", node, text, time.Since(began).Round(time.Second))
		}
	})
	return w
}

// now says what is waited for from now on.
func (w *waiting) now(format string, a ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = fmt.Sprintf(format, a...)
}

// end ends the step.
func (w *waiting) end() {
	close(w.quit)
	w.ended.Wait()
}

// sending is an upload, which says how far it is.
type sending struct {
	from       io.Reader
	sent, size int64
	w          *waiting
}

// Read reads what is sent next.
func (s *sending) Read(p []byte) (int, error) {
	n, err := s.from.Read(p)
	s.sent += int64(n)
	s.w.now("uploading the binary, %d of %d MiB", s.sent>>20, s.size>>20)
	return n, err
}
