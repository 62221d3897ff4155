package config

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/words"
)

// yamlDoc decodes a document into a struct and records the position of every value. Unlike
// yaml.Unmarshal, it does not stop at the first error: it reports all errors of a file at once.
type yamlDoc struct {
	name    string
	lines   []string
	at      map[string]*token.Position // by path, such as sites[0].hosts[1]
	anchors map[string]ast.Node
	failed  map[string]bool // paths whose values did not decode: they get no further errors
	errs    []error
	warns   []*fileError
}

// fileError is an error or a warning about a place in a file.
type fileError struct {
	file      string
	line, col int
	msg       string
	source    string // the text of the line; "" means that it is not shown
}

func (e *fileError) Error() string { return e.text("") }

// text returns the error or warning as a terminal shows it. kind stands before the message.
func (e *fileError) text(kind string) string {
	s := fmt.Sprintf("%s:%d:%d: %s%s", e.file, e.line, e.col, kind, e.msg)
	if e.source == "" {
		return s
	}
	n := strconv.Itoa(e.line)
	return s + "\n    " + n + " | " + e.source + "\n    " + strings.Repeat(" ", len(n)) + " | " + strings.Repeat(" ",
		max(0, e.col-1)) + "^"
}

// decodeYAML decodes text into v, a pointer to a struct. The result has the errors.
func decodeYAML(name string, text []byte, v any) *yamlDoc {
	d := &yamlDoc{name: name, at: map[string]*token.Position{}, anchors: map[string]ast.Node{},
		failed: map[string]bool{}}
	body := d.parse(text)
	if body == nil {
		d.failed[""] = true
		return d
	}
	d.decode("", body, reflect.ValueOf(v).Elem())
	return d
}

// parent returns the path of the mapping or list that holds a path.
func parent(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }

// errorf adds an error about the value at a path, or at its nearest parent that the file has.
// A path that did not decode gets no further error.
func (d *yamlDoc) errorf(path, format string, a ...any) {
	if !d.spoilt(path) {
		d.errorAt(d.position(path), "%s", inPath(path, format, a...))
	}
}

// warnf adds a warning, for a value that works but is hardly meant.
func (d *yamlDoc) warnf(path, format string, a ...any) {
	if !d.spoilt(path) {
		d.warns = append(d.warns, d.note(d.position(path), inPath(path, format, a...)))
	}
}

// secretErrorf is errorf without the text of the line, because that has a secret in it.
func (d *yamlDoc) secretErrorf(path, format string, a ...any) {
	if !d.spoilt(path) {
		e := d.note(d.position(path), inPath(path, format, a...))
		e.source = ""
		d.errs = append(d.errs, e)
	}
}

// failAt adds the error of a value that does not decode.
func (d *yamlDoc) failAt(pos *token.Position, path, format string, a ...any) {
	d.failed[path] = true
	d.errorAt(pos, "%s", inPath(path, format, a...))
}

func inPath(path, format string, a ...any) string {
	if path == "" {
		return fmt.Sprintf(format, a...)
	}
	return path + ": " + fmt.Sprintf(format, a...)
}

// spoilt reports whether the value at a path, or one of its parents, did not decode.
func (d *yamlDoc) spoilt(path string) bool {
	for p := path; p != ""; p = parent(p) {
		if d.failed[p] {
			return true
		}
	}
	return d.failed[""]
}

// position returns the position of the value at a path, or of its nearest parent that the file has.
func (d *yamlDoc) position(path string) *token.Position {
	for p := path; ; p = parent(p) {
		if pos := d.at[p]; pos != nil {
			return pos
		}
		if p == "" {
			return &token.Position{Line: 1, Column: 1}
		}
	}
}

func (d *yamlDoc) errorAt(pos *token.Position, format string, a ...any) {
	d.errs = append(d.errs, d.note(pos, fmt.Sprintf(format, a...)))
}

func (d *yamlDoc) note(pos *token.Position, msg string) *fileError {
	return &fileError{file: d.name, line: pos.Line, col: pos.Column, msg: msg, source: d.line(pos.Line)}
}

// failure returns all errors, or nil, sorted by line. Those of other files come last.
func (d *yamlDoc) failure() error {
	slices.SortStableFunc(d.errs, func(a, b error) int {
		var x, y *fileError
		if !errors.As(a, &x) || !errors.As(b, &y) || x.file != y.file {
			return 0
		}
		return x.line - y.line
	})
	slices.SortStableFunc(d.warns, func(a, b *fileError) int {
		if a.file == b.file {
			return a.line - b.line
		}
		switch d.name {
		case a.file:
			return -1
		case b.file:
			return 1
		}
		return cmp.Compare(a.file, b.file)
	})
	return errors.Join(d.errs...)
}

// line returns a line of the file, counted from 1, or "" if there is none.
func (d *yamlDoc) line(n int) string {
	if n < 1 || n > len(d.lines) {
		return ""
	}
	return d.lines[n-1]
}

// decode sets v to the value of a node.
func (d *yamlDoc) decode(path string, n ast.Node, v reflect.Value) {
	switch x := n.(type) {
	case *ast.AnchorNode:
		d.anchors[x.Name.GetToken().Value] = x.Value
		n = x.Value
	case *ast.AliasNode:
		name := x.Value.GetToken().Value
		if n = d.anchors[name]; n == nil {
			d.failAt(x.GetToken().Position, path,
				"write \"*%s\" in quotes: without them * begins a reference, and nothing here is called &%s", name,
				name)
			return
		}
	case *ast.TagNode:
		d.failAt(x.GetToken().Position, path, "the tag %s says nothing here: leave it out, or write the text in quotes",
			x.GetToken().Value)
		return
	}
	if d.at[path] == nil {
		d.at[path] = start(n).Position
	}
	if _, ok := n.(*ast.NullNode); ok {
		return
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if s, ok := n.(ast.ScalarNode); ok {
		d.scalar(path, s, v)
		return
	}
	_, isText := v.Addr().Interface().(encoding.TextUnmarshaler)
	switch x := n.(type) {
	case *ast.MappingNode:
		switch {
		case v.Kind() == reflect.Struct && (!isText || v.NumField() > 1):
			d.structure(path, x.Values, v)
			return
		case v.Kind() == reflect.Map:
			d.mapping(path, x.Values, v)
			return
		case v.Kind() == reflect.Slice && keyField(v.Type().Elem()) >= 0:
			d.keyed(path, x.Values, v)
			return
		}
	case *ast.SequenceNode:
		if v.Kind() == reflect.Slice && keyField(v.Type().Elem()) < 0 {
			v.Set(reflect.MakeSlice(v.Type(), len(x.Values), len(x.Values)))
		}
		if v.Kind() == reflect.Array && v.Len() == len(x.Values) || v.Kind() == reflect.Slice &&
			v.Len() == len(x.Values) {
			for i, e := range x.Values {
				d.decode(fmt.Sprintf("%s[%d]", path, i), e, v.Index(i))
			}
			return
		}
	}
	if tok := start(n); strings.HasPrefix(tok.Value, "-") && v.Kind() == reflect.Slice {
		d.failAt(tok.Position, path, "%q has no space after the -: an entry of a list begins with one", tok.Value)
		return
	}
	d.failAt(start(n).Position, path, "want %s", wanted(v.Type()))
}

// start returns the first token of a node. A block mapping's own token is its first colon.
func start(n ast.Node) *token.Token {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return m.Values[0].Key.GetToken()
	}
	return n.GetToken()
}

// keyField returns the index of the struct field that takes the key of its mapping entry, or -1.
func keyField(t reflect.Type) int {
	if t.Kind() != reflect.Struct {
		return -1
	}
	for i := range t.NumField() {
		if t.Field(i).Tag.Get("yaml") == ",key" {
			return i
		}
	}
	return -1
}

// entries calls use for each entry of a mapping. A duplicate key is an error.
func (d *yamlDoc) entries(path string, values []*ast.MappingValueNode,
	use func(key, path string, e *ast.MappingValueNode)) {
	seen := map[string]int{}
	for _, e := range values {
		tok := e.Key.GetToken()
		p := below(path, tok.Value)
		if why := unprintable(tok.Value); why != "" {
			d.errorAt(tok.Position, "%s", inPath(path, "the key %q %s", tok.Value, why))
			continue
		}
		if line := seen[tok.Value]; line > 0 {
			d.errorAt(tok.Position, "%s: this key stands here twice, first on line %d", p, line)
			continue
		}
		seen[tok.Value] = tok.Position.Line
		d.at[p] = tok.Position
		use(tok.Value, p, e)
	}
}

// below returns the path of a key in the mapping at a path.
func below(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func (d *yamlDoc) structure(path string, values []*ast.MappingValueNode, v reflect.Value) {
	d.entries(path, values, func(key, p string, e *ast.MappingValueNode) {
		field, known := findField(v, key)
		if !field.IsValid() {
			near := words.Nearest(key, known)
			d.errorAt(e.Key.GetToken().Position, "%s: unknown key; %s", p, unknownKey(key, near, known, v.Type()))
			if near == "" || slices.ContainsFunc(values,
				func(e *ast.MappingValueNode) bool { return e.Key.GetToken().Value == near }) {
				return
			}
			// Decode it as the key that was probably meant. That way its own errors are reported
			// too, and the other key is not reported as missing.
			p = below(path, near)
			d.at[p] = e.Key.GetToken().Position
			field, _ = findField(v, near)
		}
		d.decode(p, e.Value, field)
	})
}

// unknownKey returns what to do about a key that a struct does not have.
func unknownKey(key, near string, known []string, t reflect.Type) string {
	if near == "" {
		for i := range t.NumField() {
			inner := t.Field(i).Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if name := t.Field(i).Tag.Get("yaml"); inner.Kind() == reflect.Struct && !strings.HasPrefix(name, ",") {
				if f, _ := findField(reflect.New(inner).Elem(), key); f.IsValid() {
					return "it belongs below " + name
				}
			}
		}
	}
	return words.Suggest(key, known)
}

// findField returns the struct field with a key, or else all keys of the struct. Fields of an
// inline struct count as fields of the outer one.
func findField(v reflect.Value, key string) (field reflect.Value, known []string) {
	for i := range v.NumField() {
		switch name := v.Type().Field(i).Tag.Get("yaml"); name {
		case key:
			return v.Field(i), nil
		case ",inline":
			inner, more := findField(v.Field(i), key)
			if inner.IsValid() {
				return inner, nil
			}
			known = append(known, more...)
		case "", ",key":
		default:
			known = append(known, name)
		}
	}
	return reflect.Value{}, known
}

func (d *yamlDoc) mapping(path string, values []*ast.MappingValueNode, v reflect.Value) {
	v.Set(reflect.MakeMap(v.Type()))
	d.entries(path, values, func(key, p string, e *ast.MappingValueNode) {
		k := reflect.New(v.Type().Key())
		if t, ok := k.Interface().(encoding.TextUnmarshaler); ok {
			if err := t.UnmarshalText([]byte(key)); err != nil {
				d.errorAt(e.Key.GetToken().Position, "%s", inPath(path, "%s", refusal(err, key, v.Type().Key())))
				return
			}
		} else {
			k.Elem().SetString(key)
		}
		value := reflect.New(v.Type().Elem()).Elem()
		d.decode(p, e.Value, value)
		v.SetMapIndex(k.Elem(), value)
	})
}

// keyed decodes a mapping into a slice of structs, in the order of the file.
func (d *yamlDoc) keyed(path string, values []*ast.MappingValueNode, v reflect.Value) {
	d.entries(path, values, func(key, p string, e *ast.MappingValueNode) {
		item := reflect.New(v.Type().Elem()).Elem()
		item.Field(keyField(item.Type())).SetString(key)
		d.decode(p, e.Value, item)
		v.Set(reflect.Append(v, item))
	})
}

func (d *yamlDoc) scalar(path string, n ast.ScalarNode, v reflect.Value) {
	text := n.GetToken().Value
	if l, ok := n.(*ast.LiteralNode); ok {
		text = l.Value.Value
	}
	if strings.Contains(text, "-----BEGIN ") { // its text is not shown: it may be a private key
		d.secretErrorf(path, "a key or a certificate stands here, and the name of a file is wanted: write it to one, and name that")
		d.failed[path] = true
		return
	}
	if why := unprintable(text); why != "" && v.Type() != reflect.TypeFor[Text]() {
		d.failAt(n.GetToken().Position, path, "%q %s", text, why)
		return
	}
	var err error
	t, isText := v.Addr().Interface().(encoding.TextUnmarshaler)
	switch {
	case isText:
		err = t.UnmarshalText([]byte(text))
	case v.Kind() == reflect.String:
		v.SetString(text)
	case v.Kind() == reflect.Int:
		var i int64
		i, err = strconv.ParseInt(text, 10, 32)
		v.SetInt(i)
	case v.Kind() == reflect.Float64:
		var f float64
		f, err = strconv.ParseFloat(text, 64)
		v.SetFloat(f)
	case v.Kind() == reflect.Bool && (text == "true" || text == "false"):
		v.SetBool(text == "true")
	default:
		err = errors.New("another kind of value")
	}
	if err != nil {
		d.failAt(n.GetToken().Position, path, "%s", refusal(err, text, v.Type()))
	}
}

// refusal returns the message for a text that a type does not accept: the own message of a type of
// this package, or else what is wanted. So no message of a library reaches the operator.
func refusal(err error, text string, t reflect.Type) string {
	var own formError
	if errors.As(err, &own) {
		return own.Error()
	}
	return fmt.Sprintf("want %s, not %q", wanted(t), text)
}

// wanted describes a type in terms of YAML.
func wanted(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[Location]():
		return "[latitude, longitude], as [60.17, 24.94]"
	case t == reflect.TypeFor[netip.Addr]():
		return "an IP address, such as 203.0.113.10 or 2001:db8::10"
	case t == reflect.TypeFor[netip.Prefix]():
		return "a network, such as 10.0.0.0/8 or 2001:db8::/32"
	case t == reflect.TypeFor[AddressList]():
		return `one address, or a list of them, as ["203.0.113.10:53", "[2001:db8::10]:53"]`
	case t.Kind() == reflect.Slice && keyField(t.Elem()) < 0:
		return "a list, as [a, b]"
	case t == reflect.TypeFor[OriginServer]():
		return "a URL, or a mapping with url"
	case t == reflect.TypeFor[OriginURL]():
		return "a URL"
	case t.Kind() == reflect.Map, t.Kind() == reflect.Slice, t.Kind() == reflect.Struct:
		return "a mapping, as { key: value }"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Int:
		return "a whole number"
	case t.Kind() == reflect.Float64:
		return "a number"
	}
	return "a text"
}
