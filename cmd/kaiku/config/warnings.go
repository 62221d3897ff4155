package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// PrintWarnings prints the warnings of the fleet file, and returns their number.
func (f *Fleet) PrintWarnings(w io.Writer) int {
	for _, warning := range f.file.warns {
		fmt.Fprintln(w, warning.text("warning: "))
	}
	return len(f.file.warns)
}

// LogWarnings logs the warnings of the fleet file, on a node.
func (f *Fleet) LogWarnings(log *slog.Logger) {
	for _, w := range f.file.warns {
		log.Warn("the fleet file: "+w.msg, "at", fmt.Sprintf("%s:%d:%d", w.file, w.line, w.col))
	}
}

// warnUnread turns the errors of a zone that only other nodes answer into warnings.
func (f *Fleet) warnUnread(errs []error) {
	for _, err := range errs {
		var e *fileError
		if errors.As(err, &e) {
			f.file.warns = append(f.file.warns, e)
		}
	}
}
