package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
)

// IsTimeout reports whether Fetch failed because a server did not respond in time. The status for
// that is 504, not 502 (RFC 9110, section 15.6.5).
func IsTimeout(err error) bool {
	if all, ok := err.(interface{ Unwrap() []error }); ok { // errors of several servers
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

// isDial reports whether err is a failure to open a connection.
func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// refuses reports whether err means that the server takes no connections. A certificate that can't
// be verified does not count as that.
func refuses(err error, connected bool) bool {
	return !connected && !errors.As(err, new(*tls.CertificateVerificationError))
}

// MayBeTheRequests reports whether the header of a request may have caused err, so that a request
// for the same URL with another header may succeed: a server closed the connection, or the request
// can't be sent.
func MayBeTheRequests(err error) bool {
	reason := Reason(err)
	return reason == "connection-error" || reason == "client-error"
}

// Reason returns a short identifier of the failure, such as "timeout", for logs and the
// Cache-Status header.
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
	case errors.As(err, new(*S3Error)):
		return "s3-refused"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, ErrDown):
		return "origin-down"
	}
	return "connection-error"
}
