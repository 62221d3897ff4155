package admin

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/purge"
)

const (
	defaultWarmRate = 10   // URLs a second
	maxWarmRate     = 1000 // the highest rate that a request may have
	maxWarmFailures = 100  // listed in one response
)

// Limits of POST /v1/warm.
const (
	MaxWarmURLs = 100_000 // in one request
	WarmAtOnce  = 8       // URLs that a request fetches at the same time
)

// WarmRequest is the body of POST /v1/warm.
type WarmRequest struct {
	URLs []string `json:"urls"`
	Rate int      `json:"rate,omitempty"` // URLs a second, 1 to 1,000; 0 means 10
}

// WarmResponse is the answer to POST /v1/warm.
type WarmResponse struct {
	Asked  int           `json:"asked"`  // URLs that were fetched, or tried
	Stored int           `json:"stored"` // URLs that are in the store now
	Failed []WarmFailure `json:"failed"` // the first 100 of the others
}

// WarmFailure is why a URL is not in the store.
type WarmFailure struct {
	URL   string `json:"url"`
	Error string `json:"error"`
}

// serveWarm fetches URLs as if clients had requested them. It stops when the request ends.
func (s *Server) serveWarm(w http.ResponseWriter, r *http.Request) {
	if !purge.IsJSON(r.Header) {
		purge.Fail(w, http.StatusUnsupportedMediaType, "want Content-Type: application/json")
		return
	}
	req, err := readWarm(http.MaxBytesReader(w, r.Body, purge.MaxBody))
	if err != nil {
		purge.Fail(w, http.StatusBadRequest, err.Error())
		return
	}
	for _, raw := range req.URLs {
		t, err := httpcache.ParseURL(raw)
		if err != nil {
			continue // the response lists it among those that failed
		}
		of, _ := s.Purger.Sites.Now().Find(t.Host)
		if err := purge.GrantOf(r.Context()).MayTouch(of, t.Host); err != nil {
			purge.Fail(w, http.StatusForbidden, err.Error())
			return
		}
	}
	purge.WriteJSON(w, http.StatusOK, s.Warm(r.Context(), req, r.RemoteAddr))
}

// readWarm reads and checks a request, and sets its defaults.
func readWarm(body io.Reader) (req WarmRequest, err error) {
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	err = d.Decode(&req)
	switch {
	case err != nil:
		return req, fmt.Errorf("read the URLs: %w", err)
	case len(req.URLs) == 0:
		return req, errors.New("warm: no URLs")
	case len(req.URLs) > MaxWarmURLs:
		return req, fmt.Errorf("warm: %d URLs: want at most %d", len(req.URLs), MaxWarmURLs)
	case req.Rate < 0 || req.Rate > maxWarmRate:
		return req, fmt.Errorf("warm: want a rate of 1 to %d a second, not %d", maxWarmRate, req.Rate)
	}
	req.Rate = cmp.Or(req.Rate, defaultWarmRate)
	return req, nil
}

// Warm fetches URLs until all are done or ctx ends. req.Rate must be at least 1. client is the
// client address that origins see.
func (s *Server) Warm(ctx context.Context, req WarmRequest, client string) WarmResponse {
	resp := WarmResponse{Failed: []WarmFailure{}}
	var mu sync.Mutex // guards resp
	var work sync.WaitGroup
	urls := make(chan string)
	for range WarmAtOnce {
		work.Go(func() {
			for raw := range urls {
				err := s.warmOne(ctx, raw, client)
				mu.Lock()
				resp.Asked++
				if err == nil {
					resp.Stored++
				} else if len(resp.Failed) < maxWarmFailures {
					resp.Failed = append(resp.Failed, WarmFailure{raw, err.Error()})
				}
				mu.Unlock()
			}
		})
	}
	tick := time.NewTicker(time.Second / time.Duration(req.Rate))
	defer tick.Stop()
feed:
	for i, raw := range req.URLs {
		if i > 0 {
			select {
			case <-tick.C:
			case <-ctx.Done():
				break feed
			}
		}
		select {
		case urls <- raw:
		case <-ctx.Done():
			break feed
		}
	}
	close(urls)
	work.Wait()
	s.Log.Info("warmed", "asked", resp.Asked, "stored", resp.Stored)
	return resp
}

// warmOne fetches one URL as a client's request does. Its error is the reason why the URL is not in
// the store after that.
func (s *Server) warmOne(ctx context.Context, raw, client string) (err error) {
	t, err := httpcache.ParseURL(raw)
	if err != nil {
		return err
	}
	r := (&http.Request{Method: http.MethodGet, URL: t.RequestURL(), Host: t.Authority(), RequestURI: t.RequestURI(),
		RemoteAddr: client,
		Proto:      "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
		Body: http.NoBody}).WithContext(ctx)
	r.Header.Set("User-Agent", "kaiku-warm")
	// The value of browsers: a response that varies by it is then the one that browsers request.
	r.Header.Set("Accept-Encoding", "gzip, deflate")
	if t.Secure {
		r.Header.Set("Accept-Encoding", "gzip, deflate, br, zstd")
		r.TLS = &tls.ConnectionState{} // marks the request as one over TLS, which has another key
	}
	defer func() {
		switch v := recover(); {
		case v == http.ErrAbortHandler: // the handler cut the response off
			err = errors.New("the response was cut short")
		case v != nil:
			panic(v)
		}
	}()
	x := s.Edge.Front.Do(discard{http.Header{}}, r)
	of, _ := s.Purger.Sites.Now().Find(t.Host)
	switch st := x.Cache(); {
	case ctx.Err() != nil:
		return ctx.Err()
	case x.Status() == http.StatusMisdirectedRequest && of == nil:
		return s.Purger.Sites.Now().Unknown(t.Host)
	case x.Status() >= 400:
		return fmt.Errorf("answered with %d", x.Status())
	case st.Hit, st.Stored:
		return nil
	}
	why := s.Edge.Cache.WhyNot(of.Reduce(t).Key())
	if why == "" {
		why = "it can't be"
	}
	return errors.New("not stored: " + why)
}

// discard is a ResponseWriter that drops the response.
type discard struct{ header http.Header }

// Header returns the header that would be sent.
func (d discard) Header() http.Header { return d.header }

// Write drops p.
func (d discard) Write(p []byte) (int, error) { return len(p), nil }

// WriteHeader does nothing.
func (d discard) WriteHeader(int) {}

// Flush does nothing.
func (d discard) Flush() {}
