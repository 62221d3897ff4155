package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
)

// deployDir has the files that are not Go.
const deployDir = "../../deploy"

func readFile(t *testing.T, parts ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func readYAML(t *testing.T, to any, parts ...string) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(readFile(t, parts...)), to); err != nil {
		t.Fatalf("%v: %v", parts, err)
	}
}

// wantCommand checks that a command of kaiku and its flags exist. It does not run the command.
func wantCommand(t *testing.T, where string, args ...string) {
	t.Helper()
	words := args
	for i, a := range args {
		if strings.HasPrefix(a, "-") {
			words = args[:i]
			break
		}
	}
	out, err := command(t, append(slices.Clone(args), "--help")...)
	if err != nil {
		t.Errorf("%s: kaiku %q: %v", where, args, err)
		return
	}
	usage := regexp.MustCompile(`(?m)^Usage:\n  (kaiku[-a-z ]*)`).FindStringSubmatch(out)
	if len(words) > 0 && (usage == nil || !strings.HasPrefix(usage[1]+" ", "kaiku "+words[0]+" ")) {
		t.Errorf("%s: there is no command kaiku %s", where, words[0])
	}
}

// documents returns the texts that users read.
func documents(t *testing.T) []string {
	t.Helper()
	docs, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	return append(docs, "../../README.md", "../../ARCHITECTURE.md", "../../CONTRIBUTING.md")
}

// Every kaiku command line in a document is valid.
func TestCommandsInDocuments(t *testing.T) {
	line := regexp.MustCompile(`^ {4}(?:\$ |ssh \S+ )?(?:bin/)?kaiku (.*)$`)
	quoted := regexp.MustCompile("`kaiku ([^`]+)`")
	seen := 0
	for _, doc := range documents(t) {
		for text := range strings.Lines(strings.ReplaceAll(readFile(t, doc), "\\\n", " ")) {
			var found []string
			if m := line.FindStringSubmatch(strings.TrimRight(text, "\n")); m != nil {
				found = append(found, m[1])
			}
			for _, m := range quoted.FindAllStringSubmatch(text, -1) {
				found = append(found, m[1])
			}
			for _, args := range found {
				args, _, _ = strings.Cut(args, " #")
				if strings.HasPrefix(args, "--help") {
					continue
				}
				seen++
				args = strings.NewReplacer("'", "", `"`, "", "[", "", "]", "", "…", "").Replace(args)
				wantCommand(t, doc, strings.Fields(args)...)
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d command lines were found", seen)
	}
}

// Every make target, test and benchmark that a document names exists.
func TestMakeAndGoTestInDocuments(t *testing.T) {
	makefile := readFile(t, "../../Makefile")
	target := regexp.MustCompile("`make ([a-z-]+)[^`]*`|(?m:^    make ([a-z-]+))")
	named := regexp.MustCompile(`-(?:run|bench) '?\^?(\w+)\$?'?[^` + "`" + `]* \./(\S+?)[` + "`" + `\s)]`)
	seen := 0
	for _, doc := range documents(t) {
		text := readFile(t, doc)
		for _, m := range target.FindAllStringSubmatch(text, -1) {
			seen++
			if name := m[1] + m[2]; !strings.Contains(makefile, "\n"+name+":") {
				t.Errorf("%s: make %s is not in the Makefile", doc, name)
			}
		}
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			seen++
			files, err := filepath.Glob(filepath.Join("../..", m[2], "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			defined := regexp.MustCompile(`(?m)^func (Test|Benchmark)\w*` + m[1] + `|^func ` + m[1])
			if !slices.ContainsFunc(files, func(f string) bool { return defined.MatchString(readFile(t, f)) }) {
				t.Errorf("%s: %s is no test in %s", doc, m[1], m[2])
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d were found", seen)
	}
}

// The files that ARCHITECTURE.md points to are in the folder of their row or below it.
func TestFilesInDocuments(t *testing.T) {
	quoted := regexp.MustCompile("`([a-z/]+(?:\\.(?:go|json))?)`")
	_, table, _ := strings.Cut(readFile(t, "../../ARCHITECTURE.md"), "| to change | folder | files |\n")
	seen := 0
	for row := range strings.Lines(table) {
		if strings.HasPrefix(row, "|--") {
			continue
		}
		cells := strings.Split(row, " | ")
		if len(cells) != 3 {
			break
		}
		below := map[string]bool{}
		for _, folder := range quoted.FindAllStringSubmatch(cells[1], -1) {
			if err := filepath.WalkDir(filepath.Join("../..", folder[1]),
				func(path string, _ os.DirEntry, err error) error {
					below[filepath.Base(path)] = true
					return err
				}); err != nil {
				t.Error(err)
			}
		}
		for _, file := range quoted.FindAllStringSubmatch(cells[2], -1) {
			seen++
			if !below[file[1]] {
				t.Errorf("ARCHITECTURE.md: %s has no file %s", cells[1], file[1])
			}
		}
	}
	if seen < 30 {
		t.Errorf("only %d files were found", seen)
	}
}

// A test machine has no Docker engine, so the test neither builds the image nor starts anything. It
// compares the files with the tree.
func TestDockerFiles(t *testing.T) {
	docker := filepath.Join(deployDir, "docker")
	out, err := command(t, "check", "--config", filepath.Join(docker, "fleet/fleet.yaml"))
	if err != nil {
		t.Errorf("check: %v\n%s", err, out)
	}
	f, _, err := config.Load(filepath.Join(docker, "fleet/fleet.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var compose struct {
		Services map[string]struct {
			Build       struct{ Context, Dockerfile string }
			Command     []string
			Environment map[string]string
			Volumes     []string
			Ports       []string
			Secrets     []string
			Networks    map[string]struct {
				Address string `yaml:"ipv4_address"`
			}
		}
		Secrets map[string]struct{ Environment string }
		Volumes map[string]any
	}
	readYAML(t, &compose, docker, "compose.yaml")
	nodes := 0
	for name, s := range compose.Services {
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			_, named := compose.Volumes[from]
			if _, err := os.Stat(filepath.Join(docker, from)); err != nil && !named {
				t.Errorf("%s: volume %s: %v", name, v, err)
			}
		}
		node := s.Environment[nodeVariable]
		if node == "" {
			if name != "origin" || f.Sites[0].Origin.Servers[0].URL.Host != s.Networks["fleet"].Address {
				t.Errorf("service %s is no node, and not the origin", name)
			}
			continue
		}
		nodes++
		n := f.Node(node)
		if n == nil || node != name {
			t.Errorf("service %s is node %q, which the fleet file does not have", name, node)
			continue
		}
		if n.Addresses[0].String() != s.Networks["fleet"].Address {
			t.Errorf("%s has %s, in the fleet file %s", name, s.Networks["fleet"].Address, n.Addresses[0])
		}
		if _, err := os.Stat(filepath.Join(docker, s.Build.Context, s.Build.Dockerfile)); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(docker, s.Build.Context, "go.mod")); err != nil {
			t.Error(err)
		}
		wantCommand(t, "compose.yaml", s.Command...)
		if !slices.Contains(s.Secrets, filepath.Base(f.Secrets.FleetKey)) ||
			compose.Secrets["fleet_key"].Environment == "" {
			t.Errorf("%s does not get the fleet key", name)
		}
	}
	if nodes != len(f.Nodes) {
		t.Errorf("%d services of %d nodes", nodes, len(f.Nodes))
	}
	comment := regexp.MustCompile(`(?m)^#   docker compose .* exec (\w+) kaiku (.*)$`)
	for _, m := range comment.FindAllStringSubmatch(readFile(t, docker, "compose.yaml"), -1) {
		wantCommand(t, "compose.yaml", strings.Fields(m[2])...)
	}
	dockerfile(t, readFile(t, docker, "Dockerfile"))
}

func dockerfile(t *testing.T, text string) {
	t.Helper()
	instructions := map[string][]string{} // of the last stage
	for line := range strings.Lines(text) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word == "FROM" {
			instructions = map[string][]string{}
		}
		instructions[word] = append(instructions[word], rest)
	}
	if from := instructions["FROM"]; !slices.Equal(from, []string{"scratch"}) {
		t.Errorf("the image is made from %q", from)
	}
	if uid, _, _ := strings.Cut(strings.Join(instructions["USER"], ""), ":"); uid == "0" ||
		!regexp.MustCompile(`^\d+$`).MatchString(uid) {
		t.Errorf("it runs as %q: want a number other than 0", uid)
	}
	for _, port := range []string{"80/tcp", "443/tcp", "443/udp", "53/tcp", "53/udp"} {
		if !slices.Contains(strings.Fields(instructions["EXPOSE"][0]), port) {
			t.Errorf("it does not expose %s", port)
		}
	}
	list := func(text string) (out []string) {
		if err := json.Unmarshal([]byte(text[strings.Index(text, "["):]), &out); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		return out
	}
	program := list(instructions["ENTRYPOINT"][0])
	placed := slices.ContainsFunc(instructions["COPY"],
		func(c string) bool { return strings.HasSuffix(c, " /kaiku "+program[0]) })
	if len(program) != 1 || !placed ||
		!strings.Contains(text, "CGO_ENABLED=0 go build -trimpath -ldflags \"-s -w\" -o /kaiku ./cmd/kaiku") {
		t.Errorf("%q is not what was built", program)
	}
	wantCommand(t, "CMD", list(instructions["CMD"][0])...)
	health := list(instructions["HEALTHCHECK"][0])
	if health[0] != program[0] {
		t.Errorf("the health is asked of %s", health[0])
	}
	wantCommand(t, "HEALTHCHECK", health[1:]...)
}

// The units of a package learn the node's name from a file. The units of a node are those that
// deploy writes.
func TestUnitsCommand(t *testing.T) {
	root := t.TempDir()
	if _, err := command(t, "units", "--package", "--root", root); err != nil {
		t.Fatal(err)
	}
	service := readFile(t, root, "etc/systemd/system/kaiku.service")
	for _, want := range []string{"EnvironmentFile=/etc/kaiku/node\n",
		"ExecStart=/usr/bin/kaiku serve --config /etc/kaiku/fleet.yaml --node ${KAIKU_NODE}\n"} {
		if !strings.Contains(service, want) {
			t.Errorf("the package's service has no %q:\n%s", want, service)
		}
	}
	if strings.Contains(service, "kaiku.socket") {
		t.Error("the package's service needs its socket, whose ports may not be the node's")
	}
	if s := readFile(t, root, "etc/systemd/system/kaiku.socket"); !strings.Contains(s,
		"ListenStream=80\nListenStream=443\n") {
		t.Error(s)
	}
	config := writeDeployed(t)
	out, err := command(t, "units", "--config", config, "--node", "hel1")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# /etc/systemd/system/kaiku.service\n", "# /etc/systemd/system/kaiku.socket\n",
		"# /etc/sysctl.d/60-kaiku.conf\n", "# /etc/kaiku/node\nKAIKU_NODE=hel1\n", "--node hel1\n",
		"ReadWritePaths=\"-/srv/cache\"\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if _, err := command(t, "units", "--config", config, "--node", "none"); err == nil {
		t.Error("there are units of a node that is not there")
	}
}

// Each command has a manual page.
func TestManualPages(t *testing.T) {
	dir := t.TempDir()
	if _, err := command(t, "man", dir); err != nil {
		t.Fatal(err)
	}
	for _, page := range []string{"kaiku.1", "kaiku-deploy.1", "kaiku-explain-dns.1"} {
		if text := readFile(t, dir, page); !strings.Contains(text, ".SH SYNOPSIS") {
			t.Errorf("%s: %s", page, text)
		}
	}
}

// If Go is missing or too old, make says which version it needs.
func TestMakeChecksGo(t *testing.T) {
	want := regexp.MustCompile(`(?m)^go (1\.\d+)`).FindStringSubmatch(readFile(t, "../../go.mod"))[1]
	for said, fits := range map[string]bool{
		"go version go1.19.8 linux/amd64":             false,
		"go version go1.9 linux/amd64":                false,
		"go version go" + want + ".0 linux/amd64":     true,
		"go version go" + want + " darwin/arm64":      true,
		"go version go1.123rc1 linux/amd64":           true,
		"go version go2.0 linux/amd64":                true,
		"go version devel go1.123-1a2b3c linux/amd64": true,
		"go: download go1.123: no such host":          false,
		"sh: /opt/go1.123/bin/go: not found":          false,
		"":                                            false,
	} {
		program := filepath.Join(t.TempDir(), "go")
		if err := os.WriteFile(program, []byte("#!/bin/sh\necho '"+said+"'\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("make", "-C", "../..", "check-go", "GO="+program)
		cmd.Env = slices.DeleteFunc(os.Environ(),
			func(v string) bool { return strings.HasPrefix(v, "MAKE") || strings.HasPrefix(v, "MFLAGS") })
		out, err := cmd.CombinedOutput()
		if fits != (err == nil) {
			t.Errorf("%q: %v\n%s", said, err, out)
		}
		if told := strings.Contains(string(out), "Go "+want) && strings.Contains(string(out), said+"\n") &&
			strings.Contains(string(out), "https://go.dev/dl/"); told == fits {
			t.Errorf("%q: make says\n%s", said, out)
		}
	}
}

func sha256Of(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
