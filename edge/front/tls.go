package front

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"strconv"
	"time"
)

// ticketTime is how long a key makes session tickets. A ticket is valid for one to two periods of
// that length.
const ticketTime = 12 * time.Hour

// clientTLS returns the TLS settings for clients: TLS 1.2 and 1.3. Cipher suites of 1.2 are those
// with forward secrecy and authenticated encryption. The curves are Go's default, which prefers the
// hybrid post-quantum ones (X25519MLKEM768).
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

// secretFor derives a key for one purpose from a secret that all edges share (RFC 5869).
func secretFor(secret [32]byte, purpose string) [32]byte {
	b, err := hkdf.Key(sha256.New, secret[:], nil, "kaiku "+purpose, 32)
	if err != nil {
		panic(err) // it fails only for excessive lengths
	}
	return [32]byte(b)
}

// ticketKeys returns the keys of session tickets. The first makes tickets. The keys of the periods
// before and after are accepted too, because the clock of the edge that made a ticket may be ahead,
// and so are those of the other secrets.
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

// rotateTickets replaces the keys of session tickets at the end of each period, until ctx ends.
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
