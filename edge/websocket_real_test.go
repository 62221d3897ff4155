//go:build real

package edge

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// socketPage opens a WebSocket once the page is there, and reports what comes of it.
const socketPage = `<!doctype html><script>
addEventListener("load", () => {
  const socket = new WebSocket("wss://" + location.host + "/socket", "chat");
  const report = (what) => fetch("/result", { method: "POST", body: what });
  socket.onopen = () => socket.send("hello");
  socket.onmessage = (m) => report(socket.protocol + ": " + m.data);
  socket.onerror = () => report("an error");
});
</script>`

// readText reads a short text frame of a client (RFC 6455, 5.2).
func readText(r io.Reader) ([]byte, error) {
	var head [6]byte // opcode, length, mask
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	text := make([]byte, head[1]&0x7f)
	_, err := io.ReadFull(r, text)
	for i := range text {
		text[i] ^= head[2+i%4]
	}
	return text, err
}

// A browser opens a WebSocket on the connection of HTTP/2 by which it got the page.
func TestRealWebSocket(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal(err)
	}
	results := make(chan string, 1)
	e := newSecure(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/socket":
			switchTo(t, w, r, func(rw io.ReadWriter) {
				in := bufio.NewReader(rw)
				text, err := readText(in)
				if err != nil {
					t.Errorf("the origin gets no message: %v", err)
				}
				text = append(text, " over "+r.Header.Get("Via")...)
				_, _ = rw.Write(append([]byte{0x81, byte(len(text))}, text...))
				_, _ = io.Copy(io.Discard, in) // up to the end
			})
		case "/result":
			b, _ := io.ReadAll(io.LimitReader(r.Body, 1<<10))
			results <- string(b)
		default:
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, socketPage)
		}
	}, 1)
	_, port, _ := net.SplitHostPort(e.SecureAddr().String())
	spki := sha256.Sum256(e.Certificates.Files()[0].Leaf.RawSubjectPublicKeyInfo)
	browser := exec.CommandContext(t.Context(), chromium, "--headless=new", "--no-sandbox", "--disable-gpu",
		"--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--user-data-dir="+t.TempDir(),
		"--host-resolver-rules=MAP www.example 127.0.0.1",
		"--ignore-certificate-errors-spki-list="+base64.StdEncoding.EncodeToString(spki[:]),
		"--remote-debugging-port=0", "https://www.example:"+port+"/")
	browser.Stdout, browser.Stderr = t.Output(), t.Output()
	browser.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it has children
	if err := browser.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = syscall.Kill(-browser.Process.Pid, syscall.SIGKILL)
		_ = browser.Wait()
	}()
	select {
	case got := <-results:
		if want := "chat: hello over 2 hel1"; got != want {
			t.Errorf("the page reports %q, want %q", got, want)
		}
	case <-time.After(time.Minute):
		t.Fatal("the page reports nothing")
	}
}
