package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
)

// natsLog passes the log of the embedded server to slog. NATS writes for operators of NATS: most of
// its errors are normal when another control node starts. So each line gets one level less, except
// those that levelOf knows.
type natsLog struct {
	log *slog.Logger
	// failed is set when a write failed. After that, the server writes nothing until it is started
	// again. It may be nil.
	failed *atomic.Bool
}

// Noticef logs at level Debug.
func (l natsLog) Noticef(format string, v ...any) { l.write(slog.LevelDebug, format, v) }

// Warnf logs at level Info.
func (l natsLog) Warnf(format string, v ...any) { l.write(slog.LevelInfo, format, v) }

// Errorf logs at level Warn.
func (l natsLog) Errorf(format string, v ...any) { l.write(slog.LevelWarn, format, v) }

// Fatalf logs at level Error. The server then stops by itself.
func (l natsLog) Fatalf(format string, v ...any) { l.write(slog.LevelError, format, v) }

// Debugf logs nothing.
func (natsLog) Debugf(string, ...any) {}

// Tracef logs nothing.
func (natsLog) Tracef(string, ...any) {}

func (l natsLog) write(level slog.Level, format string, v []any) {
	text := fmt.Sprintf(format, v...)
	if l.failed != nil && strings.Contains(text, writeError) {
		l.failed.Store(true)
	}
	level, meaning := levelOf(level, text)
	l.log.Log(context.Background(), level, "control server: "+meaning, "nats", text)
}

// writeError is part of each line about a failed write, without its first letter. There is no other
// sign of such a failure for a stream with a single replica.
const writeError = "ritical write error"

// levelOf returns the level of a line of NATS, and its meaning for the fleet.
func levelOf(level slog.Level, text string) (slog.Level, string) {
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(text, p) {
				return true
			}
		}
		return false
	}
	switch {
	case has("DO NOT USE IN PRODUCTION"):
		// Key.TLS verifies the certificates of control nodes, which NATS can't know.
		return slog.LevelDebug, "its certificates come from the fleet's authority"
	case has("Error trying to connect to route"):
		return slog.LevelInfo, "can't connect to another control node; retrying"
	case has("Waiting for routing", "not established contact with a meta leader"):
		return slog.LevelInfo, "waiting for a majority of the control nodes"
	case has("TLS handshake error"): // from anybody who finds the port
		return slog.LevelInfo, "refused a connection without a certificate of the fleet"
	case has("Error listening on"):
		return slog.LevelError, "can't listen on its address"
	case has("has NO quorum"):
		return slog.LevelWarn, "no majority of the control nodes: purges are refused"
	case has(writeError, "DISABLED", "disabling JetStream", "resource limits exceeded", "resources exceeded"):
		return slog.LevelError, "can't write the log of purges: is the disk full, or the folder not writable?"
	case level >= slog.LevelWarn:
		return level, "something is wrong"
	}
	return level, "what NATS says"
}
