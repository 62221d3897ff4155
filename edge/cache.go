package edge

import (
	"crypto/sha256"
	"encoding/hex"
	"hash/maphash"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/storage"
)

const (
	maxVariants = 64 // of one URI; the oldest goes

	// passTime is how long a key whose response could not be stored is remembered, so that requests for it don't queue behind each other.
	passTime = 2 * time.Minute
	maxPass  = 1 << 16
)

// entry is a stored response and its body.
type entry struct {
	object *storage.Object
	stored *httpcache.Stored
}

// cache is the store as requests see it: with variants, and with the keys that are not worth waiting for.
type cache struct {
	store *storage.Store

	seed  maphash.Seed
	locks [64]sync.Mutex // of lists of variants, by key

	passMu sync.Mutex
	pass   map[string]time.Time // until when
}

func newCache(store *storage.Store) *cache {
	return &cache{store: store, seed: maphash.MakeSeed(), pass: map[string]time.Time{}}
}

// find returns what is stored for a request. Where a URI has variants that the request selects none of, flight names those that it could have: requests with
// equal ones can share a fetch.
func (c *cache) find(key string, request http.Header) (e *entry, flight string) {
	o := c.store.Get(key)
	if o == nil {
		return nil, key
	}
	if isVariants(o.Data()) {
		variants, err := decodeVariants(o.Data())
		if err != nil || len(variants) == 0 {
			return nil, key
		}
		v := httpcache.Select(variants, request)
		if v == nil {
			return nil, variantKey(key, httpcache.VaryFields(names(variants[len(variants)-1]), request))
		}
		if o = c.store.Get(v.Key); o == nil {
			return nil, v.Key
		}
	}
	s, err := decodeResponse(o.Data())
	if err != nil {
		return nil, o.Key()
	}
	return &entry{o, s}, o.Key()
}

func names(v httpcache.Variant) []string {
	out := make([]string, len(v.Fields))
	for i, f := range v.Fields {
		out[i] = f.Name
	}
	return out
}

// variantKey is the key of the response that a request with these fields selects.
func variantKey(key string, fields []httpcache.VaryField) string {
	h := sha256.New()
	for _, f := range fields {
		present := "-"
		if f.Present {
			present = "+"
		}
		h.Write([]byte(f.Name + present + f.Value + "\x00"))
	}
	return key + " " + hex.EncodeToString(h.Sum(nil)[:12])
}

// commit stores the body that was written to w as the response s to a request. Where s has Vary, it joins the variants of key.
func (c *cache) commit(key string, w *storage.Writer, fields []httpcache.VaryField, s *httpcache.Stored, tags []string, h storage.Header) (*entry, error) {
	o, err := w.Commit(tags, encodeResponse(s))
	if err != nil {
		return nil, err
	}
	if len(fields) > 0 {
		if err := c.addVariant(key, httpcache.Variant{Key: o.Key(), Fields: fields, Date: s.Date()}, h); err != nil {
			return nil, err
		}
	}
	return &entry{o, s}, nil
}

func (c *cache) addVariant(key string, v httpcache.Variant, h storage.Header) error {
	lock := &c.locks[maphash.String(c.seed, key)%uint64(len(c.locks))]
	lock.Lock()
	defer lock.Unlock()
	var have []httpcache.Variant
	if o := c.store.Get(key); o != nil && isVariants(o.Data()) {
		have, _ = decodeVariants(o.Data()) // a malformed list is begun anew
	}
	w := c.store.Create(storage.Header{Key: key, URL: h.URL, Epoch: h.Epoch})
	_, err := w.Commit(nil, encodeVariants(httpcache.AddVariant(have, v, maxVariants)))
	return err
}

// update stores what a 304 made of e.
func (c *cache) update(e *entry, s *httpcache.Stored, epoch uint64, tags []string) (*entry, error) {
	o, err := c.store.Update(e.object, epoch, tags, encodeResponse(s))
	if err != nil {
		return nil, err
	}
	return &entry{o, s}, nil
}

// passes says whether a key is known not to be worth waiting for.
func (c *cache) passes(key string, now time.Time) bool {
	c.passMu.Lock()
	defer c.passMu.Unlock()
	until, ok := c.pass[key]
	if ok && now.After(until) {
		delete(c.pass, key)
		return false
	}
	return ok
}

// setPass remembers, or forgets, that a key is not worth waiting for.
func (c *cache) setPass(key string, pass bool, now time.Time) {
	c.passMu.Lock()
	defer c.passMu.Unlock()
	if !pass {
		delete(c.pass, key)
		return
	}
	for k, until := range c.pass {
		if len(c.pass) < maxPass && now.Before(until) {
			break
		}
		delete(c.pass, k) // expired, or one of too many
	}
	c.pass[key] = now.Add(passTime)
}

// tagFields are the fields of a response that tag it for purges. They are the edge's and not shown to clients.
var tagFields = []string{"Surrogate-Key", "Cache-Tag"}

// tagsOf reads a response's tags: separated by space in Surrogate-Key, by comma in Cache-Tag. Every object has one for its host, too.
func tagsOf(h http.Header, host string) []string {
	tags := []string{hostTag(host)}
	for _, line := range h["Surrogate-Key"] {
		tags = append(tags, strings.Fields(line)...)
	}
	for _, line := range h["Cache-Tag"] {
		for t := range strings.SplitSeq(line, ",") {
			if t = strings.TrimSpace(t); t != "" {
				tags = append(tags, t)
			}
		}
	}
	return tags
}

// hostTag can't be one of an origin's: a field has no NUL.
func hostTag(host string) string { return "\x00host " + host }
