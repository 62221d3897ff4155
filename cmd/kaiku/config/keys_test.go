package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// keysOf collects the keys of a type and of all types below it, as "Type key", with their paths.
func keysOf(t reflect.Type, path string, out map[string][]string) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Array:
		if t.Kind() != reflect.Pointer {
			path += ".*"
		}
		keysOf(t.Elem(), path, out)
	case reflect.Struct:
		for i := range t.NumField() {
			switch key := t.Field(i).Tag.Get("yaml"); key {
			case "", ",key":
			case ",inline":
				keysOf(t.Field(i).Type, path, out)
			default:
				name := t.Name() + " " + key
				out[name] = append(out[name], path+"."+key)
				keysOf(t.Field(i).Type, path+"."+key, out)
			}
		}
	}
}

// docs/fleet.yaml explains every key. With the commented YAML uncommented, it is a fleet file that
// has exactly the keys of the types.
func TestEveryKeyIsExplained(t *testing.T) {
	text, err := os.ReadFile("../../../docs/fleet.yaml")
	if err != nil {
		t.Fatal(err)
	}
	off := regexp.MustCompile(`(?m)^( *)# ( *)("?[a-z_@]+"?: |"?[a-z_]+:$|- \{)`)
	if n := len(off.FindAll(text, -1)); n < 20 {
		t.Fatalf("only %d keys are behind a #", n)
	}
	all := off.ReplaceAll(text, []byte("$1$2$3"))
	_, zone := fleetText(t)
	dir := t.TempDir()
	writeAll(t, dir, map[string]string{"fleet.yaml": string(all), "example.com.zone": zone})
	f, _, err := Load(filepath.Join(dir, "fleet.yaml"))
	if err != nil {
		t.Fatalf("with all keys it is not a fleet file: %v", err)
	}
	index := regexp.MustCompile(`\[\d+\]`)
	seen := map[string]bool{}
	for path := range f.file.at {
		path = "." + index.ReplaceAllString(path, ".*")
		for _, n := range f.Nodes {
			path = strings.Replace(path, ".nodes."+n.Name, ".nodes.*", 1)
		}
		for _, name := range []string{"www", "@"} {
			path = strings.Replace(path, ".edges."+name, ".edges.*", 1)
		}
		seen[path] = true
	}
	keys := map[string][]string{}
	keysOf(reflect.TypeFor[Fleet](), "", keys)
	if len(keys) < 90 {
		t.Fatalf("only %d keys", len(keys))
	}
	for _, paths := range keys {
		if !slices.ContainsFunc(paths, func(p string) bool { return seen[p] }) {
			t.Errorf("docs/fleet.yaml lacks the key %s", paths)
		}
	}
}
