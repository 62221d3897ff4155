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
	// PositionField holds a position in the log, as "log sequence". In a request to a peer, it is
	// the position that the response must cover. In a response, it is the position that the peer
	// had applied.
	PositionField = origin.PurgesField
	// MarkField holds the mark of that position. Earlier versions don't send it.
	MarkField = "Kaiku-Purges-Mark"
)

// SetPosition sets the position that this edge has applied, in the header of a request to a peer.
func (p *Purger) SetPosition(h http.Header) {
	delete(h, PositionField)
	delete(h, MarkField)
	if p.Purges == nil {
		return
	}
	// The store's position is never behind the epoch with which the response is stored.
	if at := p.Store.Position(); at.Log != 0 {
		WritePosition(h, at)
	}
}

// Behind reports whether a peer's response may be older than purges that this edge had applied when
// it sent the request. Peers of an earlier version state no position, and Behind reports false.
func Behind(request, response http.Header) bool {
	if len(request[PositionField]) == 0 || len(response[PositionField]) == 0 {
		return false
	}
	want, err1 := PositionOf(request)
	have, err2 := PositionOf(response)
	return err1 != nil || err2 != nil || !covers(have, want)
}

// WritePosition sets a position in the log, for another edge.
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

// covers reports whether a node at the position have has applied everything up to want. Marks are
// times. A node that has applied more, but at an earlier time, did so before a part of the log was
// lost. While a clock is wrong, this is unknown until both are at the same position.
func covers(have, want storage.Position) bool {
	switch {
	case have.Log != want.Log || have.Seq < want.Seq:
		return false
	case have.Mark == 0 || want.Mark == 0: // of an earlier version
		return true
	case have.Seq == want.Seq:
		return have.Mark == want.Mark
	}
	return have.Mark > want.Mark
}

// peerPurgeWait is how long a peer's request waits for a purge that the peer has applied and this
// edge hasn't.
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
