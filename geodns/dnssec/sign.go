package dnssec

import (
	"encoding/binary"
	"time"
)

// Validity of signatures. A signature is made for a day. The day begins at a different time for
// each RRset, but at the same time on all name servers. The signature is valid from one day before
// its day until a week after it. The day before allows for clocks that are late. The week after
// allows for caches, and for a name server that has lost its clock or its operator.
const (
	period = 24 * time.Hour
	before = 24 * time.Hour
	after  = 7 * 24 * time.Hour
	// Grace is how long after its day a signature is still used, so that the next one can be made
	// ahead.
	Grace = time.Hour
)

// MaxTTL is the longest TTL with which no cache keeps a record after its signature has expired.
// Validators shorten longer TTLs.
const MaxTTL = after - Grace

// Day returns when the day of an RRset began and ends, in Unix seconds. hash spreads RRsets over
// the day.
func Day(now int64, hash uint64) (begin, end int64) {
	const seconds = int64(period / time.Second)
	jitter := int64(hash % uint64(seconds))
	begin = (now+jitter)/seconds*seconds - jitter
	return begin, begin + seconds
}

// RRset is an RRset in canonical form: its owner in lower case, or the wildcard that it comes from,
// and its data sorted and without duplicates. Names and data are in wire format. TTL is in seconds.
type RRset struct {
	Owner  string
	Type   uint16
	TTL    uint32
	Data   []string
	Signer string // the zone
}

// Signature returns the data of the RRSIG record of an RRset, for the day that began at begin (RFC
// 4034 section 3.1).
func (k *Key) Signature(set RRset, begin int64) (string, error) {
	b := make([]byte, 0, 18+len(set.Signer)+SignatureLen)
	b = binary.BigEndian.AppendUint16(b, set.Type)
	b = append(b, Algorithm, byte(Labels(set.Owner)))
	b = binary.BigEndian.AppendUint32(b, set.TTL)
	b = binary.BigEndian.AppendUint32(b, uint32(begin+int64((period+after)/time.Second)))
	b = binary.BigEndian.AppendUint32(b, uint32(begin-int64(before/time.Second)))
	b = binary.BigEndian.AppendUint16(b, k.tag)
	b = append(b, set.Signer...)

	message := append([]byte(nil), b...)
	for _, data := range set.Data {
		message = append(message, set.Owner...)
		message = binary.BigEndian.AppendUint16(message, set.Type)
		message = append(message, 0, 1) // IN
		message = binary.BigEndian.AppendUint32(message, set.TTL)
		message = binary.BigEndian.AppendUint16(message, uint16(len(data)))
		message = append(message, data...)
	}
	signed, err := k.Sign(b, message)
	return string(signed), err
}
