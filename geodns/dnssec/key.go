package dnssec

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

const (
	// Algorithm is ECDSA P-256 with SHA-256 (RFC 6605), which RFC 8624 recommends.
	Algorithm = 13
	// DigestType is SHA-256, the digest type of DS and CDS records (RFC 4509).
	DigestType = 2

	// Flags of a combined signing key: it signs all records, and the parent's DS record refers to
	// it (RFC 4034 section 2.1.1).
	flags     = 257
	protocol  = 3
	scalarLen = 32
	// SignatureLen is the length of a signature in octets.
	SignatureLen = 2 * scalarLen
)

// State is the place of a key in a rollover.
type State string

const (
	Active  State = "active"  // it signs the zone's records
	Next    State = "next"    // it is published, and the parent's DS record is to refer to it
	Retired State = "retired" // it is published, for signatures that are still in caches
	Leaving State = "leaving" // it is active, and the zone asks its parent to remove the DS
)

// Key is a combined signing key of a zone. Once its fields are set it is safe for concurrent use.
type Key struct {
	State State
	// Seen is when the state was first seen at all name servers. For a key whose DS record the
	// parent should have, it is when the record was seen at the parent too. It is zero before that.
	Seen    time.Time
	private *ecdsa.PrivateKey
	dnskey  []byte
	tag     uint16
}

// Generate makes a new key in the state Active.
func Generate() (*Key, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a DNSSEC key: %w", err)
	}
	return newKey(private, Active)
}

func newKey(private *ecdsa.PrivateKey, state State) (*Key, error) {
	point, err := private.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	k := &Key{State: state, private: private}
	k.dnskey = binary.BigEndian.AppendUint16(nil, flags)
	k.dnskey = append(k.dnskey, protocol, Algorithm)
	// RFC 6605 section 4 leaves out the octet that means uncompressed.
	k.dnskey = append(k.dnskey, point[1:]...)
	k.tag = tag(k.dnskey)
	return k, nil
}

// tag returns the key tag of a DNSKEY record (RFC 4034 appendix B).
func tag(rdata []byte) uint16 {
	var sum uint32
	for i, b := range rdata {
		if i&1 == 0 {
			sum += uint32(b) << 8
		} else {
			sum += uint32(b)
		}
	}
	return uint16(sum + sum>>16)
}

// Tag returns the key tag, by which signatures name their key.
func (k *Key) Tag() uint16 { return k.tag }

// DNSKEY returns the data of the key's DNSKEY and CDNSKEY records.
func (k *Key) DNSKEY() string { return string(k.dnskey) }

// DS returns the data of the key's DS and CDS records for a zone.
func (k *Key) DS(zone string) string {
	digest := sha256.Sum256(append([]byte(zone), k.dnskey...))
	data := binary.BigEndian.AppendUint16(nil, k.tag)
	data = append(data, Algorithm, DigestType)
	return string(append(data, digest[:]...))
}

// Same reports whether two keys are the same. It ignores their states.
func (k *Key) Same(other *Key) bool { return string(k.dnskey) == string(other.dnskey) }

// Sign appends the signature of a message. The same message always has the same signature (RFC
// 6979).
func (k *Key) Sign(b, message []byte) ([]byte, error) {
	digest := sha256.Sum256(message)
	der, err := k.private.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return b, fmt.Errorf("sign with key %d: %w", k.tag, err)
	}
	var r, s big.Int
	sequence, input := cryptobyte.String(nil), cryptobyte.String(der)
	if !input.ReadASN1(&sequence, asn1.SEQUENCE) || !sequence.ReadASN1Integer(&r) || !sequence.ReadASN1Integer(&s) {
		return b, fmt.Errorf("sign with key %d: malformed signature", k.tag)
	}
	at := len(b)
	b = append(b, make([]byte, SignatureLen)...)
	r.FillBytes(b[at : at+scalarLen])
	s.FillBytes(b[at+scalarLen:])
	return b, nil
}
