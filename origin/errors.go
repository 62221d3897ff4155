package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
)

// IsTimeout reports whether a Fetch failed because a server did not answer in time: 504 rather than
// 502 (RFC 9110, 15.6.5).
func IsTimeout(err error) bool {
	if all, ok := err.(interface{ Unwrap() []error }); ok { // of several servers
		return slices.ContainsFunc(all.Unwrap(), IsTimeout)
	}
	var t interface{ Timeout() bool }
	if errors.As(err, &t) && t.Timeout() {
		return true
	}
	if inner := errors.Unwrap(err); inner != nil {
		return IsTimeout(inner)
	}
	return false
}

// isDial reports whether an error is of a connection that could not be made.
func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// refuses reports whether an error of a request is that the server takes no connections: there was
// none, and not because its certificate is wrong.
func refuses(err error, connected bool) bool {
	return !connected && !errors.As(err, new(*tls.CertificateVerificationError))
}

// MayBeTheRequests reports whether a Fetch may have failed by what the fields of its request are,
// so that a request for the same with other fields may not: a server ended the connection, or the
// request can't be sent.
func MayBeTheRequests(err error) bool {
	reason := Reason(err)
	return reason == "connection-error" || reason == "client-error"
}

// Reason names the failure of a Fetch in a word, for a log or Cache-Status.
func Reason(err error) string {
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.Is(err, ErrBusy):
		return "origin-busy"
	case errors.Is(err, ErrShare):
		return "client-limit"
	case errors.As(err, new(*RequestError)):
		return "client-error"
	case errors.As(err, &dns):
		return "dns-error"
	case errors.As(err, &cert):
		return "tls-certificate-error"
	case IsTimeout(err):
		return "timeout"
	case isDial(err):
		return "connect-failed"
	case errors.Is(err, errStatus):
		return "server-error"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, ErrDown):
		return "origin-down"
	}
	return "connection-error"
}
