package geodns

import (
	"crypto/sha256"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/kaiku-cdn/kaiku/geodns/dnssec"
)

// Sizes of the caches of signatures, in signatures. Each takes at most maxCached plus about 400
// octets, so the caches take at most 60 MiB and 4 MiB.
const (
	answerSlots = 1 << 16 // must be powers of two
	denialSlots = 1 << 12
	slotWays    = 4
	// maxCached is the longest key of a cached signature in octets. Longer ones are hashed.
	maxCached = 512
)

// signature is a cached signature of an RRset. It is immutable.
type signature struct {
	// What was signed, and by whom: signer, owner, type, TTL and sorted data. A signature is thus
	// found for exactly the records that it is of, whatever zone, node or reload they come from.
	key   string
	until int64 // when it is no longer used, in Unix seconds
	set   rrset // the RRSIG records
	nsec  *rrset
}

// signatureCache is a table of fixed size. A signature that needs room replaces one of the four
// that share its bucket. Readers and writers don't wait for each other.
type signatureCache []atomic.Pointer[signature]

func (c signatureCache) bucket(hash uint64) signatureCache {
	at := hash % uint64(len(c)/slotWays) * slotWays
	return c[at : at+slotWays]
}

// find returns the signature with a key, or nil.
func (c signatureCache) find(hash uint64, key []byte, now int64) *signature {
	bucket := c.bucket(hash)
	for i := range bucket {
		if found := bucket[i].Load(); found != nil && found.key == string(key) && now < found.until {
			return found
		}
	}
	return nil
}

// put adds a signature. It replaces one of the same key, or else the one that ends first.
func (c signatureCache) put(hash uint64, made *signature) {
	bucket := c.bucket(hash)
	at := &bucket[0]
	for i := range bucket {
		old, last := bucket[i].Load(), at.Load()
		switch {
		case old != nil && old.key == made.key:
			bucket[i].Store(made)
			return
		case old == nil || last != nil && old.until < last.until:
			at = &bucket[i]
		}
	}
	at.Store(made)
}

// signatures are the caches of a server, and the budget of callers that share one.
type signatures struct {
	answers signatureCache // of the zones' contents, which are finite
	denials signatureCache // of names that clients make up
	shared  budget
}

func newSignatures() *signatures {
	return &signatures{answers: make(signatureCache, answerSlots), denials: make(signatureCache, denialSlots)}
}

// budget bounds the time that is spent on new signatures. It is a bucket of time that fills half as
// fast as the clock runs, so that at least half of the time remains for answers whose signatures
// are cached. A bucket holds signingBurst. Signatures for names that clients make up leave half of
// a full bucket for the others.
type budget struct {
	full atomic.Int64 // when the bucket will be full again, in nanoseconds since processStart
}

const signingBurst = 200 * time.Millisecond

// maxSigning bounds the time that one signature counts for. If signing takes longer, the machine
// was busy with something else.
const maxSigning = 500 * time.Microsecond

// processStart is when the clock of the budgets reads 0. Go offers the monotonic clock only as the
// time since an earlier time.
var processStart = time.Now()

// take reports whether a signature may be made at a time, in nanoseconds since processStart.
func (b *budget) take(now int64, random bool) bool {
	most := int64(signingBurst)
	if random {
		most /= 2
	}
	return b.full.Load()-now < most
}

// spend takes the time that a signature took.
func (b *budget) spend(began time.Time) {
	now, cost := int64(time.Since(processStart)), int64(2*min(time.Since(began), maxSigning))
	for {
		old := b.full.Load()
		if b.full.CompareAndSwap(old, max(old, now)+cost) {
			return
		}
	}
}

// signing makes or finds signatures. It keeps its buffers. One goroutine at a time may use it.
type signing struct {
	cache  *signatures
	budget *budget // nil means no bound
	now    int64   // in Unix seconds

	// A cached signature is used only if it is good for at least this many more seconds.
	renew int64

	key  []byte
	data []string
	made int // signatures made since the last reset
}

// sign returns the signature of the records in g.data, which it sorts. ok is false if there is no
// time for it. random means that a client made up the owner.
func (g *signing) sign(s *signer, set dnssec.RRset, random bool) (_ *signature, ok bool) {
	g.sort()
	b := append(g.key[:0], s.id[:]...)
	b = append(b, set.Owner...)
	b = append(b, byte(set.Type>>8), byte(set.Type),
		byte(set.TTL>>24), byte(set.TTL>>16), byte(set.TTL>>8), byte(set.TTL))
	for _, data := range g.data {
		b = append(b, byte(len(data)>>8), byte(len(data)))
		b = append(b, data...)
	}
	g.key = b
	if len(b) > maxCached {
		sum := sha256.Sum256(b)
		b = append(b[:0], sum[:]...)
		g.key = b[:0]
	}
	hash, cache := xxhash.Sum64(b), g.cache.answers
	if random {
		cache = g.cache.denials
	}
	if found := cache.find(hash, b, g.now+g.renew); found != nil {
		return found, true
	}
	if g.budget != nil && !g.budget.take(int64(time.Since(processStart)), random) {
		return nil, false
	}
	began := time.Now()
	begin, end := dnssec.Day(g.now, hash)
	set.Data = g.data
	data, err := s.sign(set, begin)
	if err != nil {
		return nil, false // no key that was parsed fails to sign
	}
	g.made++
	made := &signature{key: string(b), until: end + int64(dnssec.Grace/time.Second),
		set: rrset{rrtype: dnssec.TypeRRSIG, ttl: set.TTL, data: data}}
	if set.Type == dnssec.TypeNSEC {
		made.nsec = &rrset{rrtype: set.Type, ttl: set.TTL, data: []string{string([]byte(set.Data[0]))}}
	}
	cache.put(hash, made)
	if g.budget != nil {
		g.budget.spend(began)
	}
	return made, true
}

// sort sorts the data canonically (RFC 4034 section 6.3), and leaves out duplicates.
func (g *signing) sort() {
	if len(g.data) > 1 {
		slices.Sort(g.data)
		g.data = slices.Compact(g.data)
	}
}
