package purge

import (
	"context"
	"log/slog"
	"net/http"
	"testing"

	"github.com/kaiku-cdn/kaiku/storage"
)

// FuzzPosition holds what an edge reads of another's place in the log to what that wrote.
func FuzzPosition(f *testing.F) {
	for _, s := range []string{"1 2", "18446744073709551615 0", "", "1", "1 2 3", "-1 2", " 1 2"} {
		f.Add(s, "7")
		f.Add(s, "")
	}
	f.Fuzz(func(t *testing.T, s, mark string) {
		p, err := PositionOf(http.Header{PositionField: {s}, MarkField: {mark}})
		if err != nil {
			return
		}
		h := http.Header{}
		WritePosition(h, p)
		if back, err := PositionOf(h); err != nil || back != p {
			t.Errorf("%q, %q is read as %v, and that as %v", s, mark, p, back)
		}
	})
}

// What a peer has to have applied is told by the mark of the entry, too: sequences are used twice
// when the log loses a part.
func TestPeerOfAnotherHistory(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	p := &Purger{Store: store, Purges: deaf{}}
	at := func(seq, mark uint64) storage.Position { return storage.Position{Log: 1, Seq: seq, Mark: mark} }
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nothing more comes
	for name, c := range map[string]struct {
		have, want storage.Position
		ok         bool
	}{
		"the same":              {at(5, 50), at(5, 50), true},
		"more":                  {at(6, 60), at(5, 50), true},
		"less":                  {at(4, 40), at(5, 50), false},
		"another entry":         {at(5, 51), at(5, 50), false},
		"more of what was lost": {at(9, 45), at(5, 50), false},
		"an earlier version's":  {at(5, 50), at(5, 0), true},
		"it has none":           {at(6, 0), at(5, 50), true},
		"another log":           {storage.Position{Log: 2, Seq: 9, Mark: 90}, at(5, 50), false},
	} {
		asks := http.Header{}
		if err := store.Apply(nil, c.want); err != nil {
			t.Fatal(err)
		}
		p.SetPosition(asks)
		if err := store.Apply(nil, c.have); err != nil {
			t.Fatal(err)
		}
		if got := p.Await(ctx, asks); got != c.ok {
			t.Errorf("%s: %v answers who has %v: %t", name, c.have, c.want, got)
		}
	}
	for _, text := range []string{"1", "1 2 3", "x 1", "1 x", " ", "-1 1"} {
		if p.Await(t.Context(), http.Header{PositionField: {text}}) {
			t.Errorf("%q is taken", text)
		}
	}
}

// deaf is a log that takes nothing.
type deaf struct{}

func (deaf) Append(context.Context, string, Request) (uint64, error) { return 0, ErrNoLog }
func (deaf) InTouch() bool                                           { return true }
func (deaf) CutOff() bool                                            { return false }

func openStore(t *testing.T) *storage.Store {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	store, err := storage.Open(storage.Options{Dir: t.TempDir(), Disk: 64 << 20, Memory: 1 << 20, Floor: 1, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}
