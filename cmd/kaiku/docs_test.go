package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
)

func TestTheExampleInDocsLoads(t *testing.T) {
	if _, _, err := config.Load("../../docs/fleet.yaml"); err != nil {
		t.Fatal(err)
	}
}

// Every block of README.md and docs/*.md has a row here, and every row has a block. A row has the
// text with which the block begins, and a check for each command in it.
//
// Rows with alone need only kaiku, and `make test` runs them. `make test-real` runs all rows of a
// document in order, in the lab of real_docs_test.go, where the documents' addresses and names
// exist. Commands run as they are written, except for what docShell.replace changes.
func docRows() map[string][]docRow {
	return map[string][]docRow{
		"README.md": readmeRows(),
		"docs/compression.md": {{begins: "sites:", alone: true, text: isFleet("edge")},
			{begins: "sites:", alone: true, text: isFleet("edge")}},
		"docs/cors.md":        {{begins: "sites:", alone: true, text: isFleet("edge")}},
		"docs/deploy.md":      deployRows(),
		"docs/dns.md":         dnsRows(),
		"docs/limits.md":      {{begins: "sites:", alone: true, text: isFleet("edge")}},
		"docs/origins.md":     originsRows(),
		"docs/purge.md":       purgeRows(),
		"docs/rules.md":       {{begins: "sites:", alone: true, text: isFleet("edge")}},
		"docs/signed.md":      signedRows(),
		"docs/tls.md":         tlsRows(),
		"docs/performance.md": performanceRows(),
		"docs/plan.md": {{begins: "kaiku bench-self", lines: []docCheck{succeeds,
			prints(`^Edges$`, `^  eu: 8,333/s, 3\.5 Gbit/s: 6 edges`, `^  capacity: 119MiB$`)}}},
	}
}

type docRow struct {
	begins string
	alone  bool
	on     string // the node where its commands run; "" is the operator's machine
	lines  []docCheck
	text   func(t *testing.T, s *docShell, text string) // for a block that is not commands
}

// docCheck runs a command and checks its output. shown is the output that the document shows,
// if any.
type docCheck func(t *testing.T, s *docShell, command, shown string)

// docBlock is an indented or fenced block of a document.
type docBlock struct {
	line int // where it begins
	text string
}

// docBlocks returns the blocks of a document.
func docBlocks(text string) []docBlock {
	var out []docBlock
	var lines []string
	begins, fence, before := 0, "", "" // before is the line before
	end := func() {
		if block := strings.Trim(strings.Join(lines, "\n"), "\n"); block != "" {
			out = append(out, docBlock{begins, block + "\n"})
		}
		lines, begins = nil, 0
	}
	for i, line := range strings.Split(text, "\n") {
		marker := regexp.MustCompile("^ {0,3}(```+|~~~+)").FindStringSubmatch(line)
		indented, isIndented := strings.CutPrefix(line, "    ")
		switch {
		case fence != "" && marker != nil && strings.HasPrefix(marker[1], fence):
			end()
			fence = ""
		case fence != "":
			lines = append(lines, line)
		case marker != nil:
			end()
			fence, begins = marker[1], i+1
		case isIndented && (lines != nil || strings.TrimSpace(before) == ""):
			if lines == nil {
				begins = i + 1
			}
			lines = append(lines, indented)
		case strings.TrimSpace(line) == "" && lines != nil:
			lines = append(lines, "") // the block may go on
		default:
			end()
		}
		before = line
	}
	end()
	return out
}

// docCommand is a command line of a block, and the output that the document shows.
type docCommand struct{ line, shown string }

// commands returns the command lines of a block. If the first line begins with "$ ", all of them
// do, and the rest is output.
func (b docBlock) commands() []docCommand {
	var out []docCommand
	transcript := strings.HasPrefix(b.text, "$ ")
	for line := range strings.Lines(regexp.MustCompile(`\\\n\s*`).ReplaceAllString(b.text, " ")) {
		command, prompted := strings.CutPrefix(line, "$ ")
		switch {
		case prompted || !transcript && strings.TrimSpace(line) != "" && line[0] != '#':
			out = append(out, docCommand{line: strings.TrimSpace(command)})
		case transcript:
			out[len(out)-1].shown += line
		}
	}
	return out
}

// eachDocBlock pairs the blocks of a document with their rows.
func eachDocBlock(t *testing.T, doc string, do func(t *testing.T, b docBlock, row docRow)) {
	t.Helper()
	rows := docRows()[doc]
	for i, b := range docBlocks(readFile(t, "../..", doc)) {
		where := fmt.Sprintf("%s:%d", doc, b.line)
		if i >= len(rows) || !strings.HasPrefix(b.text, rows[i].begins) {
			t.Fatalf("%s: no test runs this block: add a row to docs_rows_test.go, in the document's order (it is block %d)\n%s", where, i+1, b.text)
		}
		do(t, b, rows[i])
		rows[i].begins = ""
	}
	for _, row := range rows {
		if row.begins != "" {
			t.Errorf("%s has no block %q", doc, row.begins)
		}
	}
}

func TestDocuments(t *testing.T) {
	kaiku := sync.OnceValue(func() string { return kaikuBinary(t) })
	for _, file := range documents(t) {
		doc, _ := strings.CutPrefix(file, "../../")
		if doc == "ARCHITECTURE.md" {
			continue // its blocks are pictures
		}
		t.Run(doc, func(t *testing.T) {
			var s *docShell
			eachDocBlock(t, doc, func(t *testing.T, b docBlock, row docRow) {
				if n := len(b.commands()); row.text == nil && n != len(row.lines) {
					t.Errorf("%s:%d: the block has %d commands, its row has %d checks\n%s", doc, b.line, n,
						len(row.lines), b.text)
					return
				}
				if row.alone {
					if s == nil {
						s = newDocShell(t, kaiku())
					}
					s.runBlock(t, doc, b, row)
				}
			})
		})
	}
}

// docShell runs the commands of a document.
type docShell struct {
	dir     string // the current directory
	bin     string // the first folder in PATH
	env     []string
	replace *strings.Replacer // replaces texts of the document for the test
	on      string            // the node where commands run; "" is this machine
	failed  bool              // a command has failed
	atEnd   func(func())      // registers a function to call at the end of the document
}

// newDocShell returns a shell in an empty folder, with kaiku in PATH.
func newDocShell(t *testing.T, kaiku string) *docShell {
	t.Helper()
	s := &docShell{dir: t.TempDir(), bin: t.TempDir(), replace: strings.NewReplacer(), atEnd: t.Cleanup}
	if err := os.Symlink(kaiku, filepath.Join(s.bin, "kaiku")); err != nil {
		t.Fatal(err)
	}
	return s
}

// runBlock runs the commands of a block one after the other.
func (s *docShell) runBlock(t *testing.T, doc string, b docBlock, row docRow) {
	t.Helper()
	name, _, _ := strings.Cut(row.begins, "\n")
	t.Run(name, func(t *testing.T) {
		s.on = row.on
		if row.text != nil {
			row.text(t, s, b.text)
		}
		for i, c := range b.commands() {
			if i < len(row.lines) {
				t.Logf("%s: %s", doc, c.line)
				row.lines[i](t, s, s.replace.Replace(c.line), c.shown)
			}
		}
	})
	if s.failed {
		t.FailNow() // later commands depend on this one
	}
}

// command returns a command that runs where the row says. If the line changes the folder, later
// commands run there.
func (s *docShell) command(line string) *exec.Cmd {
	folder := filepath.Join(s.bin, ".folder")
	if s.on != "" {
		line = "ssh root@" + s.on + " " + shellQuote(line)
	}
	cmd := exec.Command("sh", "-c", "trap 'pwd >"+folder+"' EXIT\n"+line)
	cmd.Dir = s.dir
	if b, err := os.ReadFile(folder); err == nil {
		cmd.Dir = strings.TrimSpace(string(b))
	}
	cmd.Env = append(append(os.Environ(), "PATH="+s.bin+":"+os.Getenv("PATH")), s.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// run runs a command line that must not fail, and returns what it printed.
func (s *docShell) run(t *testing.T, line string) string {
	t.Helper()
	out, err := s.try(line)
	if err != nil {
		s.failed = true
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return out
}

// try runs a command line.
func (s *docShell) try(line string) (string, error) {
	cmd := s.command(line)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return "", err
	}
	kill := time.AfterFunc(5*time.Minute, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer kill.Stop()
	err := cmd.Wait()
	return out.String(), err
}

// prints requires that a command succeeds and that its output matches each pattern. In patterns, ^
// and $ match at line ends, and case does not matter.
func prints(patterns ...string) docCheck {
	return func(t *testing.T, s *docShell, command, _ string) {
		t.Helper()
		out := s.run(t, command)
		if p := unmatched(out, patterns); p != "" {
			t.Errorf("%s: want %s in\n%s", command, p, out)
		}
	}
}

// unmatched returns the first pattern that does not match, or "".
func unmatched(out string, patterns []string) string {
	out = strings.ReplaceAll(out, "\r\n", "\n") // from a terminal
	for _, p := range patterns {
		if !regexp.MustCompile("(?mi)" + p).MatchString(out) {
			return p
		}
	}
	return ""
}

// soon is prints for something that takes a while: it repeats the command for up to a minute.
func soon(patterns ...string) docCheck {
	return func(t *testing.T, s *docShell, command, _ string) {
		t.Helper()
		for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
			out, err := s.try(command)
			p := unmatched(out, patterns)
			if err == nil && p == "" {
				return
			}
			if time.Since(began) > time.Minute {
				s.failed = true
				t.Fatalf("%s for a minute: want %s in the output, which ends with %v\n%s", command, p, err, out)
			}
		}
	}
}

// twice runs a command two times. Each output must match its pattern.
func twice(firstPattern, secondPattern string) docCheck {
	return func(t *testing.T, s *docShell, command, _ string) {
		t.Helper()
		prints(firstPattern)(t, s, command, "")
		prints(secondPattern)(t, s, command, "")
	}
}

// onTerminal runs the command on a terminal, and types these lines.
func (c docCheck) onTerminal(typed string) docCheck {
	return func(t *testing.T, s *docShell, command, shown string) {
		t.Helper()
		c(t, s, "printf %s "+shellQuote(typed)+" | script -qec "+shellQuote(command)+" /dev/null", shown)
	}
}

// asShown requires that a command prints what the document shows.
func asShown(t *testing.T, s *docShell, command, shown string) {
	t.Helper()
	if shown == "" {
		t.Fatalf("the document shows no output of %s", command)
	}
	if got := s.run(t, command+" 2>/dev/null"); steady(got) != steady(shown) {
		t.Errorf("%s: the document shows\n%s\nbut it prints\n%s", command, shown, got)
	}
}

// steady removes what differs between runs, or after another purge, from an output: times,
// durations, purge sequences, and column widths.
func steady(out string) string {
	out = regexp.MustCompile(`("sequence":|sequence |"id":"|"(?:front|product-17)":")\d+`).ReplaceAllString(out,
		"${1}N")
	out = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`).ReplaceAllString(out, "TIME")
	out = regexp.MustCompile(`[0-9.]+ ms`).ReplaceAllString(out, "N ms")
	return strings.TrimSpace(regexp.MustCompile(` +`).ReplaceAllString(out, " "))
}

// then runs another command after the check, and checks that one too.
func (c docCheck) then(next docCheck, command string) docCheck {
	return func(t *testing.T, s *docShell, line, shown string) {
		t.Helper()
		c(t, s, line, shown)
		next(t, s, command, "")
	}
}

// stays starts a command that runs until the test ends, and waits until addr accepts connections.
func stays(addr string) docCheck {
	return func(t *testing.T, s *docShell, command, _ string) {
		t.Helper()
		cmd := s.command(command)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
			c, err := net.DialTimeout("tcp", addr, time.Second)
			if err == nil {
				c.Close()
				break
			}
			select {
			case err := <-done:
				t.Fatalf("%s ended: %v\n%s", command, err, out.String())
			default:
			}
			if time.Since(began) > time.Minute {
				t.Fatalf("%s does not listen on %s: %v", command, addr, err)
			}
		}
		s.atEnd(func() {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
			<-done
		})
	}
}

// kaikuBinary builds the program once for the test.
func kaikuBinary(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "kaiku")
	cmd := exec.Command("go", "build", "-trimpath", "-o", bin, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}
