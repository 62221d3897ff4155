package edge

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/edge/cache"
	"github.com/kaiku-cdn/kaiku/edge/certs"
	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// document is the served OpenAPI document.
type document struct {
	OpenAPI    string                          `json:"openapi"`
	Paths      map[string]map[string]operation `json:"paths"`
	Components struct {
		Schemas map[string]schema `json:"schemas"`
	} `json:"components"`
}

type operation struct {
	Scope      string `json:"x-scope"`
	Parameters []struct{ Name, In string }
	Responses  map[string]struct {
		Content map[string]struct{ Schema schema }
	}
}

type schema map[string]any

func openDocument(t *testing.T, e *testEdge, fields ...string) *document {
	t.Helper()
	got := e.admin("GET", "/v1/openapi.json", "", fields...)
	var d document
	if err := decode(got.body, &d); err != nil || got.status != 200 ||
		got.header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d, %v, %v", got.status, got.header, err)
	}
	if !strings.HasPrefix(d.OpenAPI, "3.1.") {
		t.Errorf("it is OpenAPI %s", d.OpenAPI)
	}
	return &d
}

// check says where a value is not what a schema says. It knows what of JSON Schema the document
// uses.
func (d *document) check(at string, s schema, v any) []string {
	if name, ok := s["$ref"].(string); ok {
		ref, ok := d.Components.Schemas[strings.TrimPrefix(name, "#/components/schemas/")]
		if !ok {
			return []string{at + ": no schema " + name}
		}
		return d.check(at, ref, v)
	}
	if one, ok := s["oneOf"].([]any); ok {
		fits := 0
		for _, o := range one {
			if len(d.check(at, o.(map[string]any), v)) == 0 {
				fits++
			}
		}
		if fits != 1 {
			return []string{fmt.Sprintf("%s: %v is of %d alternatives", at, v, fits)}
		}
		return nil
	}
	kinds, ok := s["type"].([]any)
	if !ok {
		kinds = []any{s["type"]}
	}
	if kind := kindOf(v); !slices.Contains(kinds, any(kind)) &&
		!(kind == "integer" && slices.Contains(kinds, any("number"))) {
		return []string{fmt.Sprintf("%s: %v is not %v", at, v, kinds)}
	}
	var wrong []string
	switch v := v.(type) {
	case []any:
		for i, e := range v {
			wrong = append(wrong, d.check(fmt.Sprintf("%s[%d]", at, i), s["items"].(map[string]any), e)...)
		}
	case map[string]any:
		properties, _ := s["properties"].(map[string]any)
		more, _ := s["additionalProperties"].(map[string]any)
		for name, value := range v {
			p, ok := properties[name].(map[string]any)
			if !ok {
				p = more
			}
			if p == nil {
				if properties != nil {
					wrong = append(wrong, at+"."+name+": not documented")
				}
				continue
			}
			wrong = append(wrong, d.check(at+"."+name, p, value)...)
		}
		required, _ := s["required"].([]any)
		for _, name := range required {
			if _, ok := v[name.(string)]; !ok {
				wrong = append(wrong, fmt.Sprintf("%s.%v: missing", at, name))
			}
		}
	}
	if want, ok := s["const"]; ok && want != v {
		wrong = append(wrong, fmt.Sprintf("%s: %v, want %v", at, v, want))
	}
	return wrong
}

func kindOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case float64:
		if v == float64(int64(v)) {
			return "integer"
		}
		return "number"
	case []any:
		return "array"
	}
	return "object"
}

// Each route is documented, with its scope, and nothing else is.
func TestOpenAPIHasEveryRoute(t *testing.T) {
	e := newEdge(t, static("x"))
	d := openDocument(t, e)
	seen := map[string]bool{}
	for _, r := range e.Server.admin.Endpoints() {
		if r.Method == "PURGE" {
			continue // which OpenAPI can't say
		}
		op, ok := d.Paths[r.Path][strings.ToLower(r.Method)]
		if !ok || op.Scope != r.Scope {
			t.Errorf("%s %s with the scope %q: documented %v, with %q", r.Method, r.Path, r.Scope, ok, op.Scope)
		}
		for part := range strings.SplitSeq(r.Path, "/") {
			if name, ok := strings.CutPrefix(part, "{"); ok && !slices.ContainsFunc(op.Parameters,
				func(p struct{ Name, In string }) bool {
					return p.In == "path" && p.Name+"}" == name
				}) {
				t.Errorf("%s: {%s is not documented", r.Path, name)
			}
		}
		seen[strings.ToLower(r.Method)+r.Path] = true
	}
	for path, ops := range d.Paths {
		for method := range ops {
			if !seen[method+path] {
				t.Errorf("%s %s is documented, but not there", method, path)
			}
		}
	}
}

// The schemas have the fields of the types, and ask for those that are always there.
func TestOpenAPIHasEveryField(t *testing.T) {
	d := openDocument(t, newEdge(t, static("x")))
	for name, v := range map[string]any{
		"Error": purge.ErrorResponse{}, "PurgeRequest": purge.Request{}, "PurgeResponse": purge.Response{},
		"Progress": purge.Progress{}, "Explanation": cache.Explanation{},
		"Explained": cache.Explained{}, "Status": admin.Status{}, "Store": storage.Stats{}, "Origin": origin.Status{},
		"OriginServer": origin.ServerStatus{}, "Failure": origin.Failure{}, "Outage": cache.Outage{},
		"Node": admin.NodeStatus{}, "Traffic": front.Traffic{}, "Certificate": certs.Status{},
		"WarmRequest": admin.WarmRequest{}, "WarmResponse": admin.WarmResponse{}, "WarmFailure": admin.WarmFailure{},
		"Session": admin.Session{}, "LiveEvent": admin.LiveEvent{}, "LiveNode": admin.Live{}, "Point": admin.Point{},
		"Report": admin.Report{}, "Rates": admin.Rates{}, "StoreReport": admin.StoreReport{},
		"CertificateReport": admin.CertificateReport{}, "SiteReport": admin.SiteReport{},
		"FastlyDone":      purge.FastlyResponse{},
		"CloudflarePurge": purge.CloudflareRequest{}, "CloudflareAnswer": purge.CloudflareResponse{},
		"CloudflareError": purge.CloudflareError{}, "CloudflareResult": purge.CloudflareResult{},
	} {
		s := d.Components.Schemas[name]
		properties, _ := s["properties"].(map[string]any)
		required, _ := s["required"].([]any)
		fields := 0
		for _, f := range fieldsOf(reflect.TypeOf(v)) {
			field, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if field == "" {
				continue
			}
			fields++
			if properties[field] == nil {
				t.Errorf("%s: %s is not documented", name, field)
			}
			if always := options != "omitempty"; always != slices.Contains(required, any(field)) &&
				name != "CloudflarePurge" {
				t.Errorf("%s: %s is always there: %v", name, field, always)
			}
		}
		if fields != len(properties) {
			t.Errorf("%s: %d fields, %d are documented", name, fields, len(properties))
		}
	}
}

// fieldsOf are the fields that JSON has, those of embedded structs too.
func fieldsOf(t reflect.Type) []reflect.StructField {
	var out []reflect.StructField
	for i := range t.NumField() {
		if f := t.Field(i); f.Anonymous {
			out = append(out, fieldsOf(f.Type)...)
		} else {
			out = append(out, f)
		}
	}
	return out
}

// Real answers are as documented.
func TestOpenAPIOfRealAnswers(t *testing.T) {
	e := newTagged(t, func(s *Server, _ *site.Site) {
		s.Tokens.Set([]purge.Token{full("secret")})
		s.Fleet = oneNode{}
	})
	d := openDocument(t, e, "Authorization: Bearer secret")
	auth, other, typed := "Authorization: Bearer secret", "Authorization: Bearer other",
		"Content-Type: application/json"
	for _, c := range []struct {
		method, path, target, body string
		fields                     []string
		status                     int
	}{
		{"POST", "/v1/purge", "/v1/purge", `{"urls":["http://www.example/a"]}`, []string{auth, typed}, 200},
		{"POST", "/v1/purge", "/v1/purge?wait=all&limit=1s", `{"tags":["x"],"soft":true}`, []string{auth, typed}, 200},
		{"POST", "/v1/purge", "/v1/purge", `{}`, []string{auth, typed}, 400},
		{"POST", "/v1/purge", "/v1/purge", `{}`, []string{auth}, 415},
		{"POST", "/v1/purge", "/v1/purge", `{}`, []string{other, typed}, 401},
		{"GET", "/v1/purges/{sequence}", "/v1/purges/1", "", []string{auth}, 200},
		{"GET", "/v1/purges/{sequence}", "/v1/purges/x", "", []string{auth}, 400},
		{"GET", "/v1/explain", "/v1/explain?url=http://www.example/c", "", []string{auth}, 200},
		{"GET", "/v1/explain", "/v1/explain?url=http://www.example/none", "", []string{auth}, 200},
		{"GET", "/v1/explain", "/v1/explain?url=http://other.example/", "", []string{auth}, 404},
		{"GET", "/v1/explain", "/v1/explain", "", []string{auth}, 400},
		{"GET", "/v1/what-if", "/v1/what-if", "", []string{auth}, 200},
		{"GET", "/v1/status", "/v1/status", "", []string{auth}, 200},
		{"GET", "/v1/session", "/v1/session", "", []string{auth}, 200},
		{"GET", "/v1/session", "/v1/session", "", []string{other}, 401},
		{"POST", "/v1/session", "/v1/session", `{"token":"secret"}`, []string{typed}, 200},
		{"POST", "/v1/session", "/v1/session", `{"token":"other"}`, []string{typed}, 401},
		{"POST", "/v1/session", "/v1/session", `{`, []string{typed}, 400},
		{"POST", "/v1/session", "/v1/session", `{"token":"secret"}`, nil, 415},
		{"DELETE", "/v1/session", "/v1/session", "", []string{auth}, 200},
		{"GET", "/v1/explain/dns", "/v1/explain/dns?name=a.example&client=192.0.2.1", "", []string{auth}, 404},
		{"PUT", "/v1/nodes/{node}/drain", "/v1/nodes/hel1/drain", "", []string{auth}, 200},
		{"DELETE", "/v1/nodes/{node}/drain", "/v1/nodes/hel1/drain", "", []string{auth}, 200},
		{"PUT", "/v1/nodes/{node}/drain", "/v1/nodes/nosuch/drain", "", []string{auth}, 404},
		{"DELETE", "/v1/nodes/{node}/drain", "/v1/nodes/nosuch/drain", "", []string{auth}, 404},
		{"POST", "/v1/purge", "/v1/purge", `{"hosts":["other.example"]}`, []string{auth, typed}, 404},
		{"POST", "/client/v4/zones/{zone}/purge_cache", "/client/v4/zones/x/purge_cache", `{"hosts":["other.example"]}`,
			[]string{auth, typed}, 404},
		{"POST", "/v1/warm", "/v1/warm", `{"urls":["http://www.example/c","http://other.example/"],"rate":100}`,
			[]string{auth, typed}, 200},
		{"POST", "/v1/warm", "/v1/warm", `{"urls":[]}`, []string{auth, typed}, 400},
		{"POST", "/service/{id}/purge/{key}", "/service/www/purge/k", "", []string{auth}, 200},
		{"POST", "/service/{id}/purge", "/service/www/purge", `{"surrogate_keys":["a","b"]}`, []string{auth, typed},
			200},
		{"POST", "/service/{id}/purge", "/service/www/purge", "", []string{auth}, 400},
		{"POST", "/service/{id}/purge", "/service/www/purge", "", []string{other}, 401},
		{"POST", "/service/{id}/purge_all", "/service/www/purge_all", "", []string{auth}, 200},
		{"POST", "/purge/{url}", "/purge/www.example/a", "", []string{auth}, 200},
		{"POST", "/purge/{url}", "/purge/other.example/a", "", []string{auth}, 404},
		{"POST", "/client/v4/zones/{zone}/purge_cache", "/client/v4/zones/www/purge_cache", `{"purge_everything":true}`,
			[]string{auth, typed}, 200},
		{"POST", "/client/v4/zones/{zone}/purge_cache", "/client/v4/zones/www/purge_cache", `{}`, []string{auth, typed},
			400},
		{"POST", "/client/v4/zones/{zone}/purge_cache", "/client/v4/zones/www/purge_cache", `{}`,
			[]string{other, typed}, 401},
	} {
		got := e.admin(c.method, c.target, c.body, c.fields...)
		what := fmt.Sprintf("%s %s %s", c.method, c.target, c.body)
		documented, ok := d.Paths[c.path][strings.ToLower(c.method)].Responses[fmt.Sprint(got.status)]
		if got.status != c.status || !ok {
			t.Errorf("%s: %d, %s; documented %v", what, got.status, got.body, ok)
			continue
		}
		var v any
		if err := json.Unmarshal([]byte(got.body), &v); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		for _, wrong := range d.check("", documented.Content["application/json"].Schema, v) {
			t.Errorf("%s: %s", what, wrong)
		}
	}
}

// oneNode is a fleet of which this edge is all.
type oneNode struct{}

func (oneNode) Progress(context.Context, uint64, bool) []purge.Progress {
	return []purge.Progress{{Node: "hel1", Applied: true, Live: true, Seconds: .25}}
}

func (oneNode) Nodes() []admin.NodeStatus {
	return []admin.NodeStatus{{Node: "hel1", Roles: []string{"edge"}, Region: "eu", Version: "1", Address: "192.0.2.1",
		Load: .5, Started: time.Now()}}
}

func (oneNode) Names() []string { return []string{"hel1"} }

func (oneNode) Reports(context.Context, int64) ([]admin.Reported, []admin.Point, error) {
	return nil, []admin.Point{{At: 1, Edges: 1}}, nil
}

func (oneNode) Location(string) *[2]float64 { return &[2]float64{60.17, 24.94} }

func (oneNode) NameServers() []string { return []string{"ns1"} }

func (oneNode) Drain(context.Context, string, bool) error { return nil }
