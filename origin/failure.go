package origin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"
)

// ServerError is the failure of one server to answer a request or a probe.
type ServerError struct {
	Err error
	p   *Pool
	b   *backend // only fields that Start sets are read
}

// Error names the server and the failure on one line. Because servers can influence the text, its
// length is limited to maxErrorText.
func (e *ServerError) Error() string { return "origin " + e.b.addr + ": " + sanitize(e.Err.Error()) }

// Unwrap returns the underlying error.
func (e *ServerError) Unwrap() error { return e.Err }

// maxErrorText is the maximum length of an error text that a server can influence, in bytes.
const maxErrorText = 400

// sanitize replaces unprintable characters of s, such as line feeds and escape codes, with spaces,
// and cuts s to maxErrorText.
func sanitize(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s[:min(len(s), 2*maxErrorText)])
	if len(s) <= maxErrorText {
		return s
	}
	s = s[:maxErrorText]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + "…"
}

// Failure describes an error of a server or of Fetch for the log and for Status.
type Failure struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason"` // as Reason returns it
	Error  string    `json:"error"`
	Hint   string    `json:"hint,omitempty"` // what the operator can do about it
}

// FailureOf describes an error that Fetch returned.
func FailureOf(err error, at time.Time) Failure {
	f := Failure{At: at, Reason: Reason(err), Error: sanitize(err.Error())}
	var server *ServerError
	switch {
	case errors.As(err, &server):
		f.Hint = server.Hint()
	case errors.Is(err, ErrBusy):
		f.Hint = "all servers have as many active requests as origin.max_requests and origin.max_connections allow, or streaming requests have three quarters of that (kaiku_origin_streams): raise these limits, or add servers"
	}
	return f
}

// lastFailure describes the last failure of b. b.lastErr must not be nil. The caller holds mu.
func (p *Pool) lastFailure(b *backend) Failure {
	f := FailureOf(&ServerError{b.lastErr, p, b}, b.lastErrAt)
	f.Error = sanitize(b.lastErr.Error()) // without the name of the server
	return f
}

// configKey returns the name of a setting as hints write it: its key in the fleet file, or its flag
// if the pool comes from flags and has one for it.
func (p *Pool) configKey(name string) string {
	switch {
	case !p.Flags:
		return name
	case name == "origin.servers":
		return "--origin"
	case name == "origin.host":
		return "--host"
	}
	return name + " of a fleet file"
}

// Hint says what the operator can do about the error. It returns "" if it has no advice.
func (e *ServerError) Hint() string {
	if hint := e.hintTLS(); hint != "" {
		return hint
	}
	server, addr := e.b.URL.Scheme+"://"+e.b.URL.Host, e.b.addr
	var dns *net.DNSError
	var s3 *S3Error
	switch err := e.Err; {
	case errors.As(err, &s3):
		return s3.hint()
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Sprintf("the name %s has no address: check it in %s", e.b.URL.Hostname(),
			e.p.configKey("origin.servers"))
	case errors.As(err, &dns):
		return fmt.Sprintf("this machine's resolver did not find the address of %s: check /etc/resolv.conf, and the name in %s", e.b.URL.Hostname(), e.p.configKey("origin.servers"))
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("nothing listens on %s: check that the server runs, and the host and port in %s", addr,
			e.p.configKey("origin.servers"))
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return fmt.Sprintf("this machine has no route to %s: check the host in %s, and the firewalls on the way", addr,
			e.p.configKey("origin.servers"))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return fmt.Sprintf("%s closed the connection without a response: look at its log", server)
	case errors.Is(err, errStatus):
		return fmt.Sprintf("%s itself sends this response: look at its log", server)
	case errors.Is(err, errProbe):
		return fmt.Sprintf("%s answers, but not as its health check wants: check path, status and match in %s", server,
			e.p.configKey("origin.health"))
	case errors.Is(err, errStalled):
		return fmt.Sprintf("%s sent a part of a body, then nothing for %v (%s): look at its log", server,
			e.p.BetweenBytesTimeout, e.p.configKey("origin.between_bytes_timeout"))
	case IsTimeout(err) && isDial(err):
		return fmt.Sprintf("%s accepted no connection within %v (%s): check the host and port in %s, and the firewalls on the way", addr, e.p.ConnectTimeout, e.p.configKey("origin.connect_timeout"), e.p.configKey("origin.servers"))
	// Only probes have a deadline.
	case errors.Is(err, context.DeadlineExceeded) && e.p.Health != nil:
		return fmt.Sprintf("%s did not answer a health check within %v (%s): check its path, and the firewalls on the way", server, e.p.Health.Timeout, e.p.configKey("origin.health.timeout"))
	case IsTimeout(err):
		return fmt.Sprintf("%s accepted the connection but sent no answer within %v (%s): look at its log", server,
			e.p.FirstByteTimeout, e.p.configKey("origin.first_byte_timeout"))
	}
	return ""
}

// hintTLS is the part of Hint for TLS errors.
func (e *ServerError) hintTLS() string {
	server := e.b.URL.Scheme + "://" + e.b.URL.Host
	var name x509.HostnameError
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	switch err := e.Err; {
	case errors.As(err, &name):
		return fmt.Sprintf("the certificate of %s is for %s, not for %s: %s", server,
			certificateNames(name.Certificate), sanitize(name.Host), e.nameHint())
	case errors.As(err, &authority):
		return fmt.Sprintf("the certificate of %s is not signed by a CA that this machine trusts: set %s to the file of its CA, or make the server send its intermediate certificates too", server, e.p.configKey("origin.ca"))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		return fmt.Sprintf("the certificate of %s is valid from %s to %s: renew it, and check this machine's clock",
			server,
			invalid.Cert.NotBefore.UTC().Format(time.DateTime), invalid.Cert.NotAfter.UTC().Format(time.DateTime))
	case errors.As(err, &record) && string(record.RecordHeader[:]) == "HTTP/":
		return fmt.Sprintf("%s speaks plain HTTP: write http:// in %s", server, e.p.configKey("origin.servers"))
	case errors.As(err, &record), errors.Is(err, errHandshake):
		return fmt.Sprintf("%s does not speak TLS: check the port in %s", server, e.p.configKey("origin.servers"))
	case strings.Contains(err.Error(), `malformed HTTP response "\x15\x03`): // a TLS alert record
		return fmt.Sprintf("%s speaks TLS: write https:// in %s", server, e.p.configKey("origin.servers"))
	}
	switch tlsAlert(e.Err) {
	case "tls: bad certificate", "tls: unknown certificate authority", "tls: certificate required":
		return fmt.Sprintf("%s rejects the client certificate: check %s", server,
			e.p.configKey("origin.client_certificate"))
	case "tls: unrecognized name", "tls: handshake failure":
		return fmt.Sprintf("%s refuses the TLS handshake, perhaps because it has no certificate for the name that the edge sent: %s", server, e.nameHint())
	}
	return ""
}

// tlsAlert returns the text of the TLS alert with which the server ended the handshake, or "". The
// alert type itself is internal to crypto/tls.
func tlsAlert(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" {
		return op.Err.Error()
	}
	return ""
}

// nameHint says which key changes the name that the server's certificate is verified for.
func (e *ServerError) nameHint() string {
	switch {
	case e.p.SNI != "":
		return fmt.Sprintf("correct %s", e.p.configKey("origin.sni"))
	case e.p.Host != "" && e.p.Host != ClientHost:
		return fmt.Sprintf("%s is another name: correct it, or set %s to a name in the certificate",
			e.p.configKey("origin.host"), e.p.configKey("origin.sni"))
	case httpsByName(e.b.URL):
		return fmt.Sprintf("use a name of the certificate in %s, or set %s to such a name",
			e.p.configKey("origin.servers"), e.p.configKey("origin.sni"))
	}
	return fmt.Sprintf("set %s to a name in the certificate", e.p.configKey("origin.sni"))
}

// maxNames is the maximum number of a certificate's names in a hint.
const maxNames = 6

// certificateNames lists the DNS names and IP addresses of c.
func certificateNames(c *x509.Certificate) string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "no name"
	}
	more := ""
	if n := len(names) - maxNames; n > 0 {
		names, more = names[:maxNames], fmt.Sprintf(" and %d more", n)
	}
	return sanitize(strings.Join(names, ", ")) + more
}
