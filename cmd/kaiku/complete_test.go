package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Shells complete the nodes and hosts of the fleet file that is named, or of the one found without
// a flag.
func TestComplete(t *testing.T) {
	config := writeDeployed(t)
	text := strings.Replace(readFile(t, config), "[www.example.com]", `[www.example.com, "*.example.org"]`, 1)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	none := "no file"
	for _, c := range []struct{ line, want string }{
		{"drain --config FILE |", "hel1 ns1 " + none},
		{"drain --config FILE h|", "hel1 " + none},
		{"drain --config FILE hel1 |", none},
		{"undrain --config FILE n|", "ns1 " + none},
		{"status --config FILE --node |", "hel1 ns1 " + none},
		{"warm --config FILE --node |", "hel1 " + none},
		{"explain http --config FILE --node |", "hel1 " + none},
		{"serve --config FILE --node n|", "ns1 " + none},
		{"deploy --config FILE --only hel1,n|", "hel1,ns1 " + none},
		{"purge --config FILE |", "https://www.example.com/ " + none + " no space"},
		{"purge --config FILE --host |", "www.example.com *.example.org " + none},
		{"explain http --config FILE https://w|", "https://www.example.com/ " + none + " no space"},
		{"explain dns --config FILE www|", "www.example.com " + none},
		{"version |", none},
		{"status |", none},
		{"purge --tag |", none},
		{"drain --config /nosuch |", none},
	} {
		line := strings.Replace(c.line, "FILE", config, 1)
		i := strings.LastIndexByte(line, ' ')
		args := append([]string{"__complete"}, strings.Fields(line[:i])...)
		out, err := command(t, append(args, strings.TrimSuffix(line[i+1:], "|"))...)
		if err != nil {
			t.Errorf("%s: %v", c.line, err)
			continue
		}
		if got := completed(t, out); got != c.want {
			t.Errorf("%s: %q, want %q", c.line, got, c.want)
		}
	}
}

// completed returns the words that a shell gets, with their descriptions.
func completed(t *testing.T, out string) string {
	t.Helper()
	var words []string
	for line := range strings.Lines(out) {
		word, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		switch word {
		case ":4":
			words = append(words, "no file")
		case ":6":
			words = append(words, "no file no space")
		default:
			words = append(words, word)
		}
	}
	return strings.Join(words, " ")
}

// The script for bash works without the package bash-completion, and with words that bash splits at
// colons.
func TestCompleteInBash(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash")
	}
	script, err := command(t, "completion", "bash")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "kaiku")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	const harness = `
kaiku() { local IFS=$'\n'; KAIKU_TEST_ARGS="$*" "$TEST"; }
compopt() { :; }
source "$SCRIPT"
t() { COMP_LINE=$1; shift; COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); COMP_POINT=${#COMP_LINE}; COMPREPLY=(); __start_kaiku; echo "$COMP_LINE: ${COMPREPLY[*]}"; }
t "kaiku drain h" kaiku drain h
t "kaiku status --node=n" kaiku status --node = n
t "kaiku purge https://w" kaiku purge https : //w
t "kaiku undr" kaiku undr
`
	cmd := exec.Command(bash, "--norc", "-c", harness)
	cmd.Dir = filepath.Dir(writeDeployed(t))
	cmd.Env = append(os.Environ(), "TEST="+os.Args[0], "SCRIPT="+file)
	out, err := cmd.CombinedOutput()
	if want := "kaiku drain h: hel1\nkaiku status --node=n: ns1\nkaiku purge https://w: //www.example.com/\nkaiku undr: undrain\n"; err != nil || string(out) != want {
		t.Errorf("%v\n%s", err, out)
	}
}

// Help shows each default once, and usage errors name the command as it was called.
func TestHelp(t *testing.T) {
	out, err := command(t, "--help")
	if err != nil {
		t.Fatal(err)
	}
	paths := [][]string{{}}
	var find func(path []string, help string)
	find = func(path []string, help string) {
		_, list, _ := strings.Cut(help, "Available Commands:\n")
		list, _, _ = strings.Cut(list, "\n\n")
		for line := range strings.Lines(list) {
			next := append(append([]string{}, path...), strings.Fields(line)[0])
			if next[0] == "completion" || next[0] == "help" {
				continue // cobra's own
			}
			sub, err := command(t, append(next, "--help")...)
			if err != nil {
				t.Errorf("%q: %v", next, err)
			}
			paths = append(paths, next)
			find(next, sub)
			for line := range strings.Lines(sub) {
				if strings.Count(line, "(default") > 1 || strings.Contains(line, "default 0B") ||
					regexp.MustCompile(`^ +(-., )?--\S+ (string|stringArray|strings) `).MatchString(line) {
					t.Errorf("%q: the help says %s", next, line)
				}
			}
		}
	}
	find(nil, out)
	if len(paths) < 20 {
		t.Errorf("there are %d commands", len(paths))
	}
	for _, path := range paths {
		called := strings.Join(append([]string{"kaiku"}, path...), " ")
		if _, err := command(t, append(path, "--nosuch")...); err == nil ||
			!strings.HasSuffix(err.Error(), "; see "+called+" --help") {
			t.Errorf("%s --nosuch: %v", called, err)
		}
	}
	for args, want := range map[string]string{
		"stauts":                 "unknown command: kaiku stauts: did you mean status?; see kaiku --help",
		"explain nosuch":         "unknown command: kaiku explain nosuch; see kaiku explain --help",
		"status x":               `kaiku status takes no arguments, but got "x"; see kaiku status --help`,
		"drain":                  "kaiku drain takes NODE, but got 0 arguments; see kaiku drain --help",
		"drain a b":              "kaiku drain takes NODE, but got 2 arguments; see kaiku drain --help",
		"warm":                   "give URLs or a --sitemap, but not both; see kaiku warm --help",
		"purge --all --limit 6m": "--limit 6m0s: want more than 0s, and at most 5m0s",
		"drain --config config/testdata/fleet.yaml hell1":        `drain: config/testdata/fleet.yaml has no node "hell1": it has hel1, nyc1, fra1, sin1; did you mean hel1?`,
		"check config/testdata":                                  "config/testdata is a folder: did you mean config/testdata/fleet.yaml?",
		"check --config config/testdata":                         "config/testdata is a folder: did you mean config/testdata/fleet.yaml?",
		"serve --config /nosuch":                                 "read the fleet: open /nosuch: no such file or directory: name the fleet file by --config, or write one with kaiku init",
		"purge a --admin ?":                                      "purge: --admin ?: want http://HOST:PORT",
		"edge --origin http://a --listen 8080":                   `--listen: "8080" is not an address to listen on: want :port or ip:port`,
		"edge --origin http://a --listen 127.0.0.1:0 --admin x":  `--admin: "x" is not an address to listen on: want :port or ip:port`,
		"geodns --config fleet.yaml --node ns1 --listen 127.0.0": `--listen: "127.0.0" is not an address to listen on: want :port or ip:port`,
	} {
		if _, err := command(t, strings.Fields(args)...); err == nil || err.Error() != want {
			t.Errorf("kaiku %s: %v, want %s", args, err, want)
		}
	}
	long, err := command(t, "version")
	if err != nil {
		t.Fatal(err)
	}
	if short, err := command(t, "--version"); err != nil || short != long || !strings.HasPrefix(short, "kaiku ") {
		t.Errorf("--version: %q, %v; version: %q", short, err, long)
	}
}
