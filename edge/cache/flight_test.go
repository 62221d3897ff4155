package cache

import (
	"net/http"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/storage"
)

// The last bytes of a body of known length are not shown before it is stored: not even to a
// follower that reads when the writer has them.
func TestLastBytesWaitForTheStore(t *testing.T) {
	e, _ := newCache(t)
	w := e.Store.Create(storage.Header{Key: "k", URL: "k"})
	defer w.Close()
	f := e.flights.alone(flightKey{Key: "k"}, storage.Header{Key: "k"})
	defer f.hold.Release()
	f.change(func() {
		f.phase, f.body = streaming, body{length: 10, whole: 10, writer: w, readers: map[*follower]struct{}{}}
	})
	r := f.follow(0)
	defer r.unfollow()
	for _, part := range []string{"01234", "56789"} {
		if err := f.append(t.Context(), []byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	p := make([]byte, 100)
	if n, caughtUp, err := r.read(t.Context(), p); n != 5 || !caughtUp || err != nil {
		t.Errorf("before it is stored: %q, caught up %v, error %v", p[:n], caughtUp, err)
	}
	f.change(func() { f.phase, f.size = done, 10 })
	if n, _, err := r.read(t.Context(), p); string(p[:n]) != "56789" || err != nil {
		t.Errorf("after: %q, error %v", p[:n], err)
	}
}

// A flight that ends at once, because what its leader wants is stored meanwhile, is not for those
// who joined it and select another variant.
func TestVaryLandedMeanwhile(t *testing.T) {
	e, www := newCache(t)
	fi := http.Header{"Accept-Language": {"fi"}}
	target := httpcache.Target{Host: "www.example", Path: "/a"}
	x := &exchange{r: &http.Request{Header: fi}, site: www, target: target, key: target.Key()}
	b := x.objectMeta(e.Store.Epoch())
	b.fields = httpcache.VaryFields([]string{"Accept-Language"}, fi)
	w := e.Store.Create(b.header(b.key()))
	defer w.Close()
	if _, err := e.objects.commit(&b, w.Commit,
		&httpcache.Stored{Status: 200, Header: http.Header{"Vary": {"Accept-Language"}}}); err != nil {
		t.Fatal(err)
	}
	f, leads := e.flights.join(flightKey{Key: x.key}, storage.Header{Key: string(x.key), URL: target.URL()},
		x.likelyTags(nil))
	if !leads || !e.landedMeanwhile(x, f, nil) || f.phase != done {
		t.Fatalf("leads %v, phase %v", leads, f.phase)
	}
	if f.entry != nil || f.answer != nil {
		t.Error("the flight has an answer for all that joined it")
	}
}
