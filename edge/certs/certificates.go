package certs

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// File is a certificate with its chain and its private key, each a PEM file.
type File struct{ Cert, Key string }

// Certificates holds the certificates that an edge presents to its clients. Set its fields before
// the edge listens.
type Certificates struct {
	ACME *ACME // orders certificates; nil means that all come from files

	files atomic.Pointer[[]*tls.Certificate]
	hosts atomic.Pointer[[]string]
}

// SetFiles reads certificates from files and replaces the ones read before. If it can't read one of
// them, it returns an error for each such file and keeps the old certificates.
func (c *Certificates) SetFiles(list []File) error {
	var certs []*tls.Certificate
	var errs error
	for _, f := range list {
		cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err == nil && cert.Leaf == nil {
			cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0])
		}
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("read the certificate %s with the key %s: %w", f.Cert, f.Key, err))
			continue
		}
		certs = append(certs, &cert)
	}
	if errs != nil {
		return errs
	}
	c.files.Store(&certs)
	return nil
}

// Files returns the certificates that were read from files.
func (c *Certificates) Files() []*tls.Certificate {
	if files := c.files.Load(); files != nil {
		return *files
	}
	return nil
}

// Get chooses the certificate for a handshake. If the client names no server, or one that there is
// no certificate for, Get returns nil, and crypto/tls sends the alert unrecognized_name. There is
// no default certificate: its names would tell strangers who else is served here.
func (c *Certificates) Get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	if name == "" {
		return nil, nil
	}
	if c.ACME != nil && slices.Equal(hello.SupportedProtos, []string{ALPN}) {
		return c.ACME.challengeCertificate(hello)
	}
	certs := c.of(name)
	return choose(certs, hello, time.Now()), nil
}

// of returns the certificates for a name: from files if there are any, else from the authority.
func (c *Certificates) of(name string) []*tls.Certificate {
	if files := c.files.Load(); files != nil {
		if certs := matching(*files, name); len(certs) > 0 {
			return certs
		}
	}
	if c.ACME != nil {
		return matching(c.ACME.certificates(name), name)
	}
	return nil
}

// Has reports whether a name has a certificate that has not expired.
func (c *Certificates) Has(name string) bool {
	now := time.Now()
	return slices.ContainsFunc(c.of(name), func(cert *tls.Certificate) bool { return now.Before(cert.Leaf.NotAfter) })
}

// SetHosts sets the hosts that need certificates. Hosts that a file covers are not ordered.
func (c *Certificates) SetHosts(hosts []string) {
	c.hosts.Store(&hosts)
	if c.ACME == nil {
		return
	}
	var names []string
	for _, h := range hosts {
		if files := c.files.Load(); files == nil || !slices.ContainsFunc(*files, func(cert *tls.Certificate) bool {
			return slices.Contains(cert.Leaf.DNSNames, h) || cert.Leaf.VerifyHostname(h) == nil
		}) {
			names = append(names, h)
		}
	}
	c.ACME.setNames(names)
}

// Complete reports whether every host has a certificate that has not expired. Hosts that are
// addresses need none.
func (c *Certificates) Complete() bool {
	hosts := c.hosts.Load()
	return hosts != nil && !slices.ContainsFunc(*hosts, func(h string) bool {
		_, err := netip.ParseAddr(strings.Trim(h, "[]"))
		return err != nil && !c.Has(strings.Replace(h, "*", "any", 1))
	})
}

// matching returns the certificates that cover a name.
func matching(certs []*tls.Certificate, name string) []*tls.Certificate {
	var out []*tls.Certificate
	for _, cert := range certs {
		if cert.Leaf.VerifyHostname(name) == nil {
			out = append(out, cert)
		}
	}
	return out
}

// choose returns the best certificate for a client. One that the client supports comes first, then
// one that is valid now, then the newest. An expired certificate is better than none: the browser
// then tells its user what is wrong.
func choose(certs []*tls.Certificate, hello *tls.ClientHelloInfo, now time.Time) *tls.Certificate {
	var best *tls.Certificate
	score := func(c *tls.Certificate) int {
		n := 0
		if hello.SupportsCertificate(c) == nil {
			n += 2
		}
		if now.After(c.Leaf.NotBefore) && now.Before(c.Leaf.NotAfter) {
			n++
		}
		return n
	}
	for _, c := range certs {
		if best == nil || score(c) > score(best) || score(c) == score(best) &&
			c.Leaf.NotBefore.After(best.Leaf.NotBefore) {
			best = c
		}
	}
	return best
}

// Start gets ready to order certificates, if there is an authority. plain and secure are the edge's
// listeners for HTTP and HTTPS, to which the authority connects.
func (c *Certificates) Start(log *slog.Logger, plain, secure *net.TCPAddr) error {
	if c.ACME == nil {
		return nil
	}
	return c.ACME.start(log, plain, secure)
}

// Serve orders, renews and loads certificates until ctx ends. It calls ready once it has loaded
// those that exist, or after firstLoad.
func (c *Certificates) Serve(ctx context.Context, log *slog.Logger, ready func()) {
	if c.ACME == nil {
		ready()
		return
	}
	c.ACME.serve(ctx, log, ready)
}

// AnswerChallenge answers a request for host if it is the HTTP-01 challenge of an order of this
// fleet. It reports whether it did.
func (c *Certificates) AnswerChallenge(w http.ResponseWriter, r *http.Request, host string) bool {
	return c != nil && c.ACME != nil && c.ACME.answerChallenge(w, r, host)
}

// Describe sends nothing, which makes this an unchecked collector (prometheus.Collector).
func (c *Certificates) Describe(chan<- *prometheus.Desc) {}

// Collect sends the metrics of certificates and orders.
func (c *Certificates) Collect(out chan<- prometheus.Metric) {
	left := prometheus.NewDesc("kaiku_certificate_days_left",
		"Days until a certificate expires, negative after that; also -1 for a name without a certificate.",
		[]string{"name", "from"}, nil)
	if c.ACME != nil {
		orders := prometheus.NewDesc("kaiku_certificate_orders_total",
			"Orders of certificates by this node, by result.", []string{"result"}, nil)
		out <- prometheus.MustNewConstMetric(orders, prometheus.CounterValue, float64(c.ACME.obtained.Load()),
			"obtained")
		out <- prometheus.MustNewConstMetric(orders, prometheus.CounterValue, float64(c.ACME.failures.Load()), "failed")
	}
	for _, s := range c.Status(time.Now()) {
		days := -1.0
		if s.DaysLeft != nil {
			days = *s.DaysLeft
		}
		out <- prometheus.MustNewConstMetric(left, prometheus.GaugeValue, days, s.Name, s.From)
	}
}

// Status is how long the certificate of a name is valid.
type Status struct {
	Name string `json:"name"`
	From string `json:"from"` // "file" or "acme"
	// DaysLeft is negative after the certificate has expired, and nil if there is none yet.
	DaysLeft *float64 `json:"days_left,omitempty"`
	Days     float64  `json:"days,omitempty"` // the whole lifetime, in days
}

// Status returns the state of each name and source, sorted by name. Of several certificates for a
// name it takes the one that expires last.
func (c *Certificates) Status(now time.Time) []Status {
	const day = 24 * time.Hour
	found := map[[2]string]Status{}
	add := func(from string, certs []*tls.Certificate) {
		for _, cert := range certs {
			name := first(cert.Leaf.DNSNames, cert.Leaf.Subject.CommonName)
			left := float64(cert.Leaf.NotAfter.Sub(now)) / float64(day)
			if have, ok := found[[2]string{name, from}]; !ok || left > *have.DaysLeft {
				life := float64(cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore)) / float64(day)
				found[[2]string{name, from}] = Status{name, from, &left, life}
			}
		}
	}
	if files := c.files.Load(); files != nil {
		add("file", *files)
	}
	if c.ACME != nil {
		for _, name := range c.ACME.wanted() {
			certs := c.ACME.exactly(name)
			if add("acme", certs); len(certs) == 0 {
				found[[2]string{name, "acme"}] = Status{Name: name, From: "acme"}
			}
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b Status) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.From, b.From))
	})
}

// first returns the first element, or otherwise if there is none.
func first(list []string, otherwise string) string {
	if len(list) > 0 {
		return list[0]
	}
	return otherwise
}
