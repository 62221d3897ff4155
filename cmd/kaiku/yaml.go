package main

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// yamlDoc decodes a document into a struct and remembers where everything stands. Unlike yaml.Unmarshal it does not end at
// the first error, so that all of a file's can be told at once.
type yamlDoc struct {
	name    string
	lines   []string
	at      map[string]*token.Position // by path, as sites[0].hosts[1]
	anchors map[string]ast.Node
	errs    []error
}

// fileError is an error at a place in a file.
type fileError struct {
	file      string
	line, col int
	msg       string
	source    string // the line
}

func (e *fileError) Error() string {
	s := fmt.Sprintf("%s:%d:%d: %s", e.file, e.line, e.col, e.msg)
	if e.source == "" {
		return s
	}
	n := strconv.Itoa(e.line)
	return s + "\n    " + n + " | " + e.source + "\n    " + strings.Repeat(" ", len(n)) + " | " + strings.Repeat(" ", max(0, e.col-1)) + "^"
}

// decodeYAML decodes text into a pointer to a struct; errors are in the document that it returns.
func decodeYAML(name string, text []byte, v any) *yamlDoc {
	d := &yamlDoc{name: name, lines: strings.Split(string(text), "\n"), at: map[string]*token.Position{}, anchors: map[string]ast.Node{}}
	f, err := parser.ParseBytes(text, 0)
	if err != nil {
		var y yaml.Error
		if errors.As(err, &y) && y.GetToken() != nil {
			d.errorAt(y.GetToken().Position, "%s", y.GetMessage())
		} else {
			d.errs = append(d.errs, fmt.Errorf("%s: %w", name, err))
		}
		return d
	}
	if len(f.Docs) != 1 || f.Docs[0].Body == nil {
		d.errs = append(d.errs, fmt.Errorf("%s: want one YAML document, there are %d", name, len(f.Docs)))
		return d
	}
	d.decode("", f.Docs[0].Body, reflect.ValueOf(v).Elem())
	return d
}

// errorf adds an error about what stands at a path, or at the nearest path above that stands somewhere.
func (d *yamlDoc) errorf(path, format string, a ...any) {
	for p := path; ; p = p[:max(0, strings.LastIndexAny(p, ".["))] {
		if pos := d.at[p]; pos != nil {
			d.errorAt(pos, path+": "+format, a...)
			return
		}
		if p == "" {
			d.errorAt(&token.Position{Line: 1, Column: 1}, path+": "+format, a...)
			return
		}
	}
}

func (d *yamlDoc) errorAt(pos *token.Position, format string, a ...any) {
	e := &fileError{file: d.name, line: pos.Line, col: pos.Column, msg: fmt.Sprintf(format, a...)}
	if pos.Line >= 1 && pos.Line <= len(d.lines) {
		e.source = d.lines[pos.Line-1]
	}
	d.errs = append(d.errs, e)
}

// decode sets v to what n says.
func (d *yamlDoc) decode(path string, n ast.Node, v reflect.Value) {
	switch x := n.(type) {
	case *ast.AnchorNode:
		d.anchors[x.Name.GetToken().Value] = x.Value
		n = x.Value
	case *ast.AliasNode:
		if n = d.anchors[x.Value.GetToken().Value]; n == nil {
			d.errorAt(x.GetToken().Position, "%s: no anchor has this name", path)
			return
		}
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
		if v.Kind() == reflect.Array && v.Len() == len(x.Values) || v.Kind() == reflect.Slice && v.Len() == len(x.Values) {
			for i, e := range x.Values {
				d.decode(fmt.Sprintf("%s[%d]", path, i), e, v.Index(i))
			}
			return
		}
	}
	d.errorAt(start(n).Position, "%s: want %s", path, wanted(v.Type()))
}

// start is the first token of a node; a mapping's own is its first colon.
func start(n ast.Node) *token.Token {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return m.Values[0].Key.GetToken()
	}
	return n.GetToken()
}

// keyField finds the field of a struct that holds its key in a mapping, or -1.
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

// entries calls use for each entry of a mapping with its path, and refuses keys that come twice.
func (d *yamlDoc) entries(path string, values []*ast.MappingValueNode, use func(key, path string, e *ast.MappingValueNode)) {
	seen := map[string]bool{}
	for _, e := range values {
		tok := e.Key.GetToken()
		p := tok.Value
		if path != "" {
			p = path + "." + tok.Value
		}
		if seen[tok.Value] {
			d.errorAt(tok.Position, "%s: this key stands here twice", p)
			continue
		}
		seen[tok.Value] = true
		d.at[p] = tok.Position
		use(tok.Value, p, e)
	}
}

func (d *yamlDoc) structure(path string, values []*ast.MappingValueNode, v reflect.Value) {
	d.entries(path, values, func(key, p string, e *ast.MappingValueNode) {
		field, known := findField(v, key)
		if !field.IsValid() {
			d.errorAt(e.Key.GetToken().Position, "%s: unknown key; known here: %s", p, strings.Join(known, ", "))
			return
		}
		d.decode(p, e.Value, field)
	})
}

// findField finds the field of a struct with a key, or returns all keys that there are. The fields of an inline struct count as its own.
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
				d.errorAt(e.Key.GetToken().Position, "%s: %v", path, err)
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

// keyed decodes a mapping into a slice, in the order of the file.
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
		d.errorAt(n.GetToken().Position, "%s: want %s, not %q", path, wanted(v.Type()), text)
		return
	}
	var num *strconv.NumError
	switch {
	case errors.As(err, &num):
		d.errorAt(n.GetToken().Position, "%s: want %s, not %q", path, wanted(v.Type()), text)
	case err != nil:
		d.errorAt(n.GetToken().Position, "%s: %v", path, err)
	}
}

// wanted names a type as a reader of YAML would.
func wanted(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[Location]():
		return "[latitude, longitude]"
	case t.Kind() == reflect.Slice && keyField(t.Elem()) < 0:
		return "a list"
	case t.Kind() == reflect.Map, t.Kind() == reflect.Slice, t.Kind() == reflect.Struct:
		return "a mapping"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Int:
		return "a whole number"
	case t.Kind() == reflect.Float64:
		return "a number"
	}
	return "a text"
}
