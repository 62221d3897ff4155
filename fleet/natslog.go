package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
)

// natsLog gives what the embedded server says to slog. NATS speaks to whoever runs NATS: what it
// calls an error is mostly what happens while another control node starts. So each line counts one
// level less, but for those of which levelOf knows better.
type natsLog struct {
	log *slog.Logger
	// set when a write failed, after which the server writes nothing more until it is started
	// again; nil is not told
	failed *atomic.Bool
}

// Noticef is a matter of debugging.
func (l natsLog) Noticef(format string, v ...any) { l.say(slog.LevelDebug, format, v) }

// Warnf informs.
func (l natsLog) Warnf(format string, v ...any) { l.say(slog.LevelInfo, format, v) }

// Errorf warns.
func (l natsLog) Errorf(format string, v ...any) { l.say(slog.LevelWarn, format, v) }

// Fatalf is an error; the server ends by itself.
func (l natsLog) Fatalf(format string, v ...any) { l.say(slog.LevelError, format, v) }

// Debugf says nothing.
func (natsLog) Debugf(string, ...any) {}

// Tracef says nothing.
func (natsLog) Tracef(string, ...any) {}

func (l natsLog) say(level slog.Level, format string, v []any) {
	text := fmt.Sprintf(format, v...)
	if l.failed != nil && strings.Contains(text, writeError) {
		l.failed.Store(true)
	}
	level, meaning := levelOf(level, text)
	l.log.Log(context.Background(), level, "control server: "+meaning, "nats", text)
}

// writeError is in the lines about writes that failed, but for its first letter: there is no other
// sign of it for a stream that one node alone keeps.
const writeError = "ritical write error"

// levelOf is the level of a line of NATS, and what it means for the fleet.
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
		// certificates of control nodes are verified by Key.TLS, which NATS can't know
		return slog.LevelDebug, "its certificates are those of the fleet"
	case has("Error trying to connect to route"):
		return slog.LevelInfo, "another control node can't be connected to, and is tried again"
	case has("Waiting for routing", "not established contact with a meta leader"):
		return slog.LevelInfo, "it waits for a majority of the control nodes"
	case has("TLS handshake error"): // of anybody who finds the port
		return slog.LevelInfo, "a connection without a certificate of the fleet is refused"
	case has("Error listening on"):
		return slog.LevelError, "it can't listen on its address"
	case has("has NO quorum"):
		return slog.LevelWarn, "there is no majority of the control nodes: purges are refused"
	case has(writeError, "DISABLED", "disabling JetStream", "resource limits exceeded", "resources exceeded"):
		return slog.LevelError, "the log of purges can't be written: is its disk full, or may the folder not be written to?"
	case level >= slog.LevelWarn:
		return level, "something is wrong"
	}
	return level, "what NATS says"
}
