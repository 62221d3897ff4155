package origin_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"

	"github.com/kaiku-cdn/kaiku/origin"
)

// A server that answers 503 is retried elsewhere.
func ExamplePool() {
	var servers []origin.Server
	for _, status := range []int{503, 200} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			fmt.Fprint(w, "status ", status)
		}))
		defer s.Close()
		u, err := url.Parse(s.URL)
		if err != nil {
			panic(err)
		}
		servers = append(servers, origin.Server{URL: u})
	}
	p := &origin.Pool{Servers: servers, Retries: 1, Log: slog.New(slog.DiscardHandler)}
	if err := p.Start(); err != nil {
		panic(err)
	}
	defer p.Close()

	r := httptest.NewRequest("GET", "/style.css", nil)
	r.RequestURI = ""
	resp, err := p.Fetch(r, origin.FetchOptions{})
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Printf("%s, %v\n", body, err)
	// Output: status 200, <nil>
}
