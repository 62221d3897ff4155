package fleet

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What NATS says is told with the level that it has for an operator.
func TestNatsLog(t *testing.T) {
	var out bytes.Buffer
	l := natsLog{log: slog.New(slog.NewTextHandler(&out, nil))}
	for _, c := range []struct {
		say   func(string, ...any)
		text  string
		level string // "" is not told
		means string
	}{
		{l.Warnf, "TLS certificate chain and hostname of solicited routes will not be verified. DO NOT USE IN PRODUCTION!", "", ""},
		{l.Errorf, "Error trying to connect to route (attempt 1): dial tcp 192.0.2.1:6222: connect: connection refused",
			"INFO", "another control node"},
		{l.Warnf, "JetStream has not established contact with a meta leader", "INFO", "waiting for a majority"},
		{l.Errorf, "192.0.2.1:40000 - cid:5 - TLS handshake error: EOF", "INFO", "without a certificate of the fleet"},
		{l.Warnf, "JetStream cluster stream '$G > PURGES' has NO quorum, stalled", "WARN", "no majority"},
		{l.Errorf, "JetStream out of space, will be DISABLED", "ERROR", "can't write the log"},
		{l.Warnf, "Filesystem permission denied while writing msg, disabling JetStream: x", "ERROR",
			"can't write the log"},
		{l.Fatalf, "Error listening on router port: 6222 - listen tcp :6222: bind: address already in use", "ERROR",
			"can't listen"},
		{l.Errorf, "of which nothing is known", "WARN", "something is wrong"},
		{l.Warnf, "of which nothing is known", "INFO", "what NATS says"},
		{l.Noticef, "Server is ready", "", ""},
	} {
		out.Reset()
		c.say("%s", c.text)
		if c.level == "" {
			if out.Len() > 0 {
				t.Errorf("%s: %s", c.text, out.String())
			}
			continue
		}
		for _, want := range []string{"level=" + c.level + " ", c.means, c.text} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: no %q in %s", c.text, want, out.String())
			}
		}
	}
}

// An outage is worth a warning once it lasts, and once.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		o := outage{log: slog.New(slog.NewTextHandler(&out, nil)), what: "x: out of touch"}
		fail := func(err string, seconds int) {
			for range seconds {
				o.failed(errors.New(err))
				time.Sleep(time.Second)
			}
		}
		told := func(when string, infos, warnings int) {
			t.Helper()
			if i, w := strings.Count(out.String(), "level=INFO"), strings.Count(out.String(),
				"level=WARN"); i != infos || w != warnings {
				t.Errorf("%s: %d infos and %d warnings:\n%s", when, i, w, out.String())
			}
		}
		fail("a", 1)
		told("the first failure", 0, 0)
		fail("a", 10)
		told("it goes on", 1, 0)
		o.over()
		fail("a", 10)
		told("another one", 2, 0)
		fail("a", 30)
		told("it lasts", 2, 1)
		fail("b", 30)
		told("for another reason", 2, 2)
	})
}
