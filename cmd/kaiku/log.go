package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
)

// newLog is the log of a process.
func newLog(out io.Writer) *slog.Logger {
	if toJournal(out) {
		return slog.New(newJournal(out))
	}
	return slog.New(slog.NewTextHandler(out, nil))
}

// toJournal reports whether systemd's journal reads what is written. A process may have given its child another standard error along with the environment.
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

// journal is a slog.Handler whose lines begin with their priority, as sd-daemon(3) has it, so that journalctl -p knows it. The journal notes the time itself.
type journal struct {
	slog.Handler // writes to line
	line         *bytes.Buffer
	mu           *sync.Mutex // guards line
	out          io.Writer
}

func newJournal(out io.Writer) *journal {
	j := &journal{line: &bytes.Buffer{}, mu: &sync.Mutex{}, out: out}
	j.Handler = slog.NewTextHandler(j.line, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
	return j
}

// Handle writes a record in one piece.
func (j *journal) Handle(ctx context.Context, r slog.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.line.Reset()
	j.line.WriteString(priority(r.Level))
	if err := j.Handler.Handle(ctx, r); err != nil {
		return err
	}
	_, err := j.out.Write(j.line.Bytes())
	return err
}

// WithAttrs adds attributes.
func (j *journal) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *j
	with.Handler = j.Handler.WithAttrs(attrs)
	return &with
}

// WithGroup begins a group.
func (j *journal) WithGroup(name string) slog.Handler {
	with := *j
	with.Handler = j.Handler.WithGroup(name)
	return &with
}

// priority is a level as the journal reads it.
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

// printError tells of the error that ends the program.
func printError(out io.Writer, err error) {
	text := "kaiku: " + err.Error()
	if toJournal(out) {
		text = priority(slog.LevelError) + strings.ReplaceAll(text, "\n", "\n"+priority(slog.LevelError))
	}
	fmt.Fprintln(out, text)
}
