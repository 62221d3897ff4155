package cache

import (
	"net/http"
	"sync"
)

// interims passes interim responses on to the client of a request that is passed through (RFC 9110,
// 15.2). It has a goroutine for that while there are any. The goroutine that reads them from the
// origin must not wait for a slow client, because over HTTP/2 it reads for other clients too.
type interims struct {
	cache *Cache
	x     *exchange

	mu      sync.Mutex
	waiting []interim
	added   int
	ended   bool          // the final response has come, so that later ones are dropped
	done    chan struct{} // closed when the goroutine ends; nil while there is none
}

// add passes an interim response on, unless there were too many.
func (i *interims) add(status int, h http.Header) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ended || i.added == maxInterim {
		return
	}
	i.added++
	i.waiting = append(i.waiting, interim{status, h})
	if i.done == nil {
		i.done = make(chan struct{})
		go i.send(i.done) // ends when none waits; end waits for that
	}
}

// send sends what waits to the client, and closes done.
func (i *interims) send(done chan struct{}) {
	defer close(done)
	defer func() {
		if p := recover(); p != nil {
			i.cache.Panics.Caught("an interim response", p, "url", i.x.url())
		}
	}()
	for {
		i.mu.Lock()
		if len(i.waiting) == 0 {
			i.done = nil
			i.mu.Unlock()
			return
		}
		next := i.waiting[0]
		i.waiting = i.waiting[1:]
		i.mu.Unlock()
		i.x.interim(next.status, next.header)
	}
}

// end is called before the final response is sent. It waits until the interim responses are sent.
func (i *interims) end() {
	i.mu.Lock()
	i.ended = true
	done := i.done
	i.mu.Unlock()
	if done != nil {
		<-done
	}
}
