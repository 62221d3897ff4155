package front

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"strconv"
	"time"
)

// ticketTime is how long a key of session tickets is used. A ticket is good for one to two of
// these.
const ticketTime = 12 * time.Hour

// clientTLS is how clients are spoken to: TLS 1.2 and 1.3, of 1.2 only what is forward secret and
// authenticated, the curves that Go prefers, of which the first are the hybrid post-quantum ones
// (X25519MLKEM768).
func (s *Server) clientTLS(protocols ...string) *tls.Config {
	return &tls.Config{
		GetCertificate: s.GetCertificate,
		MinVersion:     tls.VersionTLS12,
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		NextProtos: protocols,
	}
}

// secretFor derives a key for a purpose from a secret that the edges share (RFC 5869).
func secretFor(secret [32]byte, purpose string) [32]byte {
	b, err := hkdf.Key(sha256.New, secret[:], nil, "kaiku "+purpose, 32)
	if err != nil {
		panic(err) // only for lengths that it can't make
	}
	return [32]byte(b)
}

// ticketKeys are the keys of session tickets: the first makes them. Those of the time before and
// after are accepted too, as the clock of the edge that made a ticket may be ahead, and so are
// those of the other secrets.
func (s *Server) ticketKeys(now time.Time) [][32]byte {
	n := now.UnixNano() / int64(ticketTime)
	var keys [][32]byte
	for _, secret := range s.Secrets {
		for _, period := range []int64{n, n - 1, n + 1} {
			keys = append(keys, secretFor(secret, "session tickets "+strconv.FormatInt(period, 10)))
		}
	}
	return keys
}

// rotateTickets changes the keys of session tickets when their time is over, until ctx ends.
func (s *Server) rotateTickets(ctx context.Context, configs ...*tls.Config) {
	for ctx.Err() == nil {
		now := time.Now()
		for _, c := range configs {
			c.SetSessionTicketKeys(s.ticketKeys(now))
		}
		select {
		case <-time.After(now.Truncate(ticketTime).Add(ticketTime).Sub(now)):
		case <-ctx.Done():
		}
	}
}
