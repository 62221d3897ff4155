package origin

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestArrived looks whether a body has arrived before it has, and reads on after that.
func TestArrived(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(map[bool]string{false: "plain", true: "TLS"}[secure], func(t *testing.T) {
			t.Parallel()
			const looks = 20 * time.Millisecond
			more := make(chan struct{})
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "9")
				_, _ = io.WriteString(w, "one")
				_ = http.NewResponseController(w).Flush()
				<-more
				_, _ = io.WriteString(w, "twoend")
			}))
			var trust *tls.Config
			if secure {
				s.StartTLS()
				trust = s.Client().Transport.(*http.Transport).TLSClientConfig
			} else {
				s.Start()
			}
			defer s.Close()
			p := startPool(t, &Pool{Servers: []Server{serverAt(t, s.URL)}, TLS: trust, SNI: "example.com",
				Log: discardLog})
			resp, err := p.Fetch(request(t, "GET", "/", ""), FetchOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if !Arrived(resp.Body, 0, looks) || Arrived(resp.Body, 9, looks) {
				t.Error("a part of the body counts as the whole, or nothing as something")
			}
			go func() {
				pause := time.NewTimer(2 * looks) // so that a deadline that is left over would end the body
				<-pause.C
				close(more)
			}()
			if got, err := io.ReadAll(resp.Body); err != nil || string(got) != "onetwoend" {
				t.Errorf("read %q, %v", got, err)
			}
			if Arrived(resp.Body, 1, looks) {
				t.Error("more than the body has arrived")
			}
			if resp, err = p.Fetch(request(t, "GET", "/", ""), FetchOptions{}); err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if !Arrived(resp.Body, 9, time.Minute) {
				t.Error("the whole body has not arrived")
			}
			if got, err := io.ReadAll(resp.Body); err != nil || string(got) != "onetwoend" {
				t.Errorf("read %q, %v", got, err)
			}
		})
	}
}
