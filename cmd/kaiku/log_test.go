package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
)

// In the journal, each record is one line that begins with its priority and has no time.
func TestJournal(t *testing.T) {
	file := filepath.Join(t.TempDir(), "journal")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	info, err := out.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", st.Dev, st.Ino))
	log := newLog(out)
	log.Debug("not told")
	log.Info("hello", "n", 1)
	log.With("part", "x").Warn("two\nlines")
	log.WithGroup("g").Error("wrong", "time", "of a group")
	printError(out, errors.Join(errors.New("one"), errors.New("two")))
	want := "<6>level=INFO msg=hello n=1\n<4>level=WARN msg=\"two\\nlines\" part=x\n<3>level=ERROR msg=wrong g.time=\"of a group\"\n<3>kaiku: one\n<3>two\n"
	if got := readFile(t, file); got != want {
		t.Errorf("the journal gets\n%swant\n%s", got, want)
	}
	for l, p := range map[slog.Level]string{slog.LevelDebug: "<7>", slog.LevelInfo + 1: "<6>",
		slog.LevelError + 4: "<3>"} {
		if priority(l) != p {
			t.Errorf("%v is %s, want %s", l, priority(l), p)
		}
	}
	t.Setenv("JOURNAL_STREAM", "1:1") // another process's
	if toJournal(out) {
		t.Error("what goes elsewhere is taken for the journal's")
	}
}

// Level and format come from the fleet file, and change with it. A level on the command line
// overrides it.
func TestLogSettings(t *testing.T) {
	var out strings.Builder
	log := newLog(&out)
	child := log.With("part", "x")
	say := func() string {
		out.Reset()
		child.Debug("d")
		child.Info("i")
		child.Error("e")
		return regexp.MustCompile(`"?time"?[:=]\S+?[ ,]`).ReplaceAllString(out.String(), "")
	}
	const info, err = "level=INFO msg=i part=x\n", "level=ERROR msg=e part=x\n"
	if got := say(); got != info+err {
		t.Errorf("at first: %q", got)
	}
	log.Handler().(*logHandler).Configure(config.LogSettings{Level: "error"})
	if got := say(); got != err {
		t.Errorf("from error on: %q", got)
	}
	log.Handler().(*logHandler).Configure(config.LogSettings{Level: "debug", Format: "json"})
	if got, want := say(), `{"level":"DEBUG","msg":"d","part":"x"}`+"\n"; !strings.HasPrefix(got, want) {
		t.Errorf("as JSON: %q", got)
	}
	if err := setLevel(log, "warn"); err != nil {
		t.Fatal(err)
	}
	log.Handler().(*logHandler).Configure(config.LogSettings{Level: "debug"})
	if got := say(); got != err {
		t.Errorf("with --log-level: %q", got)
	}
	if err := setLevel(log, "loud"); !errors.As(err, new(usageError)) ||
		!strings.Contains(err.Error(), "debug, info, warn, error") {
		t.Errorf("an unknown level: %v", err)
	}
}

// A command has a default level of its own: the demo logs only warnings and errors.
func TestLogFlag(t *testing.T) {
	for _, c := range []struct {
		byDefault, args, want string
	}{{"", "", "i w "}, {"warn", "", "w "}, {"warn", "--log-level info", "i w "}, {"", "--log-level warn", "w "}} {
		var out bytes.Buffer
		log := newLog(&out)
		cmd := &cobra.Command{Use: "x", RunE: func(*cobra.Command, []string) error {
			log.Info("i")
			log.Warn("w")
			return nil
		}}
		logFlag(cmd, log, c.byDefault)
		cmd.SetArgs(strings.Fields(c.args))
		if err := cmd.Execute(); err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, m := range regexp.MustCompile(`msg=(\w)`).FindAllStringSubmatch(out.String(), -1) {
			got += m[1] + " "
		}
		if got != c.want {
			t.Errorf("default %q, %q: logged %q, want %q", c.byDefault, c.args, got, c.want)
		}
	}
}
