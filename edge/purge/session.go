package purge

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A browser signs in with a token and gets a session of two halves: an id in a cookie, which no
// script can read, and a key, which the page's script sends with each request in the field
// KeyField. Each half alone is worth nothing. Another web page can make the browser send the
// cookie, and servers on other ports of the host get it too, because cookies have no ports. But
// neither has the key, which the browser keeps for the page's own origin.
//
// A session ends when its user signs out, when its token is replaced, and after sessionLife.
type sessions struct {
	mu   sync.Mutex
	by   map[[32]byte]session           // by the hash of the id
	lost map[netip.Prefix]*rate.Limiter // failures to sign in, by the client's network
}

type session struct {
	key   [32]byte // hash of the key
	token [32]byte // hash of the token
	until time.Time
}

// KeyField is the header field with the key of a session.
const KeyField = "X-Kaiku-Key"

const (
	sessionLife = 12 * time.Hour
	maxSessions = 256
	// maxSignIn is the largest body of a request to sign in.
	maxSignIn = 4 << 10
	// A network may fail to sign in failures times, and once more every failureEvery.
	failures     = 10
	failureEvery = 6 * time.Second
	maxNetworks  = 1024 // whose failures are counted
)

// signedIn is the answer to POST /v1/session.
type signedIn struct {
	Key string `json:"key"`
}

// Endpoints returns the routes by which browsers sign in and out.
func (t *Tokens) Endpoints() []Endpoint {
	return []Endpoint{
		{Method: "POST", Path: "/v1/session", Public: true, Serve: t.serveSignIn, Fail: Fail},
		{Method: "DELETE", Path: "/v1/session", Serve: t.serveSignOut, Fail: Fail},
	}
}

// serveSignIn answers POST /v1/session.
func (t *Tokens) serveSignIn(w http.ResponseWriter, r *http.Request) {
	if !IsJSON(r.Header) { // so another web page can't sign its visitor in
		Fail(w, http.StatusUnsupportedMediaType, "want Content-Type: application/json")
		return
	}
	if !t.Any() {
		Fail(w, http.StatusConflict, "this node has no tokens, so nobody has to sign in")
		return
	}
	from := t.sessions.networkOf(r)
	if !t.sessions.mayTry(from) {
		w.Header().Set("Retry-After", "6")
		Fail(w, http.StatusTooManyRequests, "too many wrong tokens from your network: try again in a few seconds")
		return
	}
	var in struct {
		Token string `json:"token"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxSignIn)).Decode(&in); err != nil {
		Fail(w, http.StatusBadRequest, "read the token: "+err.Error())
		return
	}
	g := t.grant(strings.TrimSpace(in.Token))
	if g == nil {
		t.sessions.failed(from)
		Fail(w, http.StatusUnauthorized, "this node doesn't accept the token: it is wrong, or was replaced")
		return
	}
	if old, err := r.Cookie(cookieName(r)); err == nil {
		t.sessions.end(sha256.Sum256([]byte(old.Value)))
	}
	id, key := rand.Text(), rand.Text()
	t.sessions.add(id, session{sha256.Sum256([]byte(key)), g.token, time.Now().Add(sessionLife)})
	http.SetCookie(w, sessionCookie(r, id, sessionLife))
	w.Header().Set("Cache-Control", "no-store")
	WriteJSON(w, http.StatusOK, signedIn{key})
}

// serveSignOut answers DELETE /v1/session.
func (t *Tokens) serveSignOut(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(cookieName(r)); err == nil {
		t.sessions.end(sha256.Sum256([]byte(c.Value)))
	}
	http.SetCookie(w, sessionCookie(r, "", -time.Second))
	WriteJSON(w, http.StatusOK, struct{}{})
}

// cookieName returns the name of the cookie of a listener. It has the port, because a browser sends
// the cookies of all ports of a host, and tunnels to several nodes differ by their port only.
func cookieName(r *http.Request) string {
	_, port, _ := net.SplitHostPort(r.Host)
	return "kaiku_" + cmp.Or(port, "session")
}

func sessionCookie(r *http.Request, id string, life time.Duration) *http.Cookie {
	return &http.Cookie{Name: cookieName(r), Value: id, Path: "/", MaxAge: int(life / time.Second), HttpOnly: true,
		Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode}
}

// grantOf returns the grant of a request: of its token, or of its session. It returns nil if there
// is none.
func (t *Tokens) grantOf(r *http.Request) *Grant {
	if secret := secretOf(r.Header); secret != "" {
		return t.grant(secret)
	}
	c, err := r.Cookie(cookieName(r))
	if err != nil {
		return nil
	}
	id := sha256.Sum256([]byte(c.Value))
	s, ok := t.sessions.get(id)
	key := sha256.Sum256([]byte(r.Header.Get(KeyField)))
	if !ok || subtle.ConstantTimeCompare(key[:], s.key[:]) != 1 {
		return nil
	}
	g := t.grantByHash(s.token)
	if g == nil {
		t.sessions.end(id) // the token was replaced
		return nil
	}
	g.session = id
	return g
}

// Holds reports whether a grant that was given earlier still has a scope: its token and its session
// may have ended.
func (t *Tokens) Holds(g *Grant, scope string) bool {
	if g.token == [32]byte{} {
		return !t.Any()
	}
	if _, ok := t.sessions.get(g.session); !ok && g.session != [32]byte{} {
		return false
	}
	now := t.grantByHash(g.token)
	return now != nil && now.has(scope)
}

func (s *sessions) get(id [32]byte) (session, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, ok := s.by[id]
	if ok && time.Now().After(found.until) {
		delete(s.by, id)
		ok = false
	}
	return found, ok
}

// add adds a session. If there are too many, the one that ends first makes room.
func (s *sessions) add(id string, n session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil {
		s.by = map[[32]byte]session{}
	}
	if len(s.by) >= maxSessions {
		var first [32]byte
		for id, o := range s.by {
			if f, ok := s.by[first]; !ok || o.until.Before(f.until) {
				first = id
			}
		}
		delete(s.by, first)
	}
	s.by[sha256.Sum256([]byte(id))] = n
}

func (s *sessions) end(id [32]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.by, id)
}

// networkOf returns the network of a client: an IPv4 address or an IPv6 /64.
func (s *sessions) networkOf(r *http.Request) netip.Prefix {
	from, _ := netip.ParseAddrPort(r.RemoteAddr)
	ip := from.Addr().Unmap().WithZone("")
	network, _ := ip.Prefix(min(ip.BitLen(), 64))
	return network
}

// mayTry reports whether a network may try to sign in.
func (s *sessions) mayTry(from netip.Prefix) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lost[from]
	return l == nil || l.Tokens() >= 1
}

// failed counts a failure to sign in.
func (s *sessions) failed(from netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost == nil {
		s.lost = map[netip.Prefix]*rate.Limiter{}
	}
	l := s.lost[from]
	if l == nil {
		for network := range s.lost { // of those that are many, any one makes room
			if len(s.lost) < maxNetworks {
				break
			}
			delete(s.lost, network)
		}
		l = rate.NewLimiter(rate.Every(failureEvery), failures)
		s.lost[from] = l
	}
	l.Allow()
}
