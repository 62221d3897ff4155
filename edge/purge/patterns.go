package purge

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// tagsToPurge adds the tags that the fields of a PURGE or BAN name. It reports whether there are
// such fields. A pattern that matches everything sets All.
func tagsToPurge(h http.Header, req *Request) (named bool, err error) {
	hard, soft := false, false
	for _, f := range []struct {
		name  string
		parse func(string) ([]string, error)
		soft  bool
	}{
		{"Surrogate-Key", bySpace, false},
		{"Xkey-Purge", bySpaceOrComma, false}, {"Xkey-Softpurge", bySpaceOrComma, true},
		{"X-Magento-Tags-Pattern", parseTagPattern, false},                               // Magento
		{"X-Cache-Tags", parseTagPattern, false},                                         // FOSHttpCache
		{"Cache-Tags", parseTagLists, false}, {"Purge-Cache-Tags", parseTagLists, false}, // Drupal
	} {
		for _, v := range h[f.name] {
			hard, soft = hard || !f.soft, soft || f.soft
			if matchesAll(v) {
				req.All = true
				continue
			}
			tags, err := f.parse(v)
			if err == nil && len(tags) == 0 {
				err = errors.New("want a tag")
			}
			if err != nil {
				return true, fmt.Errorf("%s %q: %w", f.name, v, err)
			}
			req.Tags = append(req.Tags, tags...)
		}
	}
	if hard && soft {
		return true, errors.New("one request can't purge both hard and soft")
	}
	req.Soft = req.Soft || soft
	return hard || soft, nil
}

func bySpace(v string) ([]string, error) { return strings.Fields(v), nil }

func bySpaceOrComma(v string) ([]string, error) {
	return strings.FieldsFunc(v, func(c rune) bool { return c == ' ' || c == ',' }), nil
}

// parseTagLists parses Drupal's lists: tags separated by |, commas or spaces, or an expression.
func parseTagLists(v string) ([]string, error) {
	if strings.Contains(v, "(") {
		return parseTagPattern(v)
	}
	var tags []string
	for _, part := range strings.FieldsFunc(v, func(c rune) bool { return c == ' ' || c == ',' }) {
		more, err := parseTagPattern(part)
		if err != nil {
			return nil, err
		}
		tags = append(tags, more...)
	}
	return tags, nil
}

// matchesAll reports whether an expression matches everything.
func matchesAll(pattern string) bool {
	switch strings.TrimSpace(pattern) {
	case ".*", ".+", "^.*", "^.*$", "(.*)":
		return true
	}
	return false
}

var errPattern = errors.New("this expression can't be translated to exact tags: want one of the forms of Magento, FOSHttpCache or Drupal, as ((^|,)a(,|$))|((^|,)b(,|$)), (a|b)(,.+)?$ or a|b")

// Expressions around a tag that is one of several in a field.
var (
	tagBegins = []string{"(^|,)", "(^| )", `(^|\s)`}
	tagEnds   = []string{"(,.+)?$", "(,|$)", "( |$)", `(\s|$)`}
)

// maxPatternDepth is how deeply parentheses may be nested in an expression.
const maxPatternDepth = 8

// parseTagPattern returns the tags in an expression of the plugins for Varnish. Each alternative is
// one whole tag. An expression without anchors would match a part of a tag too, but the plugins
// mean the whole tag.
func parseTagPattern(pattern string) ([]string, error) {
	return tagPattern(strings.TrimSpace(pattern), maxPatternDepth)
}

func tagPattern(p string, depth int) ([]string, error) {
	alternatives, ok := splitAlternatives(p)
	if !ok || depth == 0 {
		return nil, errPattern
	}
	if len(alternatives) > 1 {
		var tags []string
		for _, a := range alternatives {
			more, err := tagPattern(a, depth-1)
			if err != nil {
				return nil, err
			}
			tags = append(tags, more...)
		}
		return tags, nil
	}
	for _, begin := range tagBegins {
		if rest, ok := strings.CutPrefix(p, begin); ok {
			p = rest
			break
		}
	}
	for _, end := range tagEnds {
		if rest, ok := strings.CutSuffix(p, end); ok {
			p = rest
			break
		}
	}
	if strings.HasPrefix(p, "(") && strings.HasSuffix(p, ")") {
		return tagPattern(p[1:len(p)-1], depth-1)
	}
	tag, ok := literal(p)
	if !ok || tag == "" || strings.ContainsAny(tag, " ,") {
		return nil, errPattern
	}
	return []string{tag}, nil
}

// splitAlternatives splits an expression at each | outside parentheses. It reports false if the
// parentheses don't match.
func splitAlternatives(p string) (parts []string, ok bool) {
	depth, begin := 0, 0
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth < 0 {
				return nil, false
			}
		case '|':
			if depth == 0 {
				parts = append(parts, p[begin:i])
				begin = i + 1
			}
		}
	}
	return append(parts, p[begin:]), depth == 0
}

// literal returns the text that an expression without operators matches. It treats a dot as text,
// because nobody escapes the dots in names.
func literal(p string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		c := p[i]
		if c == '\\' {
			if i++; i == len(p) || isWord(p[i]) {
				return "", false // such as \d
			}
			c = p[i]
		} else if strings.IndexByte("*+?()[]{}^$|", c) >= 0 {
			return "", false
		}
		if c < ' ' || c == 0x7f {
			return "", false
		}
		b.WriteByte(c)
	}
	return b.String(), true
}

func isWord(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c == '_' || c >= 0x80
}

// parseURLPattern parses an expression over paths. It returns the only path that matches, or the
// prefix of all that do. An expression that ends with .* but has no ^ is matched from the beginning
// of the path, because that is what its senders mean.
func parseURLPattern(p string) (path string, exact bool, err error) {
	if matchesAll(p) || p == "/" || p == "^/" {
		return "/", false, nil
	}
	rest, anchored := strings.CutPrefix(p, "^")
	rest, ends := strings.CutSuffix(rest, "$")
	rest, open := strings.CutSuffix(rest, ".*")
	path, ok := literal(rest)
	if !ok || !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "# ") {
		return "", false, fmt.Errorf("the expression %q can't be expressed exactly: want .*, ^/prefix, /prefix.* or ^/path$", p)
	}
	switch {
	case open:
		return path, false, nil
	case anchored:
		return path, ends, nil
	}
	return "", false, fmt.Errorf("the expression %q matches anywhere in a URL, which can't be expressed: want ^%s or ^%s$", p, path, path)
}
