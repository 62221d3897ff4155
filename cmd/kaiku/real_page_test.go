//go:build real

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
	"github.com/kaiku-cdn/kaiku/geodns"
)

// tab is a tab of Chromium, which the test drives through a pair of pipes.
type tab struct {
	t       *testing.T
	to      *os.File
	from    *bufio.Reader
	last    int
	session string
}

// openTab starts Chromium and opens a tab.
func openTab(t *testing.T) *tab {
	t.Helper()
	theirIn, ourOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ourIn, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	browser := exec.CommandContext(t.Context(), need(t, "chromium"), "--headless=new", "--no-sandbox", "--disable-gpu",
		"--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--remote-debugging-pipe",
		"--user-data-dir="+t.TempDir(), "about:blank")
	browser.ExtraFiles = []*os.File{theirIn, theirOut}
	browser.Stdout, browser.Stderr = t.Output(), t.Output()
	browser.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it has child processes
	if err := browser.Start(); err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	// What hangs ends with the browser.
	late := time.AfterFunc(2*time.Minute, func() { _ = syscall.Kill(-browser.Process.Pid, syscall.SIGKILL) })
	t.Cleanup(func() {
		late.Stop()
		_ = syscall.Kill(-browser.Process.Pid, syscall.SIGKILL)
		_ = browser.Wait()
		ourOut.Close()
		ourIn.Close()
	})
	b := &tab{t: t, to: ourOut, from: bufio.NewReaderSize(ourIn, 1<<20)}
	var made struct{ TargetID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &made)
	var attached struct{ SessionID string }
	b.call("Target.attachToTarget", map[string]any{"targetId": made.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	b.call("Page.enable", nil, nil)
	return b
}

// call calls a method of Chromium's protocol.
func (b *tab) call(method string, params, result any) {
	b.t.Helper()
	b.last++
	m := map[string]any{"id": b.last, "method": method, "params": params}
	if params == nil {
		m["params"] = map[string]any{}
	}
	if b.session != "" {
		m["sessionId"] = b.session
	}
	text, err := json.Marshal(m)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.to.Write(append(text, 0)); err != nil {
		b.t.Fatal(err)
	}
	for {
		line, err := b.from.ReadBytes(0)
		if err != nil {
			b.t.Fatalf("%s: %v", method, err)
		}
		var answer struct {
			ID     int
			Result json.RawMessage
			Error  json.RawMessage
		}
		if err := json.Unmarshal(bytes.TrimSuffix(line, []byte{0}), &answer); err != nil || answer.ID != b.last {
			continue // an event
		}
		if answer.Error != nil {
			b.t.Fatalf("%s: %s", method, answer.Error)
		}
		if result != nil {
			if err := json.Unmarshal(answer.Result, result); err != nil {
				b.t.Fatal(err)
			}
		}
		return
	}
}

// eval returns the value of an expression as text.
func (b *tab) eval(expression string) string {
	b.t.Helper()
	var out struct {
		Result           struct{ Value any }
		ExceptionDetails json.RawMessage
	}
	b.call("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true},
		&out)
	if out.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", expression, out.ExceptionDetails)
	}
	return fmt.Sprint(out.Result.Value)
}

// until waits until an expression is true.
func (b *tab) until(expression string) {
	b.t.Helper()
	for end := time.Now().Add(40 * time.Second); b.eval(expression) != "true"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("never: %s\n%s", expression, b.eval("document.body.innerText"))
		}
	}
}

// press presses a key.
func (b *tab) press(key string, code int) {
	b.t.Helper()
	down := map[string]any{"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code}
	if key == "Enter" {
		down["text"] = "\r"
	}
	b.call("Input.dispatchKeyEvent", down, nil)
	b.call("Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": key, "code": key,
		"windowsVirtualKeyCode": code}, nil)
}

// tabTo presses the tab key until the expression is true of the focused element, which is e in it.
func (b *tab) tabTo(expression string) {
	b.t.Helper()
	for range 80 {
		if b.eval("(e => !!("+expression+"))(document.activeElement)") == "true" {
			return
		}
		b.press("Tab", 9)
	}
	b.t.Fatalf("the tab key doesn't lead to %s", expression)
}

func (b *tab) write(text string) { b.call("Input.insertText", map[string]any{"text": text}, nil) }

// screen sets the size of the screen, and light or dark.
func (b *tab) screen(width, height int, scheme string) {
	b.call("Emulation.setDeviceMetricsOverride",
		map[string]any{"width": width, "height": height, "deviceScaleFactor": 1,
			"mobile": width < 600}, nil)
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme",
		"value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"}}}, nil)
}

// shoot writes a picture of the screen into the folder of KAIKU_SCREENSHOTS, if that is set.
func (b *tab) shoot(name string) {
	b.t.Helper()
	dir := os.Getenv("KAIKU_SCREENSHOTS")
	if dir == "" {
		return
	}
	b.eval("scrollTo(0, 0)")
	b.until("document.querySelectorAll('#arcs path').length > 5 && /[1-9]/.test(document.querySelector('#rows .num').textContent)")
	var out struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{"format": "png"}, &out)
	picture, err := base64.StdEncoding.DecodeString(out.Data)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// visit looks up the site's name from several countries, and gets objects from all edges, until the
// test ends.
func (f *pageFleet) visit() {
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	f.t.Cleanup(func() {
		cancel()
		work.Wait()
	})
	networks := []string{"193.166.0.0/16", "130.237.0.0/16", "129.187.0.0/16", "151.100.0.0/16", "128.112.0.0/16",
		"143.107.0.0/16", "133.11.0.0/16", "129.94.0.0/16", "146.141.0.0/16", "142.150.0.0/16"}
	work.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			// an answer that doesn't come is asked for again
			_, _ = geodns.Lookup(ctx, f.dns, "www.example.com", netip.MustParsePrefix(networks[n%(1+n%len(networks))]))
			url := fmt.Sprintf("http://%s/%d", f.http[pageNodes[n%3]], n%40)
			r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
			if err == nil {
				r.Host = "www.example.com"
				if resp, err := http.DefaultClient.Do(r); err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
}

// An operator signs in, purges, sees the purge done on all edges, and drains a node, with the
// keyboard only. A token that may only read shows no more than it may.
func TestRealPage(t *testing.T) {
	need(t, "chromium")
	f := startPageFleet(t)
	for _, name := range pageNodes {
		testwait.Until(t, name+" answers", func() bool {
			resp, err := http.Get("http://" + f.admin[name] + "/")
			if err == nil {
				resp.Body.Close()
			}
			return err == nil
		})
	}
	f.visit()
	b := openTab(t)
	b.screen(1280, 900, "light")
	b.call("Page.navigate", map[string]any{"url": "http://" + f.admin["nyc1"] + "/"}, nil)
	b.until("document.activeElement && document.activeElement.id === 'token'")
	b.write("guess")
	b.press("Enter", 13)
	b.until("document.getElementById('signin-error').textContent.includes('wrong')")
	b.eval("document.getElementById('token').value = ''")
	b.write("all-may")
	b.press("Enter", 13)
	b.until("document.querySelectorAll('#rows tr').length === 3")
	if cookie := b.eval("document.cookie"); cookie != "" {
		t.Errorf("a script reads the cookie %q", cookie)
	}
	b.until("document.querySelectorAll('#dots circle').length === 3")
	b.until("[...document.querySelectorAll('#site-rows tr')].length === 2")

	b.tabTo("e.id === 'purge-list'")
	b.write("http://www.example.com/a")
	b.tabTo("e.form && e.form.id === 'purge-form' && e.type === 'submit'")
	b.press("Enter", 13)
	b.until("document.getElementById('purge-state').textContent === 'Done: it is true on all 3 edges.'")
	if got := b.eval("document.getElementById('purge-edges').innerText"); strings.Count(got, ": done") != 3 {
		t.Errorf("the edges are %q", got)
	}

	b.eval("document.getElementById('overview').focus()")
	b.tabTo("e.getAttribute('aria-label') === 'Drain fra1'")
	b.press("Enter", 13)
	b.tabTo("e.id === 'ask-yes'")
	b.press("Enter", 13)
	state := "[...document.querySelectorAll('#rows tr')].find(r => r.cells[0].textContent === 'fra1').cells[1].textContent"
	b.until(state + " === 'draining'")
	b.tabTo("e.getAttribute('aria-label') === 'Undrain fra1'")
	b.press("Enter", 13)
	b.press("Escape", 27)
	b.until("!document.getElementById('ask').open && document.activeElement.getAttribute('aria-label') === 'Undrain fra1'")

	b.eval("document.getElementById('url').focus()")
	b.write("http://www.example.com/none")
	b.press("Enter", 13)
	b.until("document.getElementById('url-result').textContent.includes('not requested')")
	for _, look := range []struct {
		name, scheme  string
		width, height int
	}{{"page-light", "light", 1280, 790}, {"page-dark", "dark", 1280, 790}, {"page-phone", "light", 390, 844}} {
		b.screen(look.width, look.height, look.scheme)
		if got := b.eval("document.documentElement.scrollWidth <= innerWidth"); got != "true" {
			t.Errorf("the page is wider than a screen of %d pixels", look.width)
		}
		b.shoot(look.name)
	}

	b.tabTo("e.id === 'signout'")
	b.press("Enter", 13)
	b.until("document.activeElement && document.activeElement.id === 'token'")
	if got := b.eval("document.querySelectorAll('#rows tr, #dots *, #problems *, #url-result *').length"); got != "0" {
		t.Errorf("after signing out, %s elements of the fleet are left", got)
	}
	b.write("see-only")
	b.press("Enter", 13)
	b.until("document.querySelectorAll('#rows tr').length === 3")
	if got := b.eval("[document.getElementById('purge').hidden, document.querySelectorAll('#rows button:not([hidden])').length].join()"); got != "true,0" {
		t.Errorf("a token that may read sees %s", got)
	}
}
