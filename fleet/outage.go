package fleet

import (
	"log/slog"
	"time"
)

// outageTime is how long an outage lasts before it is logged as a warning. The start of control
// nodes and the election of a leader take less.
const outageTime = 15 * time.Second

// outage logs failures to reach the control plane. It is for one goroutine.
type outage struct {
	log   *slog.Logger
	what  string
	attrs []any

	since  time.Time // of the first failure in a row
	fails  int
	warned string // the error of the last warning
}

// failed records a failure. It logs the second failure in a row, and warns if failures last. It
// doesn't repeat the same warning.
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

// over records a success.
func (o *outage) over() { o.fails, o.warned = 0, "" }
