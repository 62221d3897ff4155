//go:build real

package edge

import (
	"os/exec"
	"strings"
	"testing"
)

// curl decodes what it gets, and validates it by the tag that it was given.
func TestRealCompress(t *testing.T) {
	body := script(1)
	e := newEdge(t, static(body, scriptFields...), coding)
	curl := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("curl",
			append(args, "-sS", "-H", "Host: www.example", "http://"+e.Addr().String()+"/a.js")...).Output()
		if err != nil {
			t.Fatalf("curl %q: %v", args, err)
		}
		return string(out)
	}
	for range 2 {
		if curl("--compressed") != body {
			t.Fatal("curl got another body")
		}
		e.settle()
		e.settleCodings()
	}
	if curl("--compressed") != body {
		t.Error("curl decodes another body")
	}
	head := strings.ToLower(curl("--compressed", "-I"))
	if !strings.Contains(head, "content-encoding: ") || !strings.Contains(head, "vary: accept-encoding") {
		t.Errorf("HEAD got\n%s", head)
	}
	files := t.TempDir()
	for range 2 {
		if got := curl("--compressed", "--etag-save", files+"/tag", "--etag-compare", files+"/tag", "-o", files+"/a.js",
			"-w", "%{http_code}"); got != "200" && got != "304" {
			t.Errorf("curl with its tag got %s", got)
		} else if t.Log(got); got == "304" {
			return
		}
	}
	t.Error("the tag that curl kept is never confirmed")
}
