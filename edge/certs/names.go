package certs

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
)

// setNames sets the names to order from the hosts that need certificates. A host needs no
// certificate of its own if its wildcard is among the hosts.
func (a *ACME) setNames(hosts []string) {
	can := func(h string) bool { // a wildcard needs DNS-01 (RFC 8555, 7.1.3)
		return certmagic.SubjectQualifiesForCert(h) && !certmagic.SubjectIsIP(h) &&
			(!strings.HasPrefix(h, "*.") || a.Challenges != nil && a.Challenges.Covers(h[2:]))
	}
	var names []string
	for _, h := range hosts {
		_, parent, _ := strings.Cut(h, ".")
		if w := "*." + parent; can(h) && (strings.HasPrefix(h, "*.") || !slices.Contains(hosts, w) || !can(w)) {
			names = append(names, h)
		}
	}
	slices.Sort(names)
	a.mu.Lock()
	a.names, a.dirty = slices.Compact(names), nil
	a.mu.Unlock()
	a.wake()
}

// Changed must be called when the value of a key in the Vault has changed. The edge then loads the
// certificate that belongs to the key, or expects a challenge.
func (a *ACME) Changed(key string) {
	a.mu.Lock()
	if strings.Contains(key, "/challenge_tokens/") {
		if a.pending == nil {
			a.pending = map[string]time.Time{}
		}
		for _, name := range a.names { // nodes may store any number of others
			if strings.HasSuffix(key, "/"+certmagic.StorageKeys.Safe(name)+".json") {
				a.pending[name] = time.Now()
			}
		}
		maps.DeleteFunc(a.pending, func(name string, _ time.Time) bool { return !slices.Contains(a.names, name) })
	}
	for _, name := range a.names {
		if a.dirty != nil && a.metaKey(name) == key { // stored after the certificate and its key
			a.dirty[name] = true
		}
	}
	a.mu.Unlock()
	a.wake()
}

// challengeTime is how long a challenge may be requested after the last news of it.
const challengeTime = 10 * time.Minute

// metaKey returns the key of the file that is stored last when a certificate is stored.
func (a *ACME) metaKey(name string) string {
	return certmagic.StorageKeys.SiteMeta(a.byHTTP.Issuers[0].IssuerKey(), name)
}

// mayBeOrdering reports whether an order for a name may be under way in the fleet. Anyone can send
// requests that look like challenges. They cost a look-up in the Vault only if mayBeOrdering
// returns true.
func (a *ACME) mayBeOrdering(name string) bool {
	if _, here := certmagic.GetACMEChallenge(name); here || a.Vault == nil {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	at, ok := a.pending[name]
	return ok && time.Since(at) < challengeTime
}

// wake makes follow look for dirty names.
func (a *ACME) wake() {
	select {
	case a.changed() <- struct{}{}:
	default:
	}
}

func (a *ACME) changed() chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.news == nil {
		a.news = make(chan struct{}, 1)
	}
	return a.news
}

const (
	firstLoad   = 3 * time.Second        // how long the edge waits for certificates before it takes clients
	startTime   = 20 * time.Second       // no warnings before that, as the control plane may be starting too
	loadAgain   = 200 * time.Millisecond // wait after a failure
	reloadEvery = 10 * time.Minute       // load everything, in case news was lost
)

// follow loads certificates from the storage as they change. It calls ready as described at
// Certificates.Serve.
func (a *ACME) follow(ctx context.Context, ready func()) {
	defer ready()
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	for began := time.Now(); ; {
		err := a.loadDirty(ctx)
		if err == nil || time.Since(began) > firstLoad {
			ready()
		}
		var again <-chan time.Time
		if err != nil {
			again = time.After(loadAgain)
			if time.Since(began) > startTime && ctx.Err() == nil {
				a.log.Warn("certificates can't be read from the control plane; the copies on this disk are used",
					"error", err)
				again = time.After(time.Minute)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-a.changed():
		case <-again:
		case <-tick.C:
			a.mu.Lock()
			a.dirty = nil
			a.mu.Unlock()
		}
	}
}

// loadDirty loads the certificates of dirty names and drops those of names that are no longer
// wanted. After an error the names that are not loaded stay dirty.
func (a *ACME) loadDirty(ctx context.Context) error {
	a.mu.Lock()
	names := slices.Clone(a.names)
	if a.dirty != nil {
		names = slices.DeleteFunc(names, func(n string) bool { return !a.dirty[n] })
	} else {
		a.dirty = map[string]bool{}
		for _, n := range names {
			a.dirty[n] = true
		}
	}
	var gone []string
	for name, hash := range a.loaded {
		if !slices.Contains(a.names, name) {
			gone = append(gone, hash)
			delete(a.loaded, name)
		}
	}
	a.mu.Unlock()
	a.cache.Remove(gone)
	for _, name := range names {
		a.mu.Lock()
		delete(a.dirty, name) // before the load, so that news that arrives meanwhile counts
		a.mu.Unlock()
		if err := a.load(ctx, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			a.mu.Lock()
			if a.dirty != nil {
				a.dirty[name] = true
			}
			a.mu.Unlock()
			return err
		}
	}
	return nil
}

// load puts the stored certificate of a name into the cache and drops older ones.
func (a *ACME) load(ctx context.Context, name string) error {
	loaded, err := a.config(name).CacheManagedCertificate(ctx, name)
	if err != nil {
		return err
	}
	a.mu.Lock()
	if a.loaded == nil {
		a.loaded = map[string]string{}
	}
	a.loaded[name] = loaded.Hash()
	a.mu.Unlock()
	var older []string
	for _, c := range a.cache.AllMatchingCertificates(name) {
		if c.Leaf != nil && slices.Contains(c.Names, name) && c.Leaf.NotBefore.Before(loaded.Leaf.NotBefore) {
			older = append(older, c.Hash())
		}
	}
	a.cache.Remove(older)
	return nil
}
