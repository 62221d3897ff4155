package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// PrintWarnings prints what works but is hardly meant, and returns how many warnings there are.
func (f *Fleet) PrintWarnings(w io.Writer) int {
	for _, warning := range f.file.warns {
		fmt.Fprintln(w, warning.text("warning: "))
	}
	return len(f.file.warns)
}

// LogWarnings is PrintWarnings for a node.
func (f *Fleet) LogWarnings(log *slog.Logger) {
	for _, w := range f.file.warns {
		log.Warn("the fleet file: "+w.msg, "at", fmt.Sprintf("%s:%d:%d", w.file, w.line, w.col))
	}
}

// warnUnread notes what is wrong with a zone that other nodes answer.
func (f *Fleet) warnUnread(errs []error) {
	for _, err := range errs {
		var e *fileError
		if errors.As(err, &e) {
			f.file.warns = append(f.file.warns, e)
		}
	}
}
