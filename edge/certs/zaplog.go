package certs

import (
	"context"
	"log/slog"

	"go.uber.org/zap/zapcore"
)

// zapCore is a zapcore.Core that passes certmagic's log to slog. What certmagic logs as info
// becomes debug, as ACME.event logs what matters.
type zapCore struct{ log *slog.Logger }

func level(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return slog.LevelWarn // orderAll logs what it means for the name
	case l >= zapcore.WarnLevel:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

// Enabled reports whether a level is logged.
func (c zapCore) Enabled(l zapcore.Level) bool { return c.log.Enabled(context.Background(), level(l)) }

// With returns a core that adds fields to each entry.
func (c zapCore) With(fields []zapcore.Field) zapcore.Core {
	return zapCore{slog.New(c.log.Handler().WithAttrs(attrs(fields)))}
}

// Check adds the core to an entry whose level is logged.
func (c zapCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

// Write logs an entry.
func (c zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	c.log.LogAttrs(context.Background(), level(e.Level), "certificates: "+e.Message, attrs(fields)...)
	return nil
}

// Sync does nothing.
func (zapCore) Sync() error { return nil }

func attrs(fields []zapcore.Field) []slog.Attr {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	var out []slog.Attr
	for _, f := range fields {
		if v, ok := enc.Fields[f.Key]; ok {
			out = append(out, slog.Any(f.Key, v))
		}
	}
	return out
}
