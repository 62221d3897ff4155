package storage

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// chunkSize is the size in bytes of every chunk of a body except the last. It is small because a
// chunk is copied while the value log is locked.
const chunkSize = 256 << 10

// Each part of a value has a checksum of its own, so that a range need not read the whole chunk.
const (
	partSize = 64 << 10
	maxParts = chunkSize / partSize
	// valueHeader is the length in bytes of the header of each value: the length of the data and
	// the CRC-32C of each part. Only a chunk may have more than one part.
	valueHeader = 4 + 4*maxParts
)

var errDamaged = errors.New("damaged value")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// objectID identifies an object's key in the records of a segment.
type objectID [16]byte

func idOf(key string) objectID {
	sum := sha256.Sum256([]byte(key))
	return objectID(sum[:16])
}

// slot returns the key of an object in the index.
func (id objectID) slot() uint64 { return binary.BigEndian.Uint64(id[:8]) }

func metaKey(id objectID) []byte {
	return append([]byte{'m'}, id[:]...)
}

// chunkKeySize is the length of a chunkKey in bytes.
const chunkKeySize = 1 + 16 + 8 + 4

func chunkKey(id objectID, fill uint64, chunk uint32) []byte {
	k := make([]byte, 0, chunkKeySize)
	k = append(k, 'c')
	k = append(k, id[:]...)
	k = binary.BigEndian.AppendUint64(k, fill)
	return binary.BigEndian.AppendUint32(k, chunk)
}

// partStart returns the initial checksum of a part of a value of size bytes. It differs between
// parts and keys, so that no part is taken for another one.
func partStart(key []byte, size, part int) uint32 {
	var b [8]byte
	binary.BigEndian.PutUint32(b[:], uint32(size))
	binary.BigEndian.PutUint32(b[4:], uint32(part))
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, b[:])
}

// parts returns the number of parts of a value of size bytes.
func parts(size int) int { return min(max(1, (size+partSize-1)/partSize), maxParts) }

// partOf returns where a part of a value of size bytes begins and ends.
func partOf(size, part int) (from, to int) {
	from, to = part*partSize, (part+1)*partSize
	if part == parts(size)-1 {
		to = size
	}
	return from, to
}

func sumOf(v []byte, part int) uint32 { return binary.BigEndian.Uint32(v[4+4*part:]) }

// sealValue fills in the header of v, whose data begins at valueHeader.
func sealValue(key, v []byte) {
	data := v[valueHeader:]
	clear(v[:valueHeader])
	binary.BigEndian.PutUint32(v, uint32(len(data)))
	for part := range parts(len(data)) {
		from, to := partOf(len(data), part)
		binary.BigEndian.PutUint32(v[4+4*part:], crc32.Update(partStart(key, len(data), part), castagnoli,
			data[from:to]))
	}
}

// block is how many bytes of a value are copied and summed at a time. The checksum then finds the
// bytes in the processor's cache.
const block = 32 << 10

// copyValue copies from the data of v, which must have want bytes, into p, beginning at from. It
// checks all parts that it copies from. After an error, the content of p is undefined.
func copyValue(key, v []byte, want, from int, p []byte) (n int, err error) {
	if len(v) != valueHeader+want || binary.BigEndian.Uint32(v) != uint32(want) || from > want {
		return 0, errDamaged
	}
	data := v[valueHeader:]
	n = min(len(p), want-from)
	for part := range parts(want) {
		begin, end := partOf(want, part)
		first, last := max(begin, from), min(end, from+n) // the bytes to copy
		if first >= last && want > 0 {
			continue
		}
		sum := crc32.Update(partStart(key, want, part), castagnoli, data[begin:max(begin, first)])
		for at := first; at < last; at += block {
			to := p[at-from : min(at+block, last)-from]
			copy(to, data[at:])
			sum = crc32.Update(sum, castagnoli, to)
		}
		if sum = crc32.Update(sum, castagnoli, data[max(begin, last):end]); sum != sumOf(v, part) {
			return 0, errDamaged
		}
	}
	return n, nil
}

// openValue returns the data of v, or errDamaged.
func openValue(key, v []byte) ([]byte, error) {
	if len(v) < valueHeader {
		return nil, errDamaged
	}
	data := v[valueHeader:]
	if binary.BigEndian.Uint32(v) != uint32(len(data)) {
		return nil, errDamaged
	}
	for part := range parts(len(data)) {
		from, to := partOf(len(data), part)
		if crc32.Update(partStart(key, len(data), part), castagnoli, data[from:to]) != sumOf(v, part) {
			return nil, errDamaged
		}
	}
	return data, nil
}

// extent names the segment of the chunks from first up to the first chunk of the next extent.
type extent struct {
	segment uint32
	first   uint32
}

// meta is the metadata record of an object.
type meta struct {
	fill    uint64
	size    int64
	stored  time.Time
	epoch   uint64
	key     string
	url     string
	tags    []string
	extents []extent
	data    []byte
	body    []byte // the whole body, if it is small; nil if it is in chunks
}

const (
	metaVersion     = 1
	metaVersionBody = 2 // of a record with a body

	// maxMetaBody is the size in bytes of the largest body that lies in the metadata. A second
	// record would take another 150 bytes on the disk, and another look-up.
	maxMetaBody = 2 << 10
)

// record returns the metadata record of the object with this id.
func (m *meta) record(id objectID) record {
	// 64 bytes are enough for the version, the fill and the varints
	size := 64 + len(m.key) + len(m.url) + len(m.data) + 16*len(m.extents) + len(m.body)
	for _, t := range m.tags {
		size += binary.MaxVarintLen32 + len(t)
	}
	return record{metaKey(id), m.append(make([]byte, valueHeader, valueHeader+size))}
}

func (m *meta) append(b []byte) []byte {
	if m.body == nil {
		b = append(b, metaVersion)
	} else {
		b = append(b, metaVersionBody)
	}
	b = binary.BigEndian.AppendUint64(b, m.fill)
	b = binary.AppendUvarint(b, uint64(m.size))
	b = binary.AppendVarint(b, m.stored.UnixNano())
	b = binary.AppendUvarint(b, m.epoch)
	b = appendString(b, m.key)
	b = appendString(b, m.url)
	b = binary.AppendUvarint(b, uint64(len(m.tags)))
	for _, t := range m.tags {
		b = appendString(b, t)
	}
	b = binary.AppendUvarint(b, uint64(len(m.extents)))
	for _, e := range m.extents {
		b = binary.AppendUvarint(b, uint64(e.segment))
		b = binary.AppendUvarint(b, uint64(e.first))
	}
	b = appendString(b, string(m.data))
	if m.body != nil {
		b = appendString(b, string(m.body))
	}
	return b
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func parseMeta(b []byte) (*meta, error) {
	if len(b) < 9 || b[0] != metaVersion && b[0] != metaVersionBody {
		return nil, fmt.Errorf("metadata of an unknown version: %w", errDamaged)
	}
	m := &meta{fill: binary.BigEndian.Uint64(b[1:])}
	d := decoder{b: b[9:]}
	m.size = int64(d.uvarint())
	m.stored = time.Unix(0, d.varint())
	m.epoch = d.uvarint()
	m.key = string(d.bytes())
	m.url = string(d.bytes())
	if n := d.count(1); n > 0 {
		m.tags = make([]string, n)
		for i := range m.tags {
			m.tags[i] = string(d.bytes())
		}
	}
	m.extents = make([]extent, d.count(2))
	for i := range m.extents {
		m.extents[i] = extent{segment: uint32(d.uvarint()), first: uint32(d.uvarint())}
	}
	m.data = append([]byte(nil), d.bytes()...)
	if b[0] == metaVersionBody {
		m.body = append([]byte{}, d.bytes()...)
	}
	if d.bad || len(d.b) != 0 || m.size < 0 || m.body != nil && int64(len(m.body)) != m.size {
		return nil, errDamaged
	}
	return m, nil
}

// segmentOf returns the segment of a chunk.
func (m *meta) segmentOf(chunk uint32) (uint32, bool) {
	for i := len(m.extents) - 1; i >= 0; i-- {
		if m.extents[i].first <= chunk {
			return m.extents[i].segment, true
		}
	}
	return 0, false
}

// decoder decodes the output of meta.append. After an error, it returns zeros, and bad is set.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	return advance(d, v, n)
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	return advance(d, v, n)
}

func advance[T uint64 | int64](d *decoder, v T, n int) T {
	if n <= 0 || d.bad {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads a number of items that take at least least bytes each.
func (d *decoder) count(least int) int {
	n := d.uvarint()
	if n > uint64(len(d.b)/least) {
		d.bad, d.b = true, nil
		return 0
	}
	return int(n)
}

func (d *decoder) bytes() []byte {
	n := d.count(1)
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}
