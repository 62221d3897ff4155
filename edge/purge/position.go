package purge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

const (
	// PositionField tells a peer which purges the answer has to know of, and in an answer which
	// ones that knows of, as "log sequence".
	PositionField = origin.PurgesField
	// MarkField is the mark of that position. Earlier versions know of none.
	MarkField = "Kaiku-Purges-Mark"
)

// SetPosition notes what this edge has applied in a request to a peer.
func (p *Purger) SetPosition(h http.Header) {
	delete(h, PositionField)
	delete(h, MarkField)
	if p.Purges == nil {
		return
	}
	// The store's own, which is never behind the epoch that what comes is stored with.
	if at := p.Store.Position(); at.Log != 0 {
		WritePosition(h, at)
	}
}

// Lacks reports whether the answer to a request is one of a peer that does not say that all purges
// are before it that this edge had applied. Peers of an earlier version say nothing.
func Lacks(asked, answered http.Header) bool {
	if len(asked[PositionField]) == 0 || len(answered[PositionField]) == 0 {
		return false
	}
	want, err1 := PositionOf(asked)
	have, err2 := PositionOf(answered)
	return err1 != nil || err2 != nil || !covers(have, want)
}

// WritePosition notes a position in the log, for another edge.
func WritePosition(h http.Header, p storage.Position) {
	h.Set(PositionField, fmt.Sprintf("%d %d", p.Log, p.Seq))
	h.Set(MarkField, strconv.FormatUint(p.Mark, 10))
}

// PositionOf reads what WritePosition wrote.
func PositionOf(h http.Header) (storage.Position, error) {
	number, seq, _ := strings.Cut(h.Get(PositionField), " ")
	mark := h.Get(MarkField)
	if mark == "" {
		mark = "0"
	}
	var p storage.Position
	var errs [3]error
	p.Log, errs[0] = strconv.ParseUint(number, 10, 64)
	p.Seq, errs[1] = strconv.ParseUint(seq, 10, 64)
	p.Mark, errs[2] = strconv.ParseUint(mark, 10, 64)
	return p, errors.Join(errs[:]...)
}

// covers reports whether who is at one position of the log has applied all up to another one. Marks
// are times: who has applied more, but earlier, did so before a part of the log was lost. While a
// clock is wrong, nobody knows, until both are at the same place.
func covers(have, want storage.Position) bool {
	switch {
	case have.Log != want.Log || have.Seq < want.Seq:
		return false
	case have.Mark == 0 || want.Mark == 0: // an earlier version's
		return true
	case have.Seq == want.Seq:
		return have.Mark == want.Mark
	}
	return have.Mark > want.Mark
}

// peerPurgeWait is how long a peer's request waits for a purge that the peer knows and this edge
// does not.
const peerPurgeWait = time.Second

// Await waits until this edge has applied what the peer has. What it is about to answer could have
// been purged by then, and the peer would store it again.
func (p *Purger) Await(ctx context.Context, h http.Header) bool {
	if p.Purges == nil || h.Get(PositionField) == "" {
		return true
	}
	want, err := PositionOf(h)
	if err != nil {
		return false
	}
	knows := func() bool { return covers(p.Store.Position(), want) }
	if knows() {
		return true
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(peerPurgeWait)
	for {
		select {
		case <-tick.C:
			if knows() {
				return true
			}
		case <-end:
			return false
		case <-ctx.Done():
			return false
		}
	}
}
