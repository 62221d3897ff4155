package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/fleet/freeport"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// metricSet has metrics by name, with their labels.
type metricSet map[string]map[string]bool

var sampleRE = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? `)

// exposed returns the metrics of a running node that has all roles. Before, it makes the node see
// everything that has a label of its own: requests to an origin that answers and to one that
// doesn't, DNS queries, and health checks. It reads no declarations.
func exposed(t *testing.T) metricSet {
	t.Helper()
	o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = io.WriteString(w, "hello")
	}))
	defer o.Close()
	dir := t.TempDir()
	web, admin, dns := freeport.Addr(t), freeport.Addr(t), freeport.Addr(t)
	for name, text := range map[string]string{"fleet.key": strings.Repeat("k", 40), "example.com.zone": deployedZone, "fleet.yaml": fmt.Sprintf(`
sites:
  - { name: www, hosts: [www.example.com], origin: { servers: [%q] } }
  - { name: few, hosts: [few.example.com], origin: { servers: ["http://127.0.0.1:1"] }, rules: [{ limit: { rate: 1/h } }] }
  - { name: gone, hosts: [gone.example.com], origin: { servers: ["http://%s"] } }
nodes: { n1: { roles: [control, edge, geodns], location: [60, 25], addresses: [127.0.0.1] } }
edge: { http: %q, https: "127.0.0.1:0", admin: %q, data: %q, disk: 128MiB, memory: 16MiB, peer: "127.0.0.1:0" }
tls: { acme: { email: ops@example.com, directory: "https://127.0.0.1:1/directory" } }
geodns: { listen: %q, zones: [{ name: example.com, file: example.com.zone, edges: { www: {} } }], health: { interval: 100ms, timeout: 100ms } }
control: { listen: %q, cluster: "127.0.0.1:0", data: %q }
secrets: { fleet_key: fleet.key }
`, o.URL, freeport.Addr(t), web, admin, filepath.Join(dir, "cache"), dns, freeport.Addr(t), filepath.Join(dir, "control"))} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, "fleet.yaml")
	runNode(t, config, "n1")
	if _, err := command(t, "health", "--config", config, "--node", "n2"); err == nil {
		t.Error("a node that is not there is healthy")
	}
	testwait.Until(t, "kaiku health says so", func() bool {
		out, err := command(t, "health", "--config", config, "--node", "n1")
		return err == nil && out == "node n1 is healthy\n"
	})
	for _, host := range []string{"www.example.com", "www.example.com", "gone.example.com", "few.example.com",
		"few.example.com"} {
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
	testwait.Until(t, "probes are counted", func() bool {
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

// askAddress queries a name server for an A record over TCP.
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

// Words of PromQL that are not metrics.
var promWords = strings.Fields("sum min max avg count rate increase histogram_quantile scalar by without on ignoring and or unless bool offset group_left group_right label_values")

var (
	promString   = regexp.MustCompile(`"[^"]*"`)
	promRange    = regexp.MustCompile(`\[[^\]]*\]`)
	promGrouping = regexp.MustCompile(`\b(by|without|on|ignoring)\s*\(([^)]*)\)`)
	promMetric   = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(\{[^}]*\})?`)
	promLabel    = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!~|!=|=)`)
)

// Labels and metrics that Prometheus adds.
var (
	labelsOfPrometheus  = []string{"instance", "job"}
	metricsOfPrometheus = []string{"up"}
)

// want checks that the metrics of an expression and their labels exist. It returns the labels that
// its series may have.
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

// A running node exposes every metric that the dashboard, the alerts and the documents name.
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
