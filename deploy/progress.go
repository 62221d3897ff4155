package deploy

import (
	"cmp"
	"fmt"
	"io"
	"sync"
	"time"
)

// progress prints at intervals what a long step is waiting for.
type progress struct {
	mu    sync.Mutex
	text  string
	quit  chan struct{}
	ended sync.WaitGroup
}

// startProgress begins a step of a node. The text describes it, such as "restarting". Call stop at
// its end.
func (d *Deploy) startProgress(node, format string, a ...any) *progress {
	w := &progress{quit: make(chan struct{})}
	w.update(format, a...)
	began := time.Now()
	w.ended.Go(func() {
		tick := time.NewTicker(cmp.Or(d.Tell, 5*time.Second))
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
			d.logf("%s: still %s (%v)", node, text, time.Since(began).Round(time.Second))
		}
	})
	return w
}

// update changes the text.
func (w *progress) update(format string, a ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = fmt.Sprintf(format, a...)
}

// stop ends the step.
func (w *progress) stop() {
	close(w.quit)
	w.ended.Wait()
}

// uploadReader reads the data of an upload and updates its progress.
type uploadReader struct {
	from       io.Reader
	sent, size int64
	progress   *progress
}

// Read implements io.Reader.
func (s *uploadReader) Read(p []byte) (int, error) {
	n, err := s.from.Read(p)
	s.sent += int64(n)
	s.progress.update("uploading the binary, %d of %d MiB", s.sent>>20, s.size>>20)
	return n, err
}
