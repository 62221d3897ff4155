package rules

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// Rule is one of a site's rules, with its conditions and actions.
type Rule struct {
	Name  string // in logs and explanations; unique in the site
	Match Match
	Actions
}

// Actions are the actions of a rule. Fields that are not set change nothing.
type Actions struct {
	CORS     *CORS
	Security *Fields // a preset of SecurityHeaders
	Limit    *Limit
	Signed   *Signed
	Auth     *Auth
	Redirect *Redirect
	Respond  *Response // deny is a Response with 403
	Rewrite  *Rewrite
	Request  Fields // of the request to the origin
	Response Fields // of the response to the client
	Cache    Cache
	Pages    *ErrorPages
}

// Redirect sends the client elsewhere.
type Redirect struct {
	To     Template // a URL, or a path
	Status int      // 301, 302, 303, 307 or 308
}

// Response is a response that the edge makes itself.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
	Reason string // why a check refused the request, for metrics and Cache-Status; otherwise ""
	Detail string // the same for the client
}

// Rewrite changes the request's target before the look-up. A nil Template leaves its part
// unchanged.
type Rewrite struct {
	Path  *Template
	Query *Template // without "?"
}

// Cache has the settings of a rule for the cache.
type Cache struct {
	TTL    *time.Duration // freshness lifetime, overrides that of the response; 0 stores nothing
	Bypass bool           // the request is passed to the origin and nothing is stored
	// NoQuery leaves the query out of the key and of the request to the origin.
	NoQuery bool
	Key     *Key
	// Origin is the name of one of the site's origins. "" means the site's own.
	Origin string
}

// Fields are changes of a header: Remove first, then Default, Set and Add. Default sets fields that
// the header lacks. Names are in canonical form.
type Fields struct {
	Remove            []string
	Default, Set, Add []Value
}

// Value is a field with its value.
type Value struct{ Name, Value string }

// Empty reports whether there is nothing to change.
func (f *Fields) Empty() bool { return len(f.Remove)+len(f.Default)+len(f.Set)+len(f.Add) == 0 }

// Apply changes a header.
func (f *Fields) Apply(h http.Header) {
	for _, name := range f.Remove {
		delete(h, name)
	}
	for _, v := range f.Default {
		if h[v.Name] == nil {
			h[v.Name] = []string{v.Value}
		}
	}
	for _, v := range f.Set {
		h[v.Name] = []string{v.Value}
	}
	for _, v := range f.Add {
		h[v.Name] = append(slices.Clip(h[v.Name]), v.Value) // other responses may share the slice
	}
}

// Outcome is the result of a site's rules for a request.
type Outcome struct {
	Rules    []string  // names of the matching rules, in their order; Static doesn't set it
	Shape    uint64    // the same for all outcomes with equal Cache and Header
	Response *Response // what the client gets at once; nil means that the request goes on
	By       string    // name of the rule that made Response
	Path     string    // of the look-up
	Query    string    // begins with "?"; "" means no query
	// Known means that a rule required a password, and that the request had the right one.
	Known   bool
	Cookies []string // names of cookies that are for the edge alone
	Limits  []*Limit // of the matching rules; with a Request.Table, Evaluate has counted the request
	misses  []tally
	cors    *CORS
	Request []*Fields
	Header  []*Fields // of the response
	Cache   Cache
	Pages   []*ErrorPages
}

// Limits of a site: all its rules, and those that have settings for the cache or change response
// fields.
const (
	MaxRules  = 1000
	MaxShapes = 64
)

// Set has the rules of a site, in their order. The zero Set has none.
type Set struct {
	rules  []Rule
	shapes []uint64 // by rule: its bit in Outcome.Shape
	// byOrigin means that responses depend on the field Origin.
	byOrigin bool
	marks    bool // a rule adds something to keys
}

// NewSet returns the Set of rules. The caller must not use rules afterwards. NewSet returns an
// error if there are too many.
func NewSet(rules []Rule) (*Set, error) {
	if len(rules) > MaxRules {
		return nil, fmt.Errorf("%d rules: want at most %d", len(rules), MaxRules)
	}
	s := &Set{rules: rules, shapes: make([]uint64, len(rules))}
	n := 0
	for i := range rules {
		s.marks = s.marks || rules[i].Cache.Origin != "" || rules[i].Cache.Key.HasValues()
		s.byOrigin = s.byOrigin || rules[i].CORS != nil && !rules[i].CORS.any
		if r := &rules[i]; r.Response.Empty() && r.Cache.empty() && r.CORS == nil && r.Security == nil {
			continue
		}
		if n == MaxShapes {
			return nil, fmt.Errorf("more than %d rules set something for the cache or change response fields",
				MaxShapes)
		}
		s.shapes[i] = 1 << n
		n++
	}
	return s, nil
}

// ByOrigin reports whether responses depend on the field Origin of requests.
func (s *Set) ByOrigin() bool { return s.byOrigin }

// Len returns the number of rules.
func (s *Set) Len() int {
	if s == nil {
		return 0
	}
	return len(s.rules)
}

// Marks reports whether a rule adds something to the keys of stored responses.
func (s *Set) Marks() bool { return s != nil && s.marks }

// matching is a rule that matches a request.
type matching struct {
	rule  *Rule
	path  *Pattern // that matches; nil if the rule has none
	shape uint64
}

// Evaluate returns the outcome of the rules for a request.
func (s *Set) Evaluate(r *Request) *Outcome {
	o := &Outcome{Path: r.Path, Query: r.Query}
	r.clean = cleanPath(r.Path)
	var room [8]matching
	found := room[:0]
	for i := range s.rules {
		rule := &s.rules[i]
		if path, ok := rule.Match.target(r); ok && rule.Match.rest(r) {
			found = append(found, matching{rule, path, s.shapes[i]})
			o.Rules = append(o.Rules, rule.Name)
		}
	}
	o.addPages(found)
	if o.check(found, r); o.Response == nil {
		o.act(found, r)
	}
	return o
}

// Static is Evaluate for a request of which only method, target, protocol and time are known. It
// reports false if the outcome depends on more, or if the edge makes the response itself.
func (s *Set) Static(r *Request, o *Outcome) bool {
	*o = Outcome{Path: r.Path, Query: r.Query}
	r.clean = cleanPath(r.Path)
	var room [8]matching
	found := room[:0]
	for i := range s.rules {
		rule := &s.rules[i]
		path, ok := rule.Match.target(r)
		if !ok {
			continue
		}
		if rule.Match.needsMore() || rule.Auth != nil || rule.Limit != nil || rule.ends() ||
			r.CrossOrigin && rule.CORS != nil && !rule.CORS.any {
			return false
		}
		found = append(found, matching{rule, path, s.shapes[i]})
	}
	if o.check(found, r); o.Response == nil {
		o.act(found, r)
	}
	return o.Response == nil
}

// check takes the presets of the matching rules, and makes their checks. If one fails, it sets
// Response.
func (o *Outcome) check(found []matching, r *Request) {
	if o.applyPresets(found, r); o.Response != nil {
		return
	}
	if o.checkLimits(found, r); o.Response != nil {
		return
	}
	if o.checkSigned(found, r); o.Response != nil {
		return
	}
	for _, m := range found {
		if m.rule.Auth == nil {
			continue
		}
		if refusal := m.rule.Auth.Check(r); refusal != nil {
			o.refuse(m.rule, refusal)
			return
		}
		o.Known = true
	}
}

// act takes the actions of the matching rules, up to the first that ends the request.
func (o *Outcome) act(found []matching, r *Request) {
	for _, m := range found {
		if m.rule.ends() {
			o.refuse(m.rule, m.rule.response(r, captured(m.path, r)))
			return
		}
		if o.take(m.rule, m.path, r); o.Response != nil {
			o.By = m.rule.Name
			return
		}
		o.Shape |= m.shape
	}
}

// refuse ends a request with the response of a rule.
func (o *Outcome) refuse(rule *Rule, response *Response) { o.Response, o.By = response, rule.Name }

func (rule *Rule) ends() bool { return rule.Respond != nil || rule.Redirect != nil }

func captured(path *Pattern, r *Request) []string {
	if path == nil {
		return nil
	}
	return path.captures(r.clean)
}

// take takes the actions of a rule that lets the request go on.
func (o *Outcome) take(rule *Rule, path *Pattern, r *Request) {
	if w := rule.Rewrite; w != nil {
		captures := captured(path, r)
		to, query := r.Path, r.Query
		var okPath, okQuery = true, true
		if w.Path != nil {
			to, okPath = w.Path.expand(r, captures)
		}
		if w.Query != nil {
			if query, okQuery = w.Query.expand(r, captures); query != "" {
				query = "?" + query
			}
		}
		if !okPath || !okQuery || to == "" || to[0] != '/' {
			o.Response = tooLong()
			return
		}
		o.Path, o.Query = to, query
	}
	if !rule.Request.Empty() {
		o.Request = append(o.Request, &rule.Request)
	}
	if !rule.Response.Empty() {
		o.Header = append(o.Header, &rule.Response)
	}
	o.Cache.merge(&rule.Cache)
}

func (c *Cache) empty() bool { return *c == Cache{} }

func (c *Cache) merge(later *Cache) {
	if later.TTL != nil {
		c.TTL = later.TTL
	}
	c.Bypass = c.Bypass || later.Bypass
	c.NoQuery = c.NoQuery || later.NoQuery
	if later.Key != nil {
		c.Key = later.Key
	}
	c.Origin = cmp.Or(later.Origin, c.Origin)
}

// response returns the response of a rule that ends the request.
func (rule *Rule) response(r *Request, captures []string) *Response {
	if rule.Respond != nil {
		return rule.Respond
	}
	r.Query = r.sent // a signed URL stays one
	to, ok := rule.Redirect.To.expand(r, captures)
	if !ok {
		return tooLong()
	}
	return &Response{Status: rule.Redirect.Status, Header: http.Header{"Location": {location(to)}}}
}

func tooLong() *Response {
	return &Response{Status: http.StatusRequestURITooLong, Header: http.Header{}}
}

// location returns the value of Location for a URL that may contain text of clients. It makes sure
// that a path doesn't begin with "//" or "/\", which would send clients to another host.
func location(to string) string {
	for len(to) > 1 && to[0] == '/' && (to[1] == '/' || to[1] == '\\') {
		to = to[1:]
	}
	b := make([]byte, 0, len(to))
	for i := range len(to) {
		if c := to[i]; c <= ' ' || c == 0x7f || c == '\\' {
			const hex = "0123456789ABCDEF"
			b = append(b, '%', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}
