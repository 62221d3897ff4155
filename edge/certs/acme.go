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

// ALPN is the protocol of a handshake that is a TLS-ALPN-01 challenge (RFC 8737, 6.2).
const ALPN = "acme-tls/1"

// ACME gets certificates from an authority (RFC 8555) and keeps them renewed. Of the edges of a fleet one at a time, which holds a lease in the Vault, orders and renews; all
// take from there what it gets. Names that Challenges covers are proved by DNS-01, others by HTTP-01 and TLS-ALPN-01, which any edge can answer, as what is
// to be answered is in the Vault too. When to renew is what the authority says (RFC 9773), else when a third of the lifetime is left.
type ACME struct {
	Email     string // of the account
	Directory string // URL; "" means that of Let's Encrypt
	Profile   string // one that the authority has, as shortlived; "" means the authority's default
	Roots     string // PEM file of the authorities that the directory's own certificate may be of; "" means the system's
	// Dir is the folder that certificates are kept in; with a Vault these are copies, for when it can't be reached.
	Dir   string
	Vault Vault // nil means that there is one edge
	// Challenges answers DNS-01; nil means that it isn't used.
	Challenges Challenges
	// Every is how often it is looked whether a certificate is to be renewed; 0 means ten minutes.
	Every time.Duration

	obtained, failures atomic.Int64
	leading            atomic.Bool // this process orders
	renewing           atomic.Bool // and looks for what is to be renewed

	log           *slog.Logger
	cache         *certmagic.Cache
	byDNS, byHTTP *certmagic.Config
	storage       certmagic.Storage

	mu      sync.Mutex
	names   []string             // wanted
	loaded  map[string]string    // names whose certificate is in the cache, with its hash
	dirty   map[string]bool      // names whose certificate is to be loaded; nil means all
	pending map[string]time.Time // names whose challenges in the Vault were heard of, and when
	news    chan struct{}        // there are dirty names; made with mu held
}

// Challenges puts DNS-01 challenges where the authority looks for them.
type Challenges interface {
	// Covers says whether it can answer for a host.
	Covers(host string) bool
	// Present has a TXT record answered by all name servers when it returns.
	Present(ctx context.Context, name, value string) error
	// Remove takes it back.
	Remove(ctx context.Context, name, value string) error
}

const (
	presentTimeout = 45 * time.Second // for all name servers to have a challenge
	orderTimeout   = 3 * time.Minute  // for one order
	retryFirst     = time.Minute      // after an order that failed; doubled each time
	retryLast      = 6 * time.Hour
	rateLimited    = time.Hour // at least, if the authority says that there were too many
)

// wanted are the names that there have to be certificates for.
func (a *ACME) wanted() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.names
}

// errNotRenewing keeps certmagic's own timer from doing what lead does, whose context ends with the lease.
var errNotRenewing = errors.New("another edge renews, or nobody wants it any more")

// start makes what certmagic needs. It is told the listeners for plain HTTP and for TLS, so that it sees that the challenges that come there are answered already.
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
			return fmt.Errorf("%s has no certificate in PEM", a.Roots)
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
		Logger:             zap.NewNop(), // it would tell again and again that another edge renews
	})
	conf := certmagic.Config{Storage: a.storage, Logger: logger, OnEvent: a.event,
		// Authorities give up OCSP, and tell of revocations by ARI; asking for staples would hold up the start of an edge.
		OCSP: certmagic.OCSPConfig{DisableStapling: true}}
	issuer := certmagic.ACMEIssuer{CA: a.Directory, Email: a.Email, Agreed: true, Profile: a.Profile, TrustedRoots: roots, Logger: logger,
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

// config is how a name is proved.
func (a *ACME) config(name string) *certmagic.Config {
	if a.byDNS != nil && a.Challenges.Covers(strings.TrimPrefix(name, "*.")) {
		return a.byDNS
	}
	return a.byHTTP
}

// serve keeps certificates until ctx ends. It calls ready once it has those that there are, or has tried for a while.
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

// certificates are those that may be for a name.
func (a *ACME) certificates(name string) []*tls.Certificate {
	var out []*tls.Certificate
	for _, c := range a.cache.AllMatchingCertificates(name) {
		if c.Leaf != nil {
			out = append(out, &c.Certificate)
		}
	}
	return out
}

// exactly are those of a name itself, not of its wildcard.
func (a *ACME) exactly(name string) []*tls.Certificate {
	return slices.DeleteFunc(a.certificates(name), func(c *tls.Certificate) bool { return !slices.Contains(c.Leaf.DNSNames, name) })
}

// attempt is when a name may be ordered again.
type attempt struct {
	next time.Time
	wait time.Duration
}

// lead orders what lacks and renews what is due, until ctx ends. It is for one edge of the fleet at a time.
func (a *ACME) lead(ctx context.Context) {
	a.leading.Store(true)
	defer a.leading.Store(false)
	failed := map[string]attempt{}
	look := time.NewTicker(min(a.Every, 5*time.Second)) // for names that are new, and for orders that are to be tried again
	defer look.Stop()
	var renewed, cleaned time.Time
	resealed := a.Vault == nil
	for {
		if !resealed {
			err := a.Vault.Reseal(ctx)
			if err != nil && ctx.Err() == nil {
				a.log.Warn("certificates can't be encrypted with the fleet key that is used now", "error", err)
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
			if err := certmagic.CleanStorage(ctx, a.storage, certmagic.CleanStorageOptions{Logger: zap.New(zapCore{a.log}), ExpiredCerts: true, ExpiredCertGracePeriod: 30 * 24 * time.Hour}); err != nil && ctx.Err() == nil {
				a.log.Warn("certificates that expired long ago can't be cleaned up", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

// cleanEvery is how often certificates are thrown away that expired a month ago.
const cleanEvery = 24 * time.Hour

// orderAll orders what lacks, a few at a time, except what failed and is to wait.
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
				a.log.Error("no certificate yet", "name", name, "error", err, "next_attempt", failed[name].wait.String())
			}
		})
	}
	orders.Wait()
}

// order gets the certificate of a name, if the storage has none, or one that can't be used, as when its key is that of another: who stored it died in the middle.
func (a *ACME) order(ctx context.Context, name string) error {
	err := a.load(ctx, name)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		site := certmagic.StorageKeys.CertsSitePrefix(a.config(name).Issuers[0].IssuerKey(), name)
		if _, e := a.storage.List(ctx, site, true); e != nil {
			return errors.Join(err, e) // it can't be asked at all
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

// after is the next attempt after one that failed. A fifth of the wait is by chance, so that names that failed together are not all tried together.
func (t attempt) after(err error, now time.Time) attempt {
	t.wait = min(max(2*t.wait, retryFirst), retryLast)
	var problem acme.Problem
	if errors.As(err, &problem) && problem.Type == acme.ProblemTypeRateLimited {
		t.wait = max(t.wait, rateLimited)
	}
	t.next = now.Add(t.wait*9/10 + rand.N(t.wait/5))
	return t
}

// event counts and tells what certmagic does.
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

// challengeCertificate is the answer to a TLS-ALPN-01 challenge; nil if no order has one for the name.
func (a *ACME) challengeCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if name := strings.ToLower(hello.ServerName); !slices.Contains(a.wanted(), name) || !a.asked(name) {
		return nil, nil
	}
	return a.byHTTP.GetCertificate(hello)
}

// answerChallenge answers an HTTP-01 challenge, and reports whether the request was one of an order of this fleet. The origin may have orders of its own.
func (a *ACME) answerChallenge(w http.ResponseWriter, r *http.Request, host string) bool {
	if !certmagic.LooksLikeHTTPChallenge(r) || !slices.Contains(a.wanted(), host) || !a.asked(host) {
		return false
	}
	issuer, ok := a.byHTTP.Issuers[0].(*certmagic.ACMEIssuer)
	return ok && issuer.HandleHTTPChallenge(w, r)
}

// dnsSolver gives certmagic's challenges to the name servers. Its methods are those of acmez.Solver.
type dnsSolver struct{ challenges Challenges }

// Present has a challenge answered.
func (s dnsSolver) Present(ctx context.Context, c acme.Challenge) error {
	ctx, cancel := context.WithTimeout(ctx, presentTimeout)
	defer cancel()
	if err := s.challenges.Present(ctx, c.DNS01TXTRecordName(), c.DNS01KeyAuthorization()); err != nil {
		return fmt.Errorf("have the name servers answer the challenge: %w", err)
	}
	return nil
}

// CleanUp takes it back.
func (s dnsSolver) CleanUp(ctx context.Context, c acme.Challenge) error {
	return s.challenges.Remove(ctx, c.DNS01TXTRecordName(), c.DNS01KeyAuthorization())
}
