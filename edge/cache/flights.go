package cache

import (
	"slices"
	"sync"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// flightKey identifies a flight. It has the stage, so that a peer's request never follows a flight
// that may itself wait for that peer.
type flightKey struct {
	httpcache.Key
	stage origin.Stage
}

// flights finds the flight of a key.
type flights struct {
	store   *storage.Store
	readers readers

	mu     sync.Mutex // taken before that of a flight
	byKey  map[flightKey]*flight
	slices map[sliceKey][]*flight
	urls   map[string]int // number of fetches under way, including those that can't be joined
}

// sliceKey identifies the flights of slices of a representation. Only flights with different keys
// may overlap. The validator is "" if no stored fragment has to fit.
type sliceKey struct {
	flightKey
	validator string
}

// join returns the flight of a key, and whether the caller leads it: then the caller has to start
// it. A flight can't be joined after a purge that covers its URL, or tags that its response has or
// will probably have.
func (fs *flights) join(key flightKey, h storage.Header, likely likelyTags) (f *flight, leads bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.byKey[key]; f != nil && f.addFollower(fs.store) {
		return f, false
	}
	f = fs.alone(key, h)
	f.open, f.likely = true, likely
	fs.byKey[key] = f
	return f, true
}

// alone returns a flight that no other request can join. The caller leads it.
func (fs *flights) alone(key flightKey, h storage.Header) *flight {
	return &flight{key: key, header: h, hold: fs.store.Hold(h.Epoch), followers: 1, cancel: func() {}}
}

// joinSlice is join for a slice. It returns the flight of a slice that has the byte at off. Without
// one, it returns a new flight, whose slice ends where the next slice under way begins.
func (fs *flights) joinSlice(key sliceKey, off int64, slice httpcache.Range, h storage.Header,
	likely likelyTags) (f *flight, leads bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, f := range fs.slices[key] {
		end := f.slice.Start + f.slice.Length
		switch covers := f.slice.Start <= off && off < end; {
		case covers && f.addFollower(fs.store):
			return f, false
		case covers, off < 0, f.slice.Start < 0: // it ends, or it isn't known which bytes these are
		case f.slice.Start > off:
			slice.Length = min(slice.Length, f.slice.Start-slice.Start)
		case end > slice.Start:
			slice = httpcache.Range{Start: end, Length: slice.Start + slice.Length - end}
		}
	}
	f = fs.alone(key.flightKey, h)
	f.open, f.slice, f.validator, f.likely = true, slice, key.validator, likely
	fs.slices[key] = append(fs.slices[key], f)
	return f, true
}

// whole turns the flight of a slice into one of the whole representation, because the origin
// ignored the range.
func (fs *flights) whole(f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f.slice.Length == 0 {
		return
	}
	fs.remove(f)
	f.slice = httpcache.Range{}
	if f.open && fs.byKey[f.key] == nil {
		fs.byKey[f.key] = f
	}
}

// countLocked sets how many bytes the fetch counts as requested of its object. The caller holds
// f.mu.
func (fs *flights) countLocked(f *flight, n int64) {
	if f.reads != "" && n != f.counted {
		fs.readers.add(f.reads, 0, n-f.counted)
		f.counted = n
	}
}

// addFollower joins f and reports true, unless the flight has ended, or its response may be covered
// by a hard or soft purge made since the flight began.
func (f *flight) addFollower(store *storage.Store) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	tags := f.meta.tags
	if f.phase != streaming {
		tags = f.likely.all()
	}
	if f.dead || f.unstored || f.phase > streaming || store.Overtaken(f.header.Epoch, f.header.URL, tags) {
		return false
	}
	f.followers++
	return true
}

// leave removes a follower from f. A flight without followers is canceled, unless it pays to go on.
func (fs *flights) leave(f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.followers--
	f.wake()
	if f.followers > 0 {
		return
	}
	switch f.phase {
	case fetching, streaming:
		f.dead = !fs.pays(f)
	case declined: // the leader has left without the response
		if f.response != nil {
			f.response.Body.Close()
			f.response = nil
			f.cancel()
		}
	}
	if f.dead {
		fs.countLocked(f, f.size)
		f.cancel()
		fs.remove(f)
	}
}

// pays reports whether a flight without followers goes on. A background validation does, and a
// fetch of which half has arrived. A fetch for a range or for a conditional request goes on if at
// most a block is missing, or if clients have read enough of the object to pay for the rest (see
// readers). The caller holds both mutexes.
func (fs *flights) pays(f *flight) bool {
	if f.keep {
		return true
	}
	if f.phase != streaming || f.length < 0 {
		return false
	}
	missing := f.length - f.size
	return f.size >= missing || f.reads != "" && (missing <= Block || fs.readers.get(f.reads).earned() >= 0)
}

// drop ends a flight before it has begun. Its followers look up again.
func (fs *flights) drop(f *flight) {
	fs.land(f)
	f.hold.Release()
	f.change(func() { f.phase = done })
}

// land removes f from the flights that can be joined.
func (fs *flights) land(f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.remove(f)
}

// remove is land for callers that hold mu.
func (fs *flights) remove(f *flight) {
	if f.slice.Length == 0 {
		if fs.byKey[f.key] == f {
			delete(fs.byKey, f.key)
		}
		return
	}
	key := sliceKey{f.key, f.validator}
	if i := slices.Index(fs.slices[key], f); i >= 0 {
		fs.slices[key] = slices.Delete(fs.slices[key], i, i+1)
	}
	if len(fs.slices[key]) == 0 {
		delete(fs.slices, key)
	}
}

// begin records that a response for a URL is being fetched; end records that the fetch is over.
func (fs *flights) begin(url string) { fs.fetching(url, 1) }
func (fs *flights) end(url string)   { fs.fetching(url, -1) }

func (fs *flights) fetching(url string, n int) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.urls == nil {
		fs.urls = map[string]int{}
	}
	if fs.urls[url] += n; fs.urls[url] == 0 {
		delete(fs.urls, url)
	}
}

// has reports whether anything is being fetched for a URL, including variants, slices and flights
// that can't be joined.
func (fs *flights) has(url string) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.urls[url] > 0
}

// reaches reports whether a flight of the whole response has the byte at off, or will soon have it,
// because it is at most near bytes before. A negative off counts from the end.
func (fs *flights) reaches(key flightKey, off, near int64) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := fs.byKey[key]
	if f == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.phase == fetching {
		return off >= 0 && off <= near
	}
	if off < 0 {
		if off += f.length; f.length < 0 {
			return false
		}
	}
	return f.phase == streaming && f.size+near >= off
}
