package rules

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// CORS lets pages of other origins read responses (Fetch Standard, 3.2). The edge answers preflight
// requests itself, and replaces what the site's origin says of CORS.
type CORS struct {
	Origins     []string // https://app.example.com, https://*.example.com, or "*" for all
	Methods     []string // of preflights; nil means GET, HEAD and POST, which need none
	Headers     []string // request fields; "*" is any
	Expose      []string // response fields that pages may read
	Credentials bool     // pages may send cookies
	MaxAge      time.Duration

	any    bool        // all origins, without credentials
	fixed  Fields      // of all responses
	answer http.Header // of preflights from an allowed origin
}

const allowOrigin = "Access-Control-Allow-Origin"

// corsFields are the fields of responses that CORS sets or removes.
var corsFields = []string{allowOrigin, "Access-Control-Allow-Credentials", "Access-Control-Allow-Methods",
	"Access-Control-Allow-Headers", "Access-Control-Expose-Headers", "Access-Control-Max-Age"}

// Check returns what is wrong with the settings, and makes them ready to use.
func (c *CORS) Check() error {
	if len(c.Origins) == 0 {
		return errors.New("want origins, such as https://app.example.com, or \"*\" for all")
	}
	for i, origin := range c.Origins {
		if err := checkOrigin(origin); err != nil {
			return err
		}
		c.Origins[i] = strings.ToLower(origin)
	}
	all := slices.Contains(c.Origins, "*")
	switch {
	case all && c.Credentials:
		return errors.New(`every page could read what belongs to a user: list the origins in place of "*", or leave credentials out`)
	case all && len(c.Origins) > 1:
		return errors.New(`"*" is all origins: leave the others out`)
	case c.Credentials && (slices.Contains(c.Headers, "*") || slices.Contains(c.Expose, "*")):
		return errors.New(`with credentials, browsers take "*" for the name of a field: list the fields`)
	}
	c.any = all
	c.fixed = Fields{Remove: corsFields}
	set := func(name, value string) {
		if value != "" {
			c.fixed.Set = append(c.fixed.Set, Value{name, value})
		}
	}
	if c.any {
		set(allowOrigin, "*")
	} else {
		c.fixed.Add = []Value{{"Vary", "Origin"}}
	}
	set("Access-Control-Expose-Headers", strings.Join(c.Expose, ", "))
	c.answer = http.Header{}
	for name, list := range map[string][]string{"Access-Control-Allow-Methods": c.Methods,
		"Access-Control-Allow-Headers": c.Headers} {
		if len(list) > 0 {
			c.answer[name] = []string{strings.Join(list, ", ")}
		}
	}
	if c.MaxAge > 0 {
		c.answer["Access-Control-Max-Age"] = []string{strconv.Itoa(int(c.MaxAge / time.Second))}
	}
	return nil
}

// checkOrigin returns an error if a text is not a serialized origin (RFC 6454, 6.2), or one with *.
// in front of its host.
func checkOrigin(text string) error {
	if text == "*" {
		return nil
	}
	u, err := url.Parse(strings.Replace(text, "://*.", "://", 1))
	if err != nil || u.Scheme == "" || u.Host == "" || u.String() != u.Scheme+"://"+u.Host || u.User != nil ||
		strings.Contains(u.Host, "*") || u.Scheme == "https" && u.Port() == "443" || u.Scheme == "http" &&
		u.Port() == "80" {
		return fmt.Errorf("%q is not an origin: want https://HOST or https://HOST:PORT, without path and default port; "+
			`https://*.NAME is all hosts below NAME, and "*" all origins`, text)
	}
	return nil
}

// allows reports whether pages of an origin may read responses.
func (c *CORS) allows(origin string) bool {
	return slices.ContainsFunc(c.Origins, func(allowed string) bool {
		scheme, host, wild := strings.Cut(allowed, "://*")
		if !wild {
			return allowed == "*" || allowed == origin
		}
		rest, ok := strings.CutPrefix(origin, scheme+"://")
		// Browsers send no user and no path in it. Nobody else is to pass as a host below NAME.
		return ok && len(rest) > len(host) && strings.HasSuffix(rest, host) && !strings.ContainsAny(rest, "/@?#\\ ")
	})
}

// allow sets the fields that depend on the origin of the page.
func (c *CORS) allow(h http.Header, origin string) {
	if c.any || origin == "" || !c.allows(origin) {
		return
	}
	h[allowOrigin] = []string{origin}
	if c.Credentials {
		h["Access-Control-Allow-Credentials"] = []string{"true"}
	}
}

// preflight returns the response to a preflight request, or nil if the request is none.
func (c *CORS) preflight(r *Request) *Response {
	origins := r.Header["Origin"]
	if r.Method != http.MethodOptions || len(origins) != 1 || len(r.Header["Access-Control-Request-Method"]) == 0 {
		return nil
	}
	h := http.Header{"Vary": {"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"}}
	if c.allows(origins[0]) {
		maps.Copy(h, c.answer)
		if h[allowOrigin] = []string{"*"}; !c.any {
			c.allow(h, origins[0])
		}
	}
	return &Response{Status: http.StatusNoContent, Header: h}
}
