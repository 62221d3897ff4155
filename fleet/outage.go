package fleet

import (
	"log/slog"
	"time"
)

// outageTime is how long something may be out of touch before it is worth a warning: control nodes
// that start, and a leader that is elected, take less.
const outageTime = 15 * time.Second

// outage tells of something that is out of touch with the control plane. It is for one goroutine.
type outage struct {
	log   *slog.Logger
	what  string
	attrs []any

	since  time.Time // of the first failure in a row
	fails  int
	warned string // what was warned of
}

// failed notes a failure. Of a second one in a row the log is told, and that it lasts is a warning.
// The same is not warned of again and again.
func (o *outage) failed(err error) {
	now := time.Now()
	if o.fails++; o.fails == 1 {
		o.since = now
	}
	attrs := append([]any{"error", err}, o.attrs...)
	switch lasts := now.Sub(o.since); {
	case lasts >= outageTime && err.Error() != o.warned:
		o.warned = err.Error()
		o.log.Warn(o.what, append(attrs, "for", lasts.Round(time.Second).String())...)
	case o.fails == 2:
		o.log.Info(o.what, attrs...)
	}
}

// over notes that there was no failure for a while.
func (o *outage) over() { o.fails, o.warned = 0, "" }
