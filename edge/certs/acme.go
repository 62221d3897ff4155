package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

// ALPN is the protocol name of TLS-ALPN-01 challenges (RFC 8737, 6.2). Edges offer it to clients.
const ALPN = "acme-tls/1"

// ACME orders certificates from an authority (RFC 8555) and renews them. The authority says when to
// renew (RFC 9773); if it doesn't, ACME renews when a third of the lifetime is left.
type ACME struct {
	Email     string // of the account
	Directory string // URL of the authority; "" means Let's Encrypt
	Profile   string // of the authority, such as "shortlived"; "" means its default
	Roots     string // PEM file of roots to trust for Directory; "" means the system's
	// Dir is the folder for certificates. With a Vault it has copies, which the edge uses when it
	// can't reach the Vault.
	Dir   string
	Vault Vault // nil means that this is the only edge
	// Challenges answers DNS-01 challenges; nil means that DNS-01 isn't used.
	Challenges Challenges
	// Every is the time between two looks for certificates to renew; 0 means ten minutes.
	Every time.Duration

	obtained, failures atomic.Int64
	leading            atomic.Bool // this edge holds the lease
	renewing           atomic.Bool // this edge is renewing right now

	log           *slog.Logger
	cache         *certmagic.Cache
	byDNS, byHTTP *certmagic.Config
	storage       certmagic.Storage

	mu      sync.Mutex
	names   []string             // that need certificates
	loaded  map[string]string    // hash of the certificate in the cache, by name
	dirty   map[string]bool      // names to load; nil means all
	pending map[string]time.Time // last news of a challenge in the Vault, by name
	news    chan struct{}        // wakes follow; made with mu held
}

// Challenges publishes answers to DNS-01 challenges.
type Challenges interface {
	// Covers reports whether the fleet's name servers serve the zone of a host.
	Covers(host string) bool
	// Present publishes a TXT record. When it returns, all name servers answer with it.
	Present(ctx context.Context, name, value string) error
	// Remove withdraws the record.
	Remove(ctx context.Context, name, value string) error
}

const (
	presentTimeout = 45 * time.Second // for Challenges.Present
	orderTimeout   = 3 * time.Minute  // for one order
	retryFirst     = time.Minute      // wait after the first failure; doubles with each
	retryLast      = 6 * time.Hour    // longest wait
	rateLimited    = time.Hour        // shortest wait after the error rateLimited
)

// wanted returns the names that need certificates.
func (a *ACME) wanted() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.names
}

// errNotRenewing keeps certmagic's own timer from renewing. Only lead renews, because its context
// ends with the lease.
var errNotRenewing = errors.New("another edge renews it, or no site needs it any more")

// start sets certmagic up. The addresses of the edge's listeners tell certmagic that the edge
// answers challenges there, so that it opens no listeners of its own.
func (a *ACME) start(log *slog.Logger, plain, secure *net.TCPAddr) error {
	a.log = log
	if a.Every == 0 {
		a.Every = 10 * time.Minute
	}
	var roots *x509.CertPool
	if a.Roots != "" {
		pem, err := os.ReadFile(a.Roots)
		if err != nil {
			return fmt.Errorf("read the roots of the certificate authority: %w", err)
		}
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s has no PEM certificate", a.Roots)
		}
	}
	a.storage = &certmagic.FileStorage{Path: a.Dir}
	if a.Vault != nil {
		a.storage = &vaultStorage{vault: a.Vault, copies: a.Dir, may: a.leading.Load, log: log}
	}
	logger := zap.New(zapCore{log})
	a.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(c certmagic.Certificate) (*certmagic.Config, error) {
			if name := first(c.Names, ""); a.renewing.Load() && slices.Contains(a.wanted(), name) {
				return a.config(name), nil
			}
			return nil, errNotRenewing
		},
		RenewCheckInterval: a.Every,
		Logger:             zap.NewNop(), // it would log errNotRenewing again and again
	})
	conf := certmagic.Config{Storage: a.storage, Logger: logger, OnEvent: a.event,
		// Authorities are giving up OCSP and announce revocations by ARI. Fetching staples would
		// delay the start of an edge.
		OCSP: certmagic.OCSPConfig{DisableStapling: true}}
	issuer := certmagic.ACMEIssuer{CA: a.Directory, Email: a.Email, Agreed: true, Profile: a.Profile,
		TrustedRoots: roots, Logger: logger,
		CertObtainTimeout: orderTimeout, AltHTTPPort: plain.Port, AltTLSALPNPort: secure.Port}
	if !plain.IP.IsUnspecified() {
		issuer.ListenHost = plain.IP.String()
	}
	proveBy := func(issuer certmagic.ACMEIssuer) *certmagic.Config {
		c := certmagic.New(a.cache, conf)
		c.Issuers = []certmagic.Issuer{certmagic.NewACMEIssuer(c, issuer)}
		return c
	}
	a.byHTTP = proveBy(issuer)
	if a.Challenges != nil {
		issuer.DNS01Solver = dnsSolver{a.Challenges}
		a.byDNS = proveBy(issuer)
	}
	return nil
}

// config returns the configuration for the way a name is proved.
func (a *ACME) config(name string) *certmagic.Config {
	if a.byDNS != nil && a.Challenges.Covers(strings.TrimPrefix(name, "*.")) {
		return a.byDNS
	}
	return a.byHTTP
}

// serve does the work of Certificates.Serve.
func (a *ACME) serve(ctx context.Context, log *slog.Logger, ready func()) {
	defer a.cache.Stop()
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { a.follow(ctx, ready) })
	if a.Vault == nil {
		a.lead(ctx)
		return
	}
	hold(ctx, a.Vault, "leases/certificates", log, a.lead)
}

// certificates returns the cached certificates that may cover a name.
func (a *ACME) certificates(name string) []*tls.Certificate {
	var out []*tls.Certificate
	for _, c := range a.cache.AllMatchingCertificates(name) {
		if c.Leaf != nil {
			out = append(out, &c.Certificate)
		}
	}
	return out
}

// exactly returns the certificates for a name itself, without those for its wildcard.
func (a *ACME) exactly(name string) []*tls.Certificate {
	return slices.DeleteFunc(a.certificates(name), func(c *tls.Certificate) bool {
		return !slices.Contains(c.Leaf.DNSNames, name)
	})
}

// attempt is when a name may be ordered again after a failure.
type attempt struct {
	next time.Time
	wait time.Duration // grows with each failure
}

// lead orders missing certificates and renews those that are due, until ctx ends. One edge of the
// fleet at a time runs it.
func (a *ACME) lead(ctx context.Context) {
	a.leading.Store(true)
	defer a.leading.Store(false)
	failed := map[string]attempt{}
	look := time.NewTicker(min(a.Every, 5*time.Second)) // for new names and for retries
	defer look.Stop()
	var renewed, cleaned time.Time
	resealed := a.Vault == nil
	for {
		if !resealed {
			err := a.Vault.Reseal(ctx)
			if err != nil && ctx.Err() == nil {
				a.log.Warn("certificates can't be encrypted with the current fleet key", "error", err)
			}
			resealed = err == nil
		}
		a.orderAll(ctx, failed)
		if time.Since(renewed) >= a.Every {
			renewed = time.Now()
			a.renewing.Store(true)
			if err := a.cache.RenewManagedCertificates(ctx); err != nil {
				a.log.Error("certificates can't be renewed", "error", err)
			}
			a.renewing.Store(false)
		}
		if time.Since(cleaned) >= cleanEvery {
			cleaned = time.Now()
			a.clean(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

// cleanEvery is the time between two clean-ups, which delete certificates that expired a month ago.
const cleanEvery = 24 * time.Hour

// clean deletes certificates that expired a month ago.
func (a *ACME) clean(ctx context.Context) {
	options := certmagic.CleanStorageOptions{
		Logger: zap.New(zapCore{a.log}), ExpiredCerts: true, ExpiredCertGracePeriod: 30 * 24 * time.Hour,
	}
	if err := certmagic.CleanStorage(ctx, a.storage, options); err != nil && ctx.Err() == nil {
		a.log.Warn("certificates that expired long ago can't be deleted", "error", err)
	}
}

// orderAll orders missing certificates, four at a time. It leaves out names whose last order failed
// too recently.
func (a *ACME) orderAll(ctx context.Context, failed map[string]attempt) {
	var mu sync.Mutex
	var orders sync.WaitGroup
	slots := make(chan struct{}, 4)
	for _, name := range a.wanted() {
		mu.Lock()
		waits := time.Now().Before(failed[name].next)
		mu.Unlock()
		if waits || len(a.exactly(name)) > 0 {
			continue
		}
		slots <- struct{}{}
		orders.Go(func() {
			defer func() { <-slots }()
			err := a.order(ctx, name)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case ctx.Err() != nil:
			case err == nil:
				delete(failed, name)
			default:
				failed[name] = failed[name].after(err, time.Now())
				a.log.Error("no certificate yet", "name", name, "error", err, "next_attempt",
					failed[name].wait.String())
			}
		})
	}
	orders.Wait()
}

// order gets a certificate for a name unless the storage has one. It replaces a certificate that
// can't be used, such as one with the wrong key: an edge may have died while it stored the files.
func (a *ACME) order(ctx context.Context, name string) error {
	err := a.load(ctx, name)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		site := certmagic.StorageKeys.CertsSitePrefix(a.config(name).Issuers[0].IssuerKey(), name)
		if _, e := a.storage.List(ctx, site, true); e != nil {
			return errors.Join(err, e) // the storage can't be read at all
		}
		a.log.Warn("a certificate can't be used, and is ordered anew", "name", name, "error", err)
		if err := a.storage.Delete(ctx, site); err != nil {
			return err
		}
	}
	if err := a.config(name).ObtainCertSync(ctx, name); err != nil {
		return err
	}
	return a.load(ctx, name)
}

// after returns the next attempt after a failure. A fifth of the wait is random, so that names that
// failed together are not retried together.
func (t attempt) after(err error, now time.Time) attempt {
	t.wait = min(max(2*t.wait, retryFirst), retryLast)
	var problem acme.Problem
	if errors.As(err, &problem) && problem.Type == acme.ProblemTypeRateLimited {
		t.wait = max(t.wait, rateLimited)
	}
	t.next = now.Add(t.wait*9/10 + rand.N(t.wait/5))
	return t
}

// event counts and logs what certmagic does.
func (a *ACME) event(_ context.Context, event string, data map[string]any) error {
	switch event {
	case "cert_obtained":
		a.obtained.Add(1)
		a.log.Info("certificate obtained", "name", data["identifier"], "renewal", data["renewal"])
		name, _ := data["identifier"].(string)
		a.Changed(a.metaKey(name))
	case "cert_failed":
		a.failures.Add(1)
	}
	return nil
}

// challengeCertificate returns the answer to a TLS-ALPN-01 challenge, or nil if there is no order
// for the name.
func (a *ACME) challengeCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if name := strings.ToLower(hello.ServerName); !slices.Contains(a.wanted(), name) || !a.mayBeOrdering(name) {
		return nil, nil
	}
	return a.byHTTP.GetCertificate(hello)
}

// answerChallenge does the work of Certificates.AnswerChallenge. Other challenges go to the origin,
// which may order certificates itself.
func (a *ACME) answerChallenge(w http.ResponseWriter, r *http.Request, host string) bool {
	if !certmagic.LooksLikeHTTPChallenge(r) || !slices.Contains(a.wanted(), host) || !a.mayBeOrdering(host) {
		return false
	}
	issuer, ok := a.byHTTP.Issuers[0].(*certmagic.ACMEIssuer)
	return ok && issuer.HandleHTTPChallenge(w, r)
}

// dnsSolver is an acmez.Solver that hands challenges to the name servers.
type dnsSolver struct{ challenges Challenges }

// Present publishes the answer to a challenge.
func (s dnsSolver) Present(ctx context.Context, c acme.Challenge) error {
	ctx, cancel := context.WithTimeout(ctx, presentTimeout)
	defer cancel()
	if err := s.challenges.Present(ctx, c.DNS01TXTRecordName(), c.DNS01KeyAuthorization()); err != nil {
		return fmt.Errorf("publish the challenge at the name servers: %w", err)
	}
	return nil
}

// CleanUp withdraws the answer.
func (s dnsSolver) CleanUp(ctx context.Context, c acme.Challenge) error {
	return s.challenges.Remove(ctx, c.DNS01TXTRecordName(), c.DNS01KeyAuthorization())
}
