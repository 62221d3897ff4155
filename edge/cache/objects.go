package cache

import (
	"hash/maphash"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/ttlset"
	"github.com/kaiku-cdn/kaiku/storage"
)

// maxFragments bounds the fragments of one response, because each new fragment writes the whole
// list again. Beyond that, the smallest fragment is dropped.
const maxFragments = 1024

// MaxVariants bounds the variants of one URI. Beyond that, the oldest variant without hits is
// dropped.
const MaxVariants = 64

// entry is a stored response. Its body is the body of the object, or is stored in fragments.
type entry struct {
	object *storage.Object
	response
}

// length returns the length of the representation in bytes.
func (e *entry) length() int64 {
	if e.size >= 0 {
		return e.size
	}
	return e.object.Size()
}

// objects is the store as requests see it, with variants and fragments. It also remembers which
// keys requests should not wait for.
type objects struct {
	store *storage.Store

	seed  maphash.Seed
	locks [64]sync.Mutex // for changes of records, by key

	pass    ttlset.Set // why the last response of a key was not stored
	failing ttlset.Set // keys whose last response was a server error
	slow    ttlset.Set // keys whose last fetch failed after a long wait
	noRange ttlset.Set // keys whose origin ignores Range
	// changed are URLs that have changed, as this edge knows and others may not. Requests for them
	// make other edges validate.
	changed ttlset.Set
}

func newObjects(store *storage.Store) *objects {
	return &objects{store: store, seed: maphash.MakeSeed()}
}

// find returns the stored response for a request, or nil, and the key of the response. If the
// request selects none of the URI's variants, that is the key of the variant that it would select.
func (c *objects) find(key httpcache.Key, request http.Header) (e *entry, objectKey httpcache.Key) {
	o := c.store.Get(string(key))
	if o == nil {
		return nil, key
	}
	if isVariants(o.Data()) {
		variants := recordOf(o).variants
		if len(variants) == 0 {
			return nil, key // malformed
		}
		v := httpcache.Select(variants, request)
		if v == nil {
			return nil, key.Variant(httpcache.VaryFields(names(variants[len(variants)-1]), request))
		}
		if o = c.store.Get(string(v.Key)); o == nil {
			return nil, v.Key
		}
	}
	return c.open(o), httpcache.Key(o.Key())
}

// open returns the entry of an object, or nil if its record is malformed.
func (c *objects) open(o *storage.Object) *entry {
	if r := recordOf(o).response; r != nil {
		return &entry{o, *r}
	}
	return nil
}

// variesByCoding reports whether the stored responses for a URI vary by Accept-Encoding alone.
func (c *objects) variesByCoding(uri httpcache.Key) bool {
	o := c.store.Get(string(uri))
	if o == nil || !isVariants(o.Data()) {
		return false
	}
	variants := recordOf(o).variants
	return len(variants) > 0 && slices.Equal(names(variants[len(variants)-1]), []string{"Accept-Encoding"})
}

func names(v httpcache.Variant) []string {
	out := make([]string, len(v.Fields))
	for i, f := range v.Fields {
		out[i] = f.Name
	}
	return out
}

// lock locks the record of a key for a change, and returns the mutex for the caller to unlock.
func (c *objects) lock(key httpcache.Key) *sync.Mutex {
	l := &c.locks[maphash.String(c.seed, string(key))%uint64(len(c.locks))]
	l.Lock()
	return l
}

// objectMeta is what a stored response has in common with its fragments and its list of variants.
type objectMeta struct {
	uri    httpcache.Key         // of the URI, without variant
	url    string                // by which purges find it
	epoch  uint64                // the newest purge when the fetch began
	fields []httpcache.VaryField // what it varies by
	tags   []string
}

// key returns the key of the response itself.
func (b *objectMeta) key() httpcache.Key {
	if len(b.fields) == 0 {
		return b.uri
	}
	return b.uri.Variant(b.fields)
}

// header returns the header of the object with a key.
func (b *objectMeta) header(key httpcache.Key) storage.Header {
	return storage.Header{Key: string(key), URL: b.url, Epoch: b.epoch}
}

// outdated reports whether a purge covers a response, and a response from after that purge is
// stored already.
func (c *objects) outdated(key httpcache.Key, epoch uint64, url string, tags []string) bool {
	if !c.store.Overtaken(epoch, url, tags) {
		return false
	}
	o := c.store.Get(string(key))
	return o != nil && o.Epoch() > epoch
}

// commitFunc is Writer.Commit of package storage, or CommitBody with a body.
type commitFunc func(tags []string, data []byte) (*storage.Object, error)

// commit stores the response s with the body that commitBody commits, unless s is outdated. If s
// has Vary, it joins the variants of its URI.
func (c *objects) commit(b *objectMeta, commitBody commitFunc, s *httpcache.Stored) (*entry, error) {
	if c.outdated(b.key(), b.epoch, b.url, b.tags) {
		return nil, nil
	}
	r := response{Stored: s, size: -1}
	o, err := commitBody(b.tags, r.encode(b.key()))
	if err != nil {
		return nil, err
	}
	return &entry{o, r}, c.addVariant(b, s)
}

func (c *objects) addVariant(b *objectMeta, s *httpcache.Stored) error {
	if len(b.fields) == 0 {
		return nil
	}
	defer c.lock(b.uri).Unlock()
	var variants []httpcache.Variant
	if o := c.store.Get(string(b.uri)); o != nil && isVariants(o.Data()) {
		variants, _ = decodeVariants(b.uri, o.Data()) // a malformed list is replaced
	}
	v := httpcache.Variant{Key: b.key(), Fields: b.fields, Date: s.Date(), Language: s.Header.Get("Content-Language")}
	w := c.store.Create(b.header(b.uri))
	_, err := w.Commit(nil, encodeVariants(httpcache.AddVariant(variants, v, MaxVariants,
		func(k httpcache.Key) bool { return c.store.Hits(string(k)) > 0 })))
	return err
}

// commitFragment stores the body that commitBody commits as a fragment of the representation of s,
// the header of a 206. The fragment joins the stored ones if both have the same strong validator
// (RFC 9111, 3.4), otherwise it replaces them.
func (c *objects) commitFragment(b *objectMeta, commitBody commitFunc, s *httpcache.Stored, f httpcache.Fragment,
	size int64) (*entry, error) {
	if c.outdated(b.key(), b.epoch, b.url, b.tags) {
		return nil, nil
	}
	if _, err := commitBody(b.tags, nil); err != nil {
		return nil, err
	}
	e, err := c.addFragment(b, s, f, size)
	if err != nil {
		return nil, err
	}
	return e, c.addVariant(b, s)
}

func (c *objects) addFragment(b *objectMeta, s *httpcache.Stored, f httpcache.Fragment, size int64) (*entry, error) {
	key := b.key()
	defer c.lock(key).Unlock()
	r := response{Stored: s, size: size, fragments: []httpcache.Fragment{f}}
	if o := c.store.Get(string(key)); o != nil && !isVariants(o.Data()) {
		if e := c.open(o); e != nil && e.size == size && s.StrongValidator() != "" &&
			e.StrongValidator() == s.StrongValidator() {
			r.Stored = e.Update(s.Header, s.RequestTime, s.ResponseTime)
			r.fragments = httpcache.AddFragment(e.fragments, f)
		}
	}
	for len(r.fragments) > maxFragments {
		at := smallest(r.fragments, f.Key, rand.IntN(len(r.fragments)))
		c.store.Forget(string(r.fragments[at].Key))
		r.fragments = slices.Delete(r.fragments, at, at+1)
	}
	o, err := c.store.Create(b.header(key)).Commit(b.tags, r.encode(key))
	if err != nil {
		return nil, err
	}
	return &entry{o, r}, nil
}

// smallest returns the index of the smallest fragment whose key is not but. Of several smallest it
// returns the first at or after from.
func smallest(fragments []httpcache.Fragment, but httpcache.Key, from int) int {
	best := -1
	for i := range fragments {
		at := (from + i) % len(fragments)
		if fragments[at].Key != but && (best < 0 || fragments[at].Length < fragments[best].Length) {
			best = at
		}
	}
	return best
}

// update stores e with the updated header s. The body stays.
func (c *objects) update(e *entry, s *httpcache.Stored, epoch uint64, tags []string) (*entry, error) {
	defer c.lock(httpcache.Key(e.object.Key())).Unlock()
	r := e.response
	r.Stored = s
	if c.outdated(httpcache.Key(e.object.Key()), epoch, e.object.URL(), tags) {
		return &entry{e.object, r}, nil
	}
	o, err := c.store.Update(e.object, epoch, tags, r.encode(httpcache.Key(e.object.Key())))
	if err != nil {
		return nil, err
	}
	return &entry{o, r}, nil
}
