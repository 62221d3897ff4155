package edge

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/purge"
)

const (
	defaultWarmRate = 10      // URLs a second
	maxWarmRate     = 1000    // the most that may be asked for
	maxWarmURLs     = 100_000 // of one request
	warmAtOnce      = 8       // URLs that are fetched at the same time
	maxWarmFailures = 100     // that are told
)

// WarmRequest is the body of POST /v1/warm.
type WarmRequest struct {
	URLs []string `json:"urls"`
	Rate int      `json:"rate,omitempty"` // a second; 0 means 10
}

// WarmResponse is the answer to POST /v1/warm.
type WarmResponse struct {
	Asked  int           `json:"asked"`  // URLs
	Stored int           `json:"stored"` // those of them that are in the store now
	Failed []WarmFailure `json:"failed"` // the first 100 of the others
}

// WarmFailure is why a URL is not in the store.
type WarmFailure struct {
	URL   string `json:"url"`
	Error string `json:"error"`
}

// serveWarm fetches URLs as if clients had asked for them. It ends with the request.
func (s *Server) serveWarm(w http.ResponseWriter, r *http.Request) {
	if !purge.IsJSON(r.Header) { // see servePurge
		purge.Fail(w, http.StatusUnsupportedMediaType, "want Content-Type: application/json")
		return
	}
	var req WarmRequest
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, purge.MaxBody))
	d.DisallowUnknownFields()
	err := d.Decode(&req)
	switch {
	case err != nil:
		err = fmt.Errorf("read the URLs: %w", err)
	case len(req.URLs) == 0:
		err = errors.New("warm: no URLs")
	case len(req.URLs) > maxWarmURLs:
		err = fmt.Errorf("warm: %d URLs are more than %d", len(req.URLs), maxWarmURLs)
	case req.Rate < 0 || req.Rate > maxWarmRate:
		err = fmt.Errorf("warm: want a rate of 1 to %d a second, not %d", maxWarmRate, req.Rate)
	}
	if err != nil {
		purge.Fail(w, http.StatusBadRequest, err.Error())
		return
	}
	for _, raw := range req.URLs {
		t, err := httpcache.ParseURL(raw)
		if err != nil {
			continue // told as the others that fail
		}
		of, _ := s.sites.Now().Find(t.Host)
		if err := purge.GrantOf(r.Context()).MayTouch(of, t.Host); err != nil {
			purge.Fail(w, http.StatusForbidden, err.Error())
			return
		}
	}
	if req.Rate == 0 {
		req.Rate = defaultWarmRate
	}
	purge.WriteJSON(w, http.StatusOK, s.warm(r.Context(), req, r.RemoteAddr))
}

// warm fetches until all is done or ctx ends. client is whom origins are told of.
func (s *Server) warm(ctx context.Context, req WarmRequest, client string) WarmResponse {
	resp := WarmResponse{Failed: []WarmFailure{}}
	var mu sync.Mutex // guards resp
	var work sync.WaitGroup
	urls := make(chan string)
	for range warmAtOnce {
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

// warmOne fetches one URL by the way that a client's request takes, and says why it is not in the
// store after that.
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
	// As browsers have it, so that what varies by it is what they will ask for.
	r.Header.Set("Accept-Encoding", "gzip, deflate")
	if t.Secure {
		r.Header.Set("Accept-Encoding", "gzip, deflate, br, zstd")
		r.TLS = &tls.ConnectionState{} // its key is that of requests over TLS
	}
	defer func() {
		switch v := recover(); {
		case v == http.ErrAbortHandler: // what net/http is told when a response can't go on
			err = errors.New("the response was cut short")
		case v != nil:
			panic(v)
		}
	}()
	x := s.front.Do(discard{http.Header{}}, r)
	of, _ := s.sites.Now().Find(t.Host)
	switch st := x.Cache(); {
	case ctx.Err() != nil:
		return ctx.Err()
	case x.Status() == http.StatusMisdirectedRequest && of == nil:
		return s.sites.Now().Unknown(t.Host)
	case x.Status() >= 400:
		return fmt.Errorf("answered with %d", x.Status())
	case st.Hit, st.Stored:
		return nil
	}
	why := s.cache.WhyNot(of.Reduce(t).Key())
	if why == "" {
		why = "it can't be"
	}
	return errors.New("not stored: " + why)
}

// discard is a ResponseWriter for nobody.
type discard struct{ header http.Header }

// Header is what would be sent.
func (d discard) Header() http.Header { return d.header }

// Write drops p.
func (d discard) Write(p []byte) (int, error) { return len(p), nil }

// WriteHeader does nothing.
func (d discard) WriteHeader(int) {}

// Flush does nothing.
func (d discard) Flush() {}
