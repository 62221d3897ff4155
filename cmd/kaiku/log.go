package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
)

// newLog returns the log of a process. It writes lines of text from level Info on, until Configure
// or setLevel changes that.
func newLog(out io.Writer) *slog.Logger {
	h := &logHandler{set: &logSettings{}, line: &bytes.Buffer{}, mu: &sync.Mutex{}, out: out, journal: toJournal(out)}
	opts := &slog.HandlerOptions{Level: &h.set.level}
	if h.journal {
		opts.ReplaceAttr = withoutTime
	}
	h.text, h.json = slog.NewTextHandler(h.line, opts), slog.NewJSONHandler(h.line, opts)
	return slog.New(h)
}

// logSettings are the settings of a log that can change while the process runs.
type logSettings struct {
	level slog.LevelVar
	json  atomic.Bool
	fixed atomic.Bool // the level was given on the command line, which overrides the fleet file
}

// logHandler is a slog.Handler that follows its settings. It begins lines for systemd's journal
// with their priority (sd-daemon(3)), so that journalctl -p can filter by it.
type logHandler struct {
	set        *logSettings
	text, json slog.Handler  // both write to line
	line       *bytes.Buffer // the record being written
	mu         *sync.Mutex   // guards line
	out        io.Writer
	journal    bool
}

// Enabled implements slog.Handler.
func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.set.level.Level() }

// Handle writes a record with a single Write.
func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.line.Reset()
	if h.journal {
		h.line.WriteString(priority(r.Level))
	}
	form := h.text
	if h.set.json.Load() {
		form = h.json
	}
	if err := form.Handle(ctx, r); err != nil {
		return err
	}
	_, err := h.out.Write(h.line.Bytes())
	return err
}

// WithAttrs implements slog.Handler.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.text, with.json = h.text.WithAttrs(attrs), h.json.WithAttrs(attrs)
	return &with
}

// WithGroup implements slog.Handler.
func (h *logHandler) WithGroup(name string) slog.Handler {
	with := *h
	with.text, with.json = h.text.WithGroup(name), h.json.WithGroup(name)
	return &with
}

// withoutTime drops the time of a record, because the journal records its own.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// Configure applies the log settings of a fleet file. A level from the command line stays in force.
func (h *logHandler) Configure(l config.LogSettings) {
	h.set.json.Store(l.Format == "json")
	if !h.set.fixed.Load() {
		h.set.level.Set(levelOf(l.Level))
	}
}

// levelOf returns the level with a name, which must be valid. "" means info.
func levelOf(name string) slog.Level {
	var l slog.Level // info
	if name != "" {
		_ = l.UnmarshalText([]byte(name))
	}
	return l
}

// logFlag adds the flag --log-level to a command. byDefault is the flag's default value; "" leaves
// the level to the fleet file.
func logFlag(cmd *cobra.Command, log *slog.Logger, byDefault string) {
	text := "log from this `LEVEL` on: " + strings.Join(config.LogLevels(), ", ")
	if byDefault == "" {
		text += " (default log.level of the fleet file, or info)"
	}
	level := cmd.Flags().String("log-level", byDefault, text)
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if *level == "" {
			return nil
		}
		return setLevel(log, *level)
	}
}

// setLevel sets the level from the command line. A fleet file no longer changes it.
func setLevel(log *slog.Logger, name string) error {
	if !slices.Contains(config.LogLevels(), name) {
		return usageError{fmt.Errorf("--log-level %q: want %s", name, strings.Join(config.LogLevels(), ", "))}
	}
	if h, ok := log.Handler().(*logHandler); ok {
		h.set.fixed.Store(true)
		h.set.level.Set(levelOf(name))
	}
	return nil
}

// toJournal reports whether out is connected to systemd's journal. JOURNAL_STREAM alone does not
// prove that: a child inherits the environment, but may have another standard error.
func toJournal(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok || os.Getenv("JOURNAL_STREAM") == "" {
		return false
	}
	info, err := file.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// priority returns the prefix by which the journal reads a level (sd-daemon(3)).
func priority(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "<3>"
	case l >= slog.LevelWarn:
		return "<4>"
	case l >= slog.LevelInfo:
		return "<6>"
	}
	return "<7>"
}

// printError prints the error that ends the program.
func printError(out io.Writer, err error) {
	text := "kaiku: " + err.Error()
	if toJournal(out) {
		text = priority(slog.LevelError) + strings.ReplaceAll(text, "\n", "\n"+priority(slog.LevelError))
	}
	fmt.Fprintln(plain{out}, text)
}
