package config

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/textproto"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/words"
	"github.com/kaiku-cdn/kaiku/edge/rules"
)

// Rule is a rule of a site, as fleet.yaml has it. Package edge/rules describes what rules do.
type Rule struct {
	Name      string       `yaml:"name"`
	Match     Match        `yaml:"match"`
	CORS      *CORS        `yaml:"cors"`
	Security  string       `yaml:"security_headers"` // basic or strict
	Limit     *Limit       `yaml:"limit"`
	Signed    *SignedURLs  `yaml:"signed"`
	BasicAuth *BasicAuth   `yaml:"basic_auth"`
	Deny      bool         `yaml:"deny"`
	Respond   *Respond     `yaml:"respond"`
	Redirect  *Redirect    `yaml:"redirect"`
	Rewrite   *Rewrite     `yaml:"rewrite"`
	Request   FieldChanges `yaml:"request"`
	Response  FieldChanges `yaml:"response"`
	Origin    string       `yaml:"origin"` // the name of one of the site's origins
	Cache     RuleCache    `yaml:"cache"`

	ErrorPages *ErrorPages `yaml:"error_pages"`
}

// Match has the conditions of a rule.
type Match struct {
	Path       []string          `yaml:"path"` // globs
	PathRegexp string            `yaml:"path_regexp"`
	Host       []string          `yaml:"host"`
	Method     []string          `yaml:"method"`
	Protocol   []string          `yaml:"protocol"`
	Query      map[string]string `yaml:"query"` // globs by name; "" is any value
	Header     map[string]string `yaml:"header"`
	Cookie     map[string]string `yaml:"cookie"`
	Without    Without           `yaml:"without"`
	Network    []netip.Prefix    `yaml:"network"`
	Crawler    []string          `yaml:"crawler"`
	Country    []string          `yaml:"country"` // ISO 3166-1 alpha-2
}

// Without has the names of query parameters, header fields and cookies that a request must
// not have.
type Without struct {
	Query  []string `yaml:"query"`
	Header []string `yaml:"header"`
	Cookie []string `yaml:"cookie"`
}

// BasicAuth requires a user name and a password from clients (RFC 7617).
type BasicAuth struct {
	Realm    string `yaml:"realm"`
	File     string `yaml:"file"`     // a file with lines USER:HASH
	Attempts string `yaml:"attempts"` // how many wrong passwords a client network may try, such as 10/m
}

// Respond is a response that the edge itself generates.
type Respond struct {
	Status int    `yaml:"status"`
	Type   string `yaml:"type"`
	Body   Text   `yaml:"body"`
}

// Redirect redirects clients to another URL.
type Redirect struct {
	To     string `yaml:"to"`
	Status int    `yaml:"status"` // 0 means 302
}

// Rewrite changes the path and the query before the cache look-up and the request to the origin.
type Rewrite struct {
	Path  *string `yaml:"path"`
	Query *string `yaml:"query"`
}

// FieldChanges has changes of header fields.
type FieldChanges struct {
	Remove []string          `yaml:"remove"`
	Set    map[string]string `yaml:"set"`
	Add    map[string]string `yaml:"add"`
}

// RuleCache has a rule's settings for the cache.
type RuleCache struct {
	TTL         *Duration `yaml:"ttl"`
	Bypass      bool      `yaml:"bypass"`
	IgnoreQuery bool      `yaml:"ignore_query"`
	Key         *CacheKey `yaml:"key"`
}

// fixedFields are the header fields that rules can't change: they frame messages, belong to one
// connection, or are the edge's own.
var fixedFields = []string{"Connection", "Content-Encoding", "Content-Length", "Content-Range", "Host", "Keep-Alive",
	"Te",
	"Trailer", "Transfer-Encoding", "Upgrade", "Date", "Age", "Via", "Cache-Status", "Proxy-Connection", "Range",
	"If-Range"}

// ruleMaker makes rules from those of the fleet file.
type ruleMaker struct {
	// errorf reports an error at a path of the fleet file.
	errorf func(at, format string, a ...any)
	// read reads a file that the fleet file names. If it is nil, the files are not read.
	read func(file string) ([]byte, error)
	site string
}

// checkRules reports what is wrong with the rules of a site.
func (f *Fleet) checkRules(at string, list []Rule) {
	m := ruleMaker{errorf: f.errorf}
	m.set(at, list)
}

// SiteRules makes the rules of a site. It reads the files that they name.
func (f *Fleet) SiteRules(s *Site) (set *rules.Set, err error) {
	m := ruleMaker{site: s.Name, read: func(file string) ([]byte, error) { return os.ReadFile(f.Path(file)) },
		errorf: func(at, format string, a ...any) {
			err = cmp.Or(err, fmt.Errorf(at+": "+format, a...))
		}}
	set = m.set("rules", s.Rules)
	return set, err
}

func (m *ruleMaker) set(at string, list []Rule) *rules.Set {
	out := make([]rules.Rule, len(list))
	names := map[string]bool{}
	for i := range list {
		p := fmt.Sprintf("%s[%d]", at, i)
		if name := list[i].Name; name != "" && names[name] {
			m.errorf(p+".name", "two rules are called %s", name)
		}
		names[list[i].Name] = true
		name := cmp.Or(list[i].Name, fmt.Sprint(i+1))
		out[i] = m.rule(p, m.site+"/"+name, &list[i])
		out[i].Name = name
	}
	set, err := rules.NewSet(out)
	if err != nil {
		m.errorf(at, "%v", err)
	}
	return set
}

// rule makes a rule. name tells it from all others of the fleet.
func (m *ruleMaker) rule(at, name string, r *Rule) (out rules.Rule) {
	captures := m.match(at+".match", &r.Match, &out.Match)
	ends := 0
	if r.Deny {
		ends++
		out.Respond = &rules.Response{Status: http.StatusForbidden}
	}
	if r.Respond != nil {
		ends++
		out.Respond = m.respond(at+".respond", r.Respond)
	}
	if r.Redirect != nil {
		ends++
		out.Redirect = m.redirect(at+".redirect", r.Redirect, captures)
	}
	if w := r.Rewrite; w != nil {
		out.Rewrite = m.rewrite(at+".rewrite", w, captures)
	}
	if r.CORS != nil {
		out.CORS = m.cors(at+".cors", r.CORS)
	}
	if r.Security != "" {
		out.Security = m.security(at+".security_headers", r.Security)
	}
	if r.Limit != nil {
		out.Limit = m.limit(at+".limit", name, r.Limit)
	}
	if r.Signed != nil {
		out.Signed = m.signed(at+".signed", r.Signed)
	}
	if r.BasicAuth != nil {
		out.Auth = m.auth(at+".basic_auth", name, r.BasicAuth)
	}
	out.Request, out.Response = m.fields(at+".request", &r.Request), m.fields(at+".response", &r.Response)
	out.Cache = rules.Cache{Bypass: r.Cache.Bypass, NoQuery: r.Cache.IgnoreQuery, Origin: r.Origin,
		Key: m.key(at+".cache.key", r.Cache.Key)}
	if ttl := r.Cache.TTL; ttl != nil {
		d := time.Duration(*ttl)
		out.Cache.TTL = &d
		if d > 0 && r.Cache.Bypass {
			m.errorf(at+".cache.ttl", "bypass stores nothing: leave one of the two out")
		}
	}
	out.Pages = m.errorPages(at+".error_pages", r.ErrorPages)
	goesOn := out.Pages != nil || out.Rewrite != nil || !out.Request.Empty() || !out.Response.Empty() ||
		out.Cache != rules.Cache{}
	switch {
	case ends > 1:
		m.errorf(at, "want one of deny, respond and redirect")
	case ends == 1 && goesOn:
		m.errorf(at, "the request ends with this rule: move rewrite, request, response and cache to another one")
	case ends == 0 && !goesOn && !r.checks():
		m.errorf(at, "the rule does nothing: want cors, security_headers, limit, signed, basic_auth, deny, respond, redirect, rewrite, request, response or cache")
	}
	return out
}

// checks reports whether the rule has a preset or a check.
func (r *Rule) checks() bool {
	return r.CORS != nil || r.Security != "" || r.Limit != nil || r.Signed != nil || r.BasicAuth != nil
}

// match adds the conditions to out. It returns the number of captures that the path pattern has. If
// there are several patterns, that is the smallest number of captures.
func (m *ruleMaker) match(at string, in *Match, out *rules.Match) (captures int) {
	captures = -1
	add := func(at string, p rules.Pattern, err error) {
		if err != nil {
			m.errorf(at, "%v", err)
		}
		out.Paths = append(out.Paths, p)
		if n := p.Captures(); captures < 0 || n < captures {
			captures = n
		}
	}
	for i, glob := range in.Path {
		at := fmt.Sprintf("%s.path[%d]", at, i)
		if !strings.HasPrefix(glob, "/") && !strings.HasPrefix(glob, "*") {
			m.errorf(at, "%q matches no path: a path begins with /", glob)
		}
		p, err := rules.ParseGlob(glob)
		add(at, p, err)
	}
	if in.PathRegexp != "" {
		p, err := rules.ParseRegexp(in.PathRegexp)
		add(at+".path_regexp", p, err)
	}
	for i, h := range in.Host {
		if !IsHost(strings.TrimPrefix(h, "*.")) {
			m.errorf(fmt.Sprintf("%s.host[%d]", at, i), "%q is not a host name: want it without scheme, port and path",
				h)
		}
	}
	out.Hosts = LowerHosts(in.Host)
	for i, method := range in.Method {
		if !headerRE.MatchString(method) || method != strings.ToUpper(method) {
			m.errorf(fmt.Sprintf("%s.method[%d]", at, i), "%q is not a method: want GET, POST or another in upper case",
				method)
		}
	}
	out.Methods = in.Method
	known := []string{"http", "https", "http1", "http2", "http3"}
	for i, p := range in.Protocol {
		if !slices.Contains(known, p) {
			m.errorf(fmt.Sprintf("%s.protocol[%d]", at, i), "%q is unknown: %s", p, words.Suggest(p, known))
		}
	}
	out.Protocols = in.Protocol
	out.Query = m.named(at+".query", in.Query, in.Without.Query)
	out.Header = m.named(at+".header", in.Header, in.Without.Header)
	out.Cookies = m.named(at+".cookie", in.Cookie, in.Without.Cookie)
	out.Networks, out.Crawlers, out.Countries = in.Network, in.Crawler, in.Country
	for i, class := range in.Crawler {
		if known := rules.CrawlerClasses(); !slices.Contains(known, class) {
			m.errorf(fmt.Sprintf("%s.crawler[%d]", at, i), "%q is unknown: %s", class, words.Suggest(class, known))
		}
	}
	return max(captures, 0)
}

func (m *ruleMaker) named(at string, globs map[string]string, without []string) (out []rules.Field) {
	for _, name := range slices.Sorted(maps.Keys(globs)) {
		f := rules.Field{Name: name}
		if glob := globs[name]; glob != "" {
			p, err := rules.ParseGlob(glob)
			if err != nil {
				m.errorf(at+"."+name, "%v", err)
			}
			f.Value = &p
		}
		out = append(out, f)
	}
	for _, name := range without {
		out = append(out, rules.Field{Name: name, Absent: true})
	}
	return out
}

func (m *ruleMaker) respond(at string, r *Respond) *rules.Response {
	status := cmp.Or(r.Status, http.StatusOK)
	if status < 200 || status > 599 {
		m.errorf(at+".status", "want a final status, 200 to 599, not %d", status)
	}
	if r.Body != "" && (status == http.StatusNoContent || status == http.StatusNotModified ||
		status == http.StatusResetContent) {
		m.errorf(at+".body", "a response with status %d has no body", status)
	}
	out := &rules.Response{Status: status, Header: http.Header{}, Body: []byte(r.Body)}
	if r.Body != "" {
		out.Header["Content-Type"] = []string{cmp.Or(r.Type, "text/plain; charset=utf-8")}
	}
	if bad := badValue(r.Type); bad {
		m.errorf(at+".type", "%q is not a media type", r.Type)
	}
	return out
}

func (m *ruleMaker) redirect(at string, r *Redirect, captures int) *rules.Redirect {
	out := &rules.Redirect{Status: cmp.Or(r.Status, http.StatusFound)}
	if !slices.Contains([]int{301, 302, 303, 307, 308}, out.Status) {
		m.errorf(at+".status", "want 301, 302, 303, 307 or 308, not %d", r.Status)
	}
	u, err := url.Parse(strings.NewReplacer("$host", "host", "$", "").Replace(r.To))
	if err != nil || badValue(r.To) || !strings.HasPrefix(r.To, "/") && (u.Scheme == "" || u.Host == "") {
		m.errorf(at+".to", "%q is not a URL: want https://HOST/PATH, or /PATH on the same host", r.To)
	}
	out.To = m.template(at+".to", r.To, captures)
	return out
}

func (m *ruleMaker) rewrite(at string, w *Rewrite, captures int) *rules.Rewrite {
	out := &rules.Rewrite{}
	if w.Path != nil {
		if !strings.HasPrefix(*w.Path, "/") && *w.Path != "$path" || strings.ContainsAny(*w.Path, "?# ") ||
			badValue(*w.Path) {
			m.errorf(at+".path", "%q is not a path: want it to begin with /, without ?, # and spaces", *w.Path)
		}
		t := m.template(at+".path", *w.Path, captures)
		out.Path = &t
	}
	if w.Query != nil {
		if strings.ContainsAny(*w.Query, "?# ") || badValue(*w.Query) {
			m.errorf(at+".query", "%q is not a query: want it without ?, # and spaces, such as a=1&b=2", *w.Query)
		}
		t := m.template(at+".query", *w.Query, captures)
		out.Query = &t
	}
	if w.Path == nil && w.Query == nil {
		m.errorf(at, "want path, query or both")
	}
	return out
}

func (m *ruleMaker) template(at, text string, captures int) rules.Template {
	t, err := rules.ParseTemplate(text, captures)
	if err != nil {
		m.errorf(at, "%v", err)
	}
	return t
}

func (m *ruleMaker) auth(at, name string, a *BasicAuth) *rules.Auth {
	if a.File == "" {
		m.errorf(at+".file", "want a file with a line USER:HASH for each user, as htpasswd -B writes it")
	}
	if badValue(a.Realm) {
		m.errorf(at+".realm", "%q has a control character", a.Realm)
	}
	attempts := rules.DefaultAttempts
	if a.Attempts != "" {
		attempts = m.rate(at+".attempts", a.Attempts)
	}
	if m.read == nil || a.File == "" {
		return nil
	}
	text, err := m.read(a.File)
	var auth *rules.Auth
	if err == nil {
		auth, err = rules.ParseAuth(cmp.Or(a.Realm, "restricted"), string(text))
	}
	if err == nil {
		err = auth.SetAttempts(name, attempts)
	}
	if err != nil {
		m.errorf(at+".file", "read %s: %v", a.File, err)
	}
	return auth
}

func (m *ruleMaker) fields(at string, c *FieldChanges) (out rules.Fields) {
	name := func(at, name string) string {
		canonical := textproto.CanonicalMIMEHeaderKey(name)
		switch {
		case !headerRE.MatchString(name):
			m.errorf(at, "%q is not the name of a field", name)
		case slices.Contains(fixedFields, canonical):
			m.errorf(at, "%s is not for rules to change: messages depend on it", canonical)
		}
		return canonical
	}
	for i, n := range c.Remove {
		out.Remove = append(out.Remove, name(fmt.Sprintf("%s.remove[%d]", at, i), n))
	}
	values := func(at string, in map[string]string) (out []rules.Value) {
		for _, n := range slices.Sorted(maps.Keys(in)) {
			if badValue(in[n]) {
				m.errorf(at+"."+n, "%q has a control character", in[n])
			}
			out = append(out, rules.Value{Name: name(at+"."+n, n), Value: strings.TrimSpace(in[n])})
		}
		return out
	}
	out.Set, out.Add = values(at+".set", c.Set), values(at+".add", c.Add)
	return out
}

// badValue reports whether a text can't be the value of a field.
func badValue(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}

// checkUsers returns what is wrong with a file of users and passwords, or nil.
func checkUsers(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if _, err := rules.ParseAuth("", string(text)); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}
