package geodns

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// readFiles reads a zone from files by name. The main file is db.
func readFiles(files map[string]string) (*Zone, []ZoneError) {
	return ReadZone("example.com", "db", func(name string) (string, error) {
		text, ok := files[name]
		if !ok {
			return "", errors.New("no such file")
		}
		return text, nil
	})
}

// An included file starts with the origin and the owner at its $INCLUDE, or with the origin given
// there. It changes neither for the including file. Its $TTL stays in effect.
func TestInclude(t *testing.T) {
	z, errs := readFiles(map[string]string{
		"db":          head + "a A 192.0.2.1\n$INCLUDE one.inc\n  A 192.0.2.3\n$INCLUDE \"sub/two.inc\" sub ; comment\nd A 192.0.2.6\n",
		"one.inc":     "  A 192.0.2.2\n$ORIGIN x.example.com.\n$TTL 60\nb A 192.0.2.4",
		"sub/two.inc": "@ A 192.0.2.5\n$include one.inc\n",
	})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	want := []string{
		"a.example.com. 60 IN A 192.0.2.1", "a.example.com. 60 IN A 192.0.2.2", "a.example.com. 60 IN A 192.0.2.3",
		"b.x.example.com. 60 IN A 192.0.2.4", "d.example.com. 60 IN A 192.0.2.6",
		"sub.example.com. 60 IN A 192.0.2.2", "sub.example.com. 60 IN A 192.0.2.5",
	}
	got := slices.DeleteFunc(records(t, z), func(s string) bool { return strings.HasPrefix(s, "example.com.") })
	if !slices.Equal(got, want) {
		t.Errorf("records are\n%s", strings.Join(got, "\n"))
	}
	_, line := z.Address("d.example.com")
	if file, at := z.At(line); file != "db" || at != 8 {
		t.Errorf("d is at %s:%d", file, at)
	}
	_, line = z.Address("b.x.example.com")
	if file, at := z.At(line); file != "one.inc" || at != 4 {
		t.Errorf("b.x is at %s:%d", file, at)
	}
}

func TestIncludeErrors(t *testing.T) {
	for _, test := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"missing", map[string]string{"db": head + "$INCLUDE x\na A y\n"},
			[]string{"db:4:1: include x: no such file", `db:5:5: A wants an IPv4 address: "y" does not fit`}},
		{"within", map[string]string{"db": head + "a CNAME b\n$INCLUDE x\nc A y\n", "x": "\n\na A 192.0.2.1\nb A z\n"},
			[]string{
				`db:6:5: A wants an IPv4 address: "y" does not fit`,
				"x:3:1: A beside the CNAME of line 4 of db at a.example.com.",
				`x:4:5: A wants an IPv4 address: "z" does not fit`,
			}},
		{"itself", map[string]string{"db": head + "$INCLUDE x\n", "x": "a A 192.0.2.1\n$INCLUDE x\n"},
			[]string{"x:2:1: $INCLUDE goes deeper than 10 files"}},
		{"without a file", map[string]string{"db": head + "$INCLUDE\n$INCLUDE a b c\n"}, []string{
			"db:4:1: $INCLUDE wants a file of the zone's folder", "db:5:1: $INCLUDE wants a file of the zone's folder",
		}},
		{"bad origin", map[string]string{"db": head + "$INCLUDE x a..b\n", "x": ""},
			[]string{`db:4:12: bad owner name: "a..b"`}},
		{"no SOA", map[string]string{"db": "$INCLUDE x\n", "x": "$TTL 60\n@ NS ns1\n"},
			[]string{"db:1:1: no SOA at example.com."}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, errs := readFiles(test.files)
			if len(errs) != len(test.want) {
				t.Fatalf("errors are %v\nwant %v", errs, test.want)
			}
			for i, err := range errs {
				if !strings.HasPrefix(err.Error(), test.want[i]) {
					t.Errorf("error is %s, want %s", err, test.want[i])
				}
				if lines := strings.Split(test.files[err.File], "\n"); err.Text != lines[err.Line-1] {
					t.Errorf("text is %q", err.Text)
				}
			}
		})
	}
}

// FuzzInclude reads files that include each other and themselves. Reading must end, and errors must
// have positions that exist.
func FuzzInclude(f *testing.F) {
	f.Add(head+"$INCLUDE a\n$INCLUDE b x\n", "$INCLUDE b\n", "$INCLUDE a\n")
	f.Add(head+"$INCLUDE a .\n", "@ A 192.0.2.1\n $INCLUDE", "")
	f.Fuzz(func(t *testing.T, db, a, b string) {
		files := map[string]string{"db": db, "a": a, "b": b}
		for _, text := range files {
			if strings.Contains(strings.ToUpper(text), "GENERATE") {
				return
			}
		}
		z, errs := readFiles(files)
		if (z == nil) != (len(errs) > 0) {
			t.Fatalf("zone %v and errors %v", z, errs)
		}
		for _, err := range errs {
			if text := files[err.File]; err.Line < 1 || err.Line > strings.Count(text, "\n")+1 || err.Col < 1 {
				t.Fatalf("%v of %q", err, text)
			}
		}
	})
}
