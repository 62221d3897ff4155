package rules

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const (
	maxUsers    = 10_000
	maxVerified = 1024 // credentials that an Auth remembers
	maxCost     = 12   // of bcrypt; takes a quarter of a second of one core
	maxWaiting  = 16   // requests that wait for a hash
	maxPassword = 72   // bytes; bcrypt ignores the rest
)

// The results of a check of a password, in metrics and in Cache-Status.
const (
	AuthWrong = "auth-wrong" // or no password
	AuthBusy  = "auth-busy"  // too many other requests wait for the check of theirs
	AuthLimit = "auth-limit" // too many wrong passwords from the client's network
)

// Auth is HTTP Basic authentication (RFC 7617) against passwords hashed with bcrypt, as
// `htpasswd -B` writes them.
type Auth struct {
	realm    string
	attempts Limit             // of wrong passwords
	users    map[string][]byte // hashes

	mu       sync.Mutex
	verified map[[sha256.Size]byte]bool // hashes of correct credentials
	waiting  chan struct{}              // has a value for each request that waits
	hashing  sync.Mutex                 // locked while a hash is computed, which takes a whole core
	other    []byte                     // a hash for unknown users, so that they take as long as known ones
}

// ParseAuth parses a file with a line USER:HASH for each user. It skips empty lines and lines that
// begin with #. Browsers show realm to their users.
func ParseAuth(realm, file string) (*Auth, error) {
	a := &Auth{realm: realm, users: map[string][]byte{}, verified: map[[sha256.Size]byte]bool{},
		waiting: make(chan struct{}, maxWaiting)}
	n := 0
	for line := range strings.Lines(file) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		user, hash, ok := strings.Cut(line, ":")
		if !ok || user == "" {
			return nil, fmt.Errorf("line %d: want USER:HASH", n)
		}
		cost, err := bcrypt.Cost([]byte(hash))
		switch {
		case err != nil:
			return nil, fmt.Errorf("line %d: the hash of %q is not a bcrypt hash: make one with htpasswd -B", n, user)
		case cost > maxCost:
			return nil, fmt.Errorf("line %d: the hash of %q has a cost of %d: want at most %d", n, user, cost, maxCost)
		}
		if _, twice := a.users[user]; twice {
			return nil, fmt.Errorf("line %d: the user %q has two lines", n, user)
		}
		a.users[user], a.other = []byte(hash), []byte(hash)
	}
	switch {
	case len(a.users) == 0:
		return nil, errors.New("the file has no users")
	case len(a.users) > maxUsers:
		return nil, fmt.Errorf("the file has %d users: want at most %d", len(a.users), maxUsers)
	}
	return a, nil
}

// DefaultAttempts is how many wrong passwords a client network may try, if nothing else is set.
var DefaultAttempts = Rate{10, time.Minute}

// SetAttempts sets how many wrong passwords a client network may try. All Auths of an edge with the
// same name count together.
func (a *Auth) SetAttempts(name string, rate Rate) error {
	a.attempts = Limit{Name: name, Rate: rate}
	return a.attempts.Check()
}

// Check returns nil if a request has the right password. Otherwise it returns the response that the
// client gets. That is a 429 while too many other requests wait for their passwords to be checked,
// and after too many wrong passwords from the client's network.
func (a *Auth) Check(r *Request) *Response {
	values := r.Header["Authorization"]
	if len(values) != 1 {
		return a.refusal()
	}
	text, user, password, ok := basic(values[0])
	if !ok {
		return a.refusal()
	}
	sum := sha256.Sum256(text)
	if a.known(sum) {
		return nil
	}
	if r.Table == nil {
		return a.compare(sum, user, password)
	}
	attempt := tally{"", r.Table.hash(a.attempts.Name, 'a', a.attempts.whose(r)), a.attempts.all, a.attempts.Burst,
		AuthLimit}
	if refusal := attempt.take(r.Table, r.Now); refusal != nil {
		return refusal
	}
	refusal := a.compare(sum, user, password)
	if refusal == nil || refusal.Reason == AuthBusy { // only then, so that no client tries more at the same time
		r.Table.giveBack(attempt.hash, attempt.pace, r.Now)
	}
	return refusal
}

// compare compares a password with the hash of its user.
func (a *Auth) compare(sum [sha256.Size]byte, user, password string) *Response {
	select {
	case a.waiting <- struct{}{}:
		defer func() { <-a.waiting }()
	default:
		return &Response{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"1"}},
			Reason: AuthBusy}
	}
	a.hashing.Lock()
	defer a.hashing.Unlock()
	if a.known(sum) {
		return nil
	}
	hash, known := a.users[user]
	if !known {
		hash = a.other
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil || !known {
		return a.refusal()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.verified) >= maxVerified {
		clear(a.verified)
	}
	a.verified[sum] = true
	return nil
}

func (a *Auth) known(sum [sha256.Size]byte) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.verified[sum]
}

func (a *Auth) refusal() *Response {
	realm := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(a.realm)
	return &Response{Status: http.StatusUnauthorized, Reason: AuthWrong, Header: http.Header{
		"Www-Authenticate": {`Basic realm="` + realm + `", charset="UTF-8"`}}}
}

// basic returns the credentials of an Authorization field.
func basic(value string) (text []byte, user, password string, ok bool) {
	scheme, encoded, _ := strings.Cut(value, " ")
	text, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if err != nil || !strings.EqualFold(scheme, "Basic") {
		return nil, "", "", false
	}
	user, password, ok = strings.Cut(string(text), ":")
	return text, user, password, ok && len(password) <= maxPassword
}
