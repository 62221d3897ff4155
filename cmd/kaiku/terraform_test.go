package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
)

// A machine that cloud-init sets up is as `kaiku deploy` would leave it. Terraform renders the
// template. It needs no provider and downloads nothing.
func TestTerraform(t *testing.T) {
	terraform, err := exec.LookPath("terraform")
	if err != nil {
		t.Skip("terraform is not installed (Debian has no package of it): the module and the cloud-init template are not looked at")
	}
	dir := t.TempDir()
	for _, part := range []string{"terraform", "cloud-init"} {
		if err := os.CopyFS(filepath.Join(dir, part), os.DirFS(filepath.Join(deployDir, part))); err != nil {
			t.Fatal(err)
		}
	}
	run := func(in string, args ...string) string {
		t.Helper()
		cmd := exec.Command(terraform, args...)
		cmd.Dir = in
		cmd.Env = append(os.Environ(), "TF_IN_AUTOMATION=1", "CHECKPOINT_DISABLE=1")
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			t.Fatalf("terraform %v: %v\n%s%s", args, err, out.String(), errs.String())
		}
		return out.String()
	}
	example := filepath.Join(dir, "terraform/example")
	run(dir, "fmt", "-check", "-diff", "-recursive", "terraform")
	run(example, "init", "-input=false", "-no-color")
	run(example, "validate", "-no-color")
	for _, name := range []string{"fleet.key", "admin.token"} { // the example's comment says how to make them
		if err := os.WriteFile(filepath.Join(example, "fleet", name), []byte(strings.Repeat("s3cret", 8)),
			0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := command(t, "check", "--config", filepath.Join(example, "fleet/fleet.yaml")); err != nil {
		t.Errorf("check: %v\n%s", err, out)
	}

	// The same with secrets, and with a program for machines to download: this test program stands
	// in for kaiku.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := "#!/bin/sh\nKAIKU_TEST_ARGS=$(printf '%s\\n' \"$@\") exec " + self + "\n"
	if err := os.WriteFile(filepath.Join(dir, "kaiku"), []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	sum := sha256Of([]byte(program))
	text := readFile(t, example, "main.tf")
	text = strings.Replace(text, "secrets       = {} #",
		`secrets       = { "fleet.key" = "s3cret\n", "admin.token" = "t\n" } #`, 1)
	text = strings.Replace(text, "start         = false", "start         = true", 1)
	if err := os.WriteFile(filepath.Join(example, "main.tf"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	run(example, "apply", "-input=false", "-no-color", "-auto-approve", "-var",
		"binary_url=file://"+filepath.Join(dir, "kaiku"), "-var", "binary_sha256="+sum)
	var data map[string]string
	if err := json.Unmarshal([]byte(run(example, "output", "-json", "user_data")), &data); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"hel1", "nyc1"} {
		bootMachine(t, name, data[name], sum)
	}
}

// cloudConfig is the user data of a machine.
type cloudConfig struct {
	Files []struct{ Path, Content, Encoding, Permissions string } `yaml:"write_files"`
	Run   [][]string                                              `yaml:"runcmd"`
}

// bootMachine does what cloud-init does with user data. A folder stands in for /.
func bootMachine(t *testing.T, name, data, sum string) {
	t.Helper()
	var machine cloudConfig
	if err := yaml.Unmarshal([]byte(data), &machine); err != nil || !strings.HasPrefix(data, "#cloud-config\n") {
		t.Fatalf("%v in\n%s", err, data)
	}
	if _, err := exec.LookPath("curl"); err != nil {
		t.Log("curl is not installed: the commands of cloud-init are not run here")
		return
	}
	root, bin := t.TempDir(), recordingTools(t)
	machine.writeFiles(t, root)
	for _, args := range machine.Run {
		cmd := exec.Command(filepath.Join(root, args[0]), args[1:]...)
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "KAIKU_ROOT="+root)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %v\n%s", name, args, err, out)
		}
	}
	if link, err := os.Readlink(filepath.Join(root, "usr/local/bin/kaiku")); err != nil ||
		link != "../lib/kaiku/"+sum[:16]+"/kaiku" {
		t.Errorf("%s: the program is at %q, %v", name, link, err)
	}
	for _, secret := range []string{"fleet.key", "admin.token"} {
		if info, err := os.Stat(filepath.Join(root, "etc/kaiku", secret)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %s: %v, %v", name, secret, info, err)
		}
	}
	checkUnits(t, name, root)
	f, _, err := config.Load(filepath.Join(root, "etc/kaiku/fleet.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	log := readFile(t, bin, "log")
	wants := []string{"systemctl daemon-reload", "systemctl enable -q --now kaiku.socket kaiku.service",
		"chown kaiku: " + root + "/etc/kaiku/fleet.key"}
	if f.Node(name).Has(config.RoleGeoDNS) {
		wants = append(wants, "systemctl restart systemd-resolved.service")
	}
	for _, want := range wants {
		if !strings.Contains(log, want+"\n") {
			t.Errorf("%s: %q was not run, only\n%s", name, want, log)
		}
	}
}

// writeFiles writes the files of user data below root.
func (c *cloudConfig) writeFiles(t *testing.T, root string) {
	t.Helper()
	for _, f := range c.Files {
		content := []byte(f.Content)
		if f.Encoding == "b64" {
			var err error
			if content, err = base64.StdEncoding.DecodeString(f.Content); err != nil {
				t.Fatal(err)
			}
		}
		mode := uint64(0o644)
		if f.Permissions != "" {
			var err error
			if mode, err = strconv.ParseUint(f.Permissions, 8, 32); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(root, f.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, fs.FileMode(mode)); err != nil {
			t.Fatal(err)
		}
	}
}

// recordingTools returns a folder with stand-ins for programs that would change this machine. Each
// appends its name and arguments to the file log beside it.
func recordingTools(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	for _, tool := range []string{"systemctl", "sysctl", "useradd", "chown", "id"} {
		if err := os.WriteFile(filepath.Join(bin, tool), []byte("#!/bin/sh\necho \"${0##*/} $*\" >>"+bin+"/log\n"),
			0o755); err != nil {
			t.Fatal(err)
		}
	}
	return bin
}

// checkUnits checks that the units below root are the ones that a deploy installs.
func checkUnits(t *testing.T, name, root string) {
	t.Helper()
	units, err := unitsOf(filepath.Join(root, "etc/kaiku/fleet.yaml"), name, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range units {
		if got := readFile(t, root, u.Path); got != string(u.Data) {
			t.Errorf("%s: %s is\n%s\nand not what deploy gives the node", name, u.Path, got)
		}
	}
}
