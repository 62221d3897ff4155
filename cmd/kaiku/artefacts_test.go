package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// deployDir has what is not Go.
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

// wantCommand checks that a command of kaiku and its flags exist; it does not run it.
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
	usage := regexp.MustCompile(`(?m)^Usage:\n  (kaiku[a-z ]*)`).FindStringSubmatch(out)
	if len(words) > 0 && (usage == nil || !strings.HasPrefix(usage[1]+" ", "kaiku "+words[0]+" ")) {
		t.Errorf("%s: there is no command kaiku %s", where, words[0])
	}
}

// metricSet are metrics by name, with their labels.
type metricSet map[string]map[string]bool

var sampleRE = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? `)

// exposed are the metrics of a node that does all, after each thing was seen that they count by labels: requests to an origin that answers and to one that doesn't,
// queries, probes. Nothing is taken from declarations.
func exposed(t *testing.T) metricSet {
	t.Helper()
	o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = io.WriteString(w, "hello")
	}))
	defer o.Close()
	dir := t.TempDir()
	web, admin, dns := freeAddr(t), freeAddr(t), freeAddr(t)
	for name, text := range map[string]string{"fleet.key": strings.Repeat("k", 40), "example.com.zone": deployedZone, "fleet.yaml": fmt.Sprintf(`
sites:
  - { name: www, hosts: [www.example.com], origin: { servers: [%q] } }
  - { name: gone, hosts: [gone.example.com], origin: { servers: ["http://%s"] } }
nodes: { n1: { roles: [control, edge, geodns], location: [60, 25], addresses: [127.0.0.1] } }
edge: { http: %q, https: "127.0.0.1:0", admin: %q, data: %q, disk: 128MiB, memory: 16MiB, peer: "127.0.0.1:0" }
tls: { acme: { email: ops@example.com, directory: "https://127.0.0.1:1/directory" } }
geodns: { listen: %q, zones: [{ name: example.com, file: example.com.zone, edges: { www: {} } }], health: { interval: 100ms, timeout: 100ms } }
control: { listen: %q, cluster: "127.0.0.1:0", data: %q }
secrets: { fleet_key: fleet.key }
`, o.URL, freeAddr(t), web, admin, filepath.Join(dir, "cache"), dns, freeAddr(t), filepath.Join(dir, "control"))} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, "fleet.yaml")
	runNode(t, config, "n1")
	if _, err := command(t, "health", "--config", config, "--node", "n2"); err == nil {
		t.Error("a node that is not there is healthy")
	}
	until(t, "kaiku health says so", func() bool {
		out, err := command(t, "health", "--config", config, "--node", "n1")
		return err == nil && out == "node n1 is healthy\n"
	})
	for _, host := range []string{"www.example.com", "www.example.com", "gone.example.com"} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+web+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	askAddress(t, dns, "www.example.com")
	var out metricSet
	until(t, "probes are counted", func() bool {
		resp, err := http.Get("http://" + admin + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		out = metricSet{}
		for line := range strings.Lines(string(text)) {
			m := sampleRE.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			if out[m[1]] == nil {
				out[m[1]] = map[string]bool{}
			}
			for _, l := range regexp.MustCompile(`([a-z_]+)="`).FindAllStringSubmatch(m[2], -1) {
				out[m[1]][l[1]] = true
			}
		}
		return len(out["kaiku_dns_probes_total"]) > 0 && len(out["kaiku_dns_queries_total"]) > 0
	})
	return out
}

// askAddress asks for an A record over TCP.
func askAddress(t *testing.T, addr, name string) {
	t.Helper()
	q := []byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for label := range strings.SplitSeq(name, ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	q = append(q, 0, 0, 1, 0, 1)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(append([]byte{0, byte(len(q))}, q...)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 14)); err != nil {
		t.Fatal(err)
	}
}

// Words of PromQL that are no metrics.
var promWords = strings.Fields("sum min max avg count rate increase histogram_quantile scalar by without on ignoring and or unless bool offset group_left group_right label_values")

var (
	promString   = regexp.MustCompile(`"[^"]*"`)
	promRange    = regexp.MustCompile(`\[[^\]]*\]`)
	promGrouping = regexp.MustCompile(`\b(by|without|on|ignoring)\s*\(([^)]*)\)`)
	promMetric   = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(\{[^}]*\})?`)
	promLabel    = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!~|!=|=)`)
)

// ofPrometheus are labels and metrics that Prometheus adds.
var (
	labelsOfPrometheus  = []string{"instance", "job"}
	metricsOfPrometheus = []string{"up"}
)

// wantMetrics checks the metrics of an expression, and their labels. It returns the labels that its series may have.
func (have metricSet) want(t *testing.T, where, expr string) []string {
	t.Helper()
	labels := slices.Clone(labelsOfPrometheus)
	text := promRange.ReplaceAllString(promString.ReplaceAllString(expr, `""`), "")
	groupings := promGrouping.FindAllStringSubmatch(text, -1)
	found := 0
	for _, m := range promMetric.FindAllStringSubmatch(promGrouping.ReplaceAllString(text, ""), -1) {
		name, selector := m[1], m[2]
		if slices.Contains(promWords, name) || name == "le" {
			continue
		}
		found++
		of, ok := have[name]
		if !ok && !slices.Contains(metricsOfPrometheus, name) {
			t.Errorf("%s: no node tells the metric %s: %s", where, name, expr)
			continue
		}
		for _, l := range promLabel.FindAllStringSubmatch(selector, -1) {
			if !of[l[1]] && !slices.Contains(labelsOfPrometheus, l[1]) {
				t.Errorf("%s: %s has no label %s", where, name, l[1])
			}
		}
		labels = slices.AppendSeq(labels, maps.Keys(of))
	}
	if found == 0 {
		t.Errorf("%s: no metric in %q", where, expr)
	}
	for _, g := range groupings {
		for l := range strings.SplitSeq(g[2], ",") {
			if !slices.Contains(labels, strings.TrimSpace(l)) {
				t.Errorf("%s: no metric has the label %s: %s", where, strings.TrimSpace(l), expr)
			}
		}
	}
	return labels
}

// Every metric that the dashboard, the alerts and the documents name is told by a running node.
func TestMetricsExist(t *testing.T) {
	have := exposed(t)
	var dashboard struct {
		Panels []struct {
			Title   string
			Type    string
			Targets []struct{ Expr, LegendFormat string }
		}
		Templating struct {
			List []struct{ Type, Definition string }
		}
	}
	if err := json.Unmarshal([]byte(readFile(t, deployDir, "grafana/kaiku.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	legend := regexp.MustCompile(`\{\{(\w+)\}\}`)
	for _, p := range dashboard.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, x := range p.Targets {
			labels := have.want(t, "dashboard, "+p.Title, x.Expr)
			for _, l := range legend.FindAllStringSubmatch(x.LegendFormat, -1) {
				if !slices.Contains(labels, l[1]) {
					t.Errorf("dashboard, %s: the legend has a label %s", p.Title, l[1])
				}
			}
		}
	}
	variable := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`)
	for _, v := range dashboard.Templating.List {
		if v.Type != "query" {
			continue
		}
		m := variable.FindStringSubmatch(v.Definition)
		if m == nil || !slices.Contains(have.want(t, "a variable", m[1]), m[2]) {
			t.Errorf("dashboard: variable of %s", v.Definition)
		}
	}
	var alerts struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	readYAML(t, &alerts, deployDir, "prometheus/alerts.yaml")
	of := regexp.MustCompile(`\$labels\.(\w+)`)
	rules := 0
	for _, g := range alerts.Groups {
		for _, r := range g.Rules {
			rules++
			labels := have.want(t, r.Alert, r.Expr)
			for _, l := range of.FindAllStringSubmatch(r.Annotations["summary"], -1) {
				if !slices.Contains(labels, l[1]) {
					t.Errorf("%s: the summary has a label %s", r.Alert, l[1])
				}
			}
			if s := r.Labels["severity"]; s != "page" && s != "ticket" {
				t.Errorf("%s: severity %q", r.Alert, s)
			}
		}
	}
	if len(dashboard.Panels) < 20 || rules < 10 {
		t.Errorf("%d panels, %d alerts", len(dashboard.Panels), rules)
	}
	name := regexp.MustCompile(`\bkaiku_[a-z_]+`)
	for _, doc := range documents(t) {
		for _, m := range name.FindAllString(readFile(t, doc), -1) {
			if m != "kaiku_" && have[m] == nil {
				t.Errorf("%s: no node tells the metric %s", doc, m)
			}
		}
	}
}

// documents are the texts that users read.
func documents(t *testing.T) []string {
	t.Helper()
	docs, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	return append(docs, "../../README.md", "../../ARCHITECTURE.md")
}

// Every command line of kaiku in a document is one that it takes.
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

// There is no Docker engine on a test machine, so the image is not built and nothing is started: what the files say is compared with what is in the tree.
func TestDockerFiles(t *testing.T) {
	docker := filepath.Join(deployDir, "docker")
	out, err := command(t, "check", "--config", filepath.Join(docker, "fleet/fleet.yaml"))
	if err != nil {
		t.Errorf("check: %v\n%s", err, out)
	}
	f, _, err := loadFleet(filepath.Join(docker, "fleet/fleet.yaml"))
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
		n := f.node(node)
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
		if !slices.Contains(s.Secrets, filepath.Base(f.Secrets.FleetKey)) || compose.Secrets["fleet_key"].Environment == "" {
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
	if uid, _, _ := strings.Cut(strings.Join(instructions["USER"], ""), ":"); uid == "0" || !regexp.MustCompile(`^\d+$`).MatchString(uid) {
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
	placed := slices.ContainsFunc(instructions["COPY"], func(c string) bool { return strings.HasSuffix(c, " /kaiku "+program[0]) })
	if len(program) != 1 || !placed || !strings.Contains(text, "CGO_ENABLED=0 go build -trimpath -o /kaiku ./cmd/kaiku") {
		t.Errorf("%q is not what was built", program)
	}
	wantCommand(t, "CMD", list(instructions["CMD"][0])...)
	health := list(instructions["HEALTHCHECK"][0])
	if health[0] != program[0] {
		t.Errorf("the health is asked of %s", health[0])
	}
	wantCommand(t, "HEALTHCHECK", health[1:]...)
}

// A machine that cloud-init makes has what `kaiku deploy` gives it. Terraform renders the template; no provider is needed, and nothing is downloaded.
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
	if out, err := command(t, "check", "--config", filepath.Join(example, "fleet/fleet.yaml")); err != nil {
		t.Errorf("check: %v\n%s", err, out)
	}

	// The same with secrets, and a program for machines to fetch: this test itself is kaiku.
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
	text = strings.Replace(text, "secrets       = {} #", `secrets       = { "fleet.key" = "s3cret\n", "admin.token" = "t\n" } #`, 1)
	text = strings.Replace(text, "start         = false", "start         = true", 1)
	if err := os.WriteFile(filepath.Join(example, "main.tf"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	run(example, "apply", "-input=false", "-no-color", "-auto-approve", "-var", "binary_url=file://"+filepath.Join(dir, "kaiku"), "-var", "binary_sha256="+sum)
	var data map[string]string
	if err := json.Unmarshal([]byte(run(example, "output", "-json", "user_data")), &data); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"hel1", "nyc1"} {
		bootMachine(t, name, data[name], sum)
	}
}

// bootMachine does what cloud-init does with user data, in a folder that stands for /.
func bootMachine(t *testing.T, name, data, sum string) {
	t.Helper()
	var config struct {
		Files []struct{ Path, Content, Encoding, Permissions string } `yaml:"write_files"`
		Run   [][]string                                              `yaml:"runcmd"`
	}
	if err := yaml.Unmarshal([]byte(data), &config); err != nil || !strings.HasPrefix(data, "#cloud-config\n") {
		t.Fatalf("%v in\n%s", err, data)
	}
	root := t.TempDir()
	for _, f := range config.Files {
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
	// Programs that would change this machine only note how they were called.
	bin := t.TempDir()
	for _, tool := range []string{"systemctl", "sysctl", "useradd", "chown", "id"} {
		if err := os.WriteFile(filepath.Join(bin, tool), []byte("#!/bin/sh\necho \"${0##*/} $*\" >>"+bin+"/log\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range config.Run {
		if _, err := exec.LookPath("curl"); err != nil {
			t.Log("curl is not installed: what cloud-init runs is not run here")
			return
		}
		cmd := exec.Command(filepath.Join(root, args[0]), args[1:]...)
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "KAIKU_ROOT="+root)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %v\n%s", name, args, err, out)
		}
	}
	if link, err := os.Readlink(filepath.Join(root, "usr/local/bin/kaiku")); err != nil || link != "../lib/kaiku/"+sum[:16]+"/kaiku" {
		t.Errorf("%s: the program is at %q, %v", name, link, err)
	}
	for _, secret := range []string{"fleet.key", "admin.token"} {
		if info, err := os.Stat(filepath.Join(root, "etc/kaiku", secret)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %s: %v, %v", name, secret, info, err)
		}
	}
	config2 := filepath.Join(root, "etc/kaiku/fleet.yaml")
	f, _, err := loadFleet(config2)
	if err != nil {
		t.Fatal(err)
	}
	units, err := unitsOf(config2, name, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range units {
		if got := readFile(t, root, u.Path); got != string(u.Data) {
			t.Errorf("%s: %s is\n%s\nand not what deploy gives the node", name, u.Path, got)
		}
	}
	log := readFile(t, bin, "log")
	wants := []string{"systemctl daemon-reload", "systemctl enable -q --now kaiku.socket kaiku.service", "chown kaiku: " + root + "/etc/kaiku/fleet.key"}
	if f.node(name).has(roleGeoDNS) {
		wants = append(wants, "systemctl restart systemd-resolved.service")
	}
	for _, want := range wants {
		if !strings.Contains(log, want+"\n") {
			t.Errorf("%s: %q was not done, only\n%s", name, want, log)
		}
	}
}

// Units for a package are told their node by a file; those of a node are what deploy writes.
func TestUnitsCommand(t *testing.T) {
	root := t.TempDir()
	if _, err := command(t, "units", "--package", "--root", root); err != nil {
		t.Fatal(err)
	}
	service := readFile(t, root, "etc/systemd/system/kaiku.service")
	for _, want := range []string{"EnvironmentFile=/etc/kaiku/node\n", "ExecStart=/usr/bin/kaiku serve --config /etc/kaiku/fleet.yaml --node ${KAIKU_NODE}\n"} {
		if !strings.Contains(service, want) {
			t.Errorf("the package's service has no %q:\n%s", want, service)
		}
	}
	if strings.Contains(service, "kaiku.socket") {
		t.Error("the package's service needs its socket, whose ports may not be the node's")
	}
	if s := readFile(t, root, "etc/systemd/system/kaiku.socket"); !strings.Contains(s, "ListenStream=80\nListenStream=443\n") {
		t.Error(s)
	}
	config := writeDeployed(t)
	out, err := command(t, "units", "--config", config, "--node", "hel1")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# /etc/systemd/system/kaiku.service\n", "# /etc/systemd/system/kaiku.socket\n", "# /etc/sysctl.d/60-kaiku.conf\n", "--node hel1\n", "ReadWritePaths=-/srv/cache\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if _, err := command(t, "units", "--config", config, "--node", "none"); err == nil {
		t.Error("there are units of a node that is not there")
	}
}

// Manual pages are made for each command.
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

func sha256Of(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
