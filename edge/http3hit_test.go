package edge

import (
	"io"
	"net/http"
	"testing"

	"github.com/quic-go/quic-go/http3"

	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// Hits over HTTP/3 are answered by the lane as they are by the ordinary path.
func TestHitsOfHTTP3(t *testing.T) {
	t.Parallel()
	e := newSecure(t, originOfHits, 1)
	ordinary := newSecure(t, originOfHits, 1, func(s *Server, _ *site.Site) { s.NoHitLane = true })
	client, other := e.newClientOf(protoHTTP3), ordinary.newClientOf(protoHTTP3)
	for _, c := range http2Hits {
		for range 3 {
			answerHit(t, client, "GET", c.path, c.fields...)
			answerHit(t, other, "GET", c.path, c.fields...)
		}
		wantAlike(t, e, client, other, c)
	}
	if n := e.front.Active(); n != 0 {
		t.Errorf("%d requests are under way", n)
	}
}

// Over HTTP/3 an urgent response is sent before the rest of one that is not (RFC 9218).
func TestPrioritiesOfHTTP3(t *testing.T) {
	t.Parallel()
	e := newSecure(t, originOfHits, 1)
	warm := e.newClientOf(protoHTTP3)
	for range 3 {
		answerHit(t, warm, "GET", largePath)
		answerHit(t, warm, "GET", "/a")
	}
	client := e.newClientOf(protoHTTP3)
	const window = 32 << 10 // of the connection: the large response fills it
	conf := client.Transport.(*http3.Transport).QUICConfig
	conf.InitialConnectionReceiveWindow, conf.MaxConnectionReceiveWindow = window, window
	get := func(path, priority string) (*http.Response, error) {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "https://www.example"+path, nil)
		if err != nil {
			return nil, err
		}
		r.Header.Set("Priority", priority)
		return client.Do(r)
	}
	large, err := get(largePath, "u=7")
	if err != nil {
		t.Fatal(err)
	}
	defer large.Body.Close()
	before := counted(t, e, "kaiku_edge_hit_lane_total")
	done := make(chan error, 1)
	go func() {
		urgent, err := get("/a", "u=0")
		if err == nil {
			_, err = io.Copy(io.Discard, urgent.Body)
			urgent.Body.Close()
		}
		done <- err
	}()
	testwait.Until(t, "the urgent response is asked for", func() bool {
		return counted(t, e, "kaiku_edge_hit_lane_total") > before
	})
	read, total := int64(0), large.ContentLength
	for over := false; !over && read < total; {
		n, err := io.CopyN(io.Discard, large.Body, 1<<10)
		if read += n; err != nil && err != io.EOF {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			over = true
			if err != nil {
				t.Error(err)
			}
		default:
		}
	}
	if read > total/2 {
		t.Errorf("the urgent response ends when %d bytes of %d of the other have come", read, total)
	}
}
