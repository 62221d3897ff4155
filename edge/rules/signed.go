package rules

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
)

const (
	maxToken  = 4096 // bytes of a token
	maxTokens = 4    // cookies of one name that are tried

	signedText = "kaiku1"
)

// Limits of the keys for signed URLs.
const (
	MinKey  = 16 // bytes of a key
	MaxKeys = 8  // of one rule
)

// The results of a check of a signed URL, in metrics and in Cache-Status.
const (
	SignedMissing = "signed-missing" // no token
	SignedWrong   = "signed-wrong"   // malformed, or for another URL, or made with another key
	SignedExpired = "signed-expired"
	SignedNetwork = "signed-network" // the client is not in the network of the token
	SignedMethod  = "signed-method"  // neither GET, HEAD nor OPTIONS
)

var signedDetails = map[string]string{
	SignedMissing: "this address needs a signed link",
	SignedWrong:   "the link is not valid",
	SignedExpired: "the link has expired",
	SignedNetwork: "the link is for another network",
	SignedMethod:  "a signed link is for reading only",
}

// Signed requires a token that was made with one of its keys. A token is
// EXPIRES~NETWORK~PREFIX~MAC. NETWORK and PREFIX may be empty. MAC is the HMAC-SHA-256, in
// hexadecimal, of these lines:
//
//	kaiku1
//	EXPIRES
//	NETWORK
//	HOST
//	url       or: prefix
//	QUERY     or: PREFIX
//	PATH
//
// EXPIRES is in seconds since 1970. QUERY has all parameters but the token, as they are in the URL.
// PATH and PREFIX are decoded. They come last because only they may contain a newline.
type Signed struct {
	keys   []*signingKey
	param  string
	cookie string
}

// signingKey is the key of HMACs. Its states are kept, because the first two blocks of each HMAC
// depend on the key only.
type signingKey struct{ states sync.Pool }

type signingState struct {
	mac  hash.Hash
	text []byte
	sum  []byte
}

// NewSigned returns a Signed that accepts tokens made with any of the keys. param is the name of
// the query parameter that has the token, "" means token. cookie is the name of a cookie that may
// have it instead; "" means none.
func NewSigned(keys [][]byte, param, cookie string) (*Signed, error) {
	if len(keys) == 0 || len(keys) > MaxKeys {
		return nil, fmt.Errorf("%d keys: want 1 to %d", len(keys), MaxKeys)
	}
	s := &Signed{param: cmp.Or(param, "token"), cookie: cookie}
	for _, key := range keys {
		if len(key) < MinKey {
			return nil, fmt.Errorf("the key has %d bytes: want at least %d", len(key), MinKey)
		}
		s.keys = append(s.keys, newSigningKey(key))
	}
	return s, nil
}

func newSigningKey(key []byte) *signingKey {
	return &signingKey{sync.Pool{New: func() any { return &signingState{mac: hmac.New(sha256.New, key)} }}}
}

// Token is what a token of a signed URL allows.
type Token struct {
	Expires int64        // seconds since 1970
	Network netip.Prefix // of clients; the zero Prefix means all
	Prefix  string       // of decoded paths, ends with "/"; "" means that the token is for one URL
}

// token is a Token as it was received.
type token struct {
	Token
	expires, network string
	mac              [sha256.Size]byte
}

// parseToken parses the value of a token, which may be percent-encoded.
func parseToken(value string) (t token, ok bool) {
	if len(value) > maxToken {
		return t, false
	}
	if strings.Contains(value, "%") {
		var err error
		if value, err = url.PathUnescape(value); err != nil {
			return t, false
		}
	}
	var rest string
	t.expires, rest, _ = strings.Cut(value, "~")
	t.network, rest, ok = strings.Cut(rest, "~")
	at := len(rest) - 2*sha256.Size - 1
	if !ok || at < 0 || rest[at] != '~' {
		return t, false
	}
	if n, err := hex.Decode(t.mac[:], []byte(rest[at+1:])); err != nil || n != len(t.mac) {
		return t, false
	}
	expires, err := strconv.ParseUint(t.expires, 10, 40) // until the year 36812
	if err != nil {
		return t, false
	}
	t.Expires, t.Prefix = int64(expires), rest[:at]
	if t.Prefix != "" && (t.Prefix[0] != '/' || !strings.HasSuffix(t.Prefix, "/")) {
		return t, false
	}
	if t.network != "" {
		if t.Network, err = ParseNetwork(t.network); err != nil {
			return t, false
		}
	}
	return t, true
}

// ParseNetwork parses a network, or an address as the network of that address alone.
func ParseNetwork(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		if err == nil && p != p.Masked() {
			err = fmt.Errorf("%s has bits after the prefix: want %s", text, p.Masked())
		}
		return p, err
	}
	a, err := netip.ParseAddr(text)
	if err == nil && a.Zone() != "" {
		err = errors.New("an address with a zone is not a network")
	}
	if err != nil {
		return netip.Prefix{}, err
	}
	return a.Prefix(a.BitLen())
}

// text appends what the HMAC of a token is made of. query has no "?".
func (t *token) text(b []byte, host, query, path string) []byte {
	for _, line := range []string{signedText, t.expires, t.network, host} {
		b = append(append(b, line...), '\n')
	}
	if t.Prefix != "" {
		return append(append(b, "prefix\n"...), t.Prefix...)
	}
	b = append(append(b, "url\n"...), query...)
	return append(append(b, '\n'), path...)
}

// isMAC reports, in constant time, whether a token was made with the key.
func (k *signingKey) isMAC(t *token, host, query, path string) bool {
	s := k.states.Get().(*signingState)
	defer k.states.Put(s)
	s.text = t.text(s.text[:0], host, query, path)
	s.mac.Reset()
	s.mac.Write(s.text)
	s.sum = s.mac.Sum(s.sum[:0])
	return hmac.Equal(s.sum, t.mac[:])
}

// check returns "" if a token allows a request, whose query has no token any more. tokens are those
// that the query had. Without one, the cookies may have it.
func (s *Signed) check(r *Request, tokens []string) (reason string) {
	if len(tokens) == 0 && s.cookie != "" {
		tokens = cookies(r.Header, s.cookie)
		tokens = tokens[:min(len(tokens), maxTokens)]
	} else if len(tokens) > 1 {
		return SignedWrong // the signer wrote one
	}
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodOptions:
		return SignedMethod
	case len(tokens) == 0:
		return SignedMissing
	case !isPlain(r.Path, r.clean) || strings.ContainsAny(r.Query, "\n"):
		return SignedWrong
	}
	reason = SignedWrong
	for _, value := range tokens {
		t, ok := parseToken(value)
		if !ok || !strings.HasPrefix(r.clean, t.Prefix) {
			continue
		}
		query := strings.TrimPrefix(r.Query, "?")
		if !slices.ContainsFunc(s.keys, func(k *signingKey) bool { return k.isMAC(&t, r.Host, query, r.clean) }) {
			continue
		}
		switch {
		case r.Now.Unix() >= t.Expires:
			reason = SignedExpired
		case t.network != "" && !t.Network.Contains(r.Client.Unmap()):
			reason = SignedNetwork
		default:
			return ""
		}
	}
	return reason
}

// checkSigned checks the tokens of all matching rules that want one, and removes them from the
// query.
func (o *Outcome) checkSigned(found []matching, r *Request) {
	type given struct {
		rule   *Rule
		values []string
	}
	var all []given
	r.sent = r.Query
	for _, m := range found {
		s := m.rule.Signed
		if s == nil {
			continue
		}
		g := given{rule: m.rule}
		r.Query, g.values = CutParam(r.Query, s.param)
		if i := slices.IndexFunc(all, func(g given) bool { return g.rule.Signed.param == s.param }); i >= 0 {
			g.values = all[i].values
		}
		all = append(all, g)
		if s.cookie != "" {
			o.Cookies = append(o.Cookies, s.cookie)
		}
	}
	o.Query = r.Query
	for _, g := range all {
		if reason := g.rule.Signed.check(r, g.values); reason != "" {
			o.refuse(g.rule, &Response{Status: http.StatusForbidden, Reason: reason, Detail: signedDetails[reason]})
			return
		}
	}
}

// CutParam removes the parameters of a name from a query, and returns their values.
func CutParam(query, name string) (rest string, values []string) {
	if !strings.Contains(query, name) {
		return query, nil
	}
	var room [8]string
	kept := room[:0]
	for param := range strings.SplitSeq(strings.TrimPrefix(query, "?"), "&") {
		if n, value, _ := strings.Cut(param, "="); n == name {
			values = append(values, value)
		} else {
			kept = append(kept, param)
		}
	}
	if len(values) == 0 {
		return query, nil
	}
	if rest = strings.Join(kept, "&"); rest != "" {
		rest = "?" + rest
	}
	return rest, values
}

// RemoveCookie removes the cookies of a name from the field Cookie.
func RemoveCookie(h http.Header, name string) {
	var kept []string
	for _, line := range h["Cookie"] {
		var pairs []string
		for pair := range strings.SplitSeq(line, ";") {
			pair = strings.TrimSpace(pair)
			if n, _, _ := strings.Cut(pair, "="); strings.TrimSpace(n) != name && pair != "" {
				pairs = append(pairs, pair)
			}
		}
		if len(pairs) > 0 {
			kept = append(kept, strings.Join(pairs, "; "))
		}
	}
	if h["Cookie"] = kept; kept == nil {
		delete(h, "Cookie")
	}
}

// isPlain reports whether all servers take a path for the same one. clean is cleanPath of the path.
// It is not if that changes more than the encoding, and if a server that decodes twice, or cuts
// parameters such as ;x off, sees another path.
func isPlain(path, clean string) bool {
	decoded, err := url.PathUnescape(path)
	if err != nil || decoded != clean || isAmbiguous(clean) {
		return false
	}
	twice, err := url.PathUnescape(clean)
	return err != nil || !isAmbiguous(twice)
}

// isAmbiguous reports whether a decoded path has a backslash, a control character, an empty
// segment, or one that some servers take for "." or "..".
func isAmbiguous(path string) bool {
	if strings.Contains(path, "//") ||
		strings.ContainsFunc(path, func(c rune) bool { return c < ' ' || c == 0x7f || c == '\\' }) {
		return true
	}
	for segment := range strings.SplitSeq(path, "/") {
		if name, _, _ := strings.Cut(segment, ";"); segment != "" && strings.Trim(name, ". ") == "" {
			return true
		}
	}
	return false
}

// SignablePath returns the decoded path that a token is made for. It returns an error if servers
// may take the path for another one, because such paths are refused.
func SignablePath(path string) (string, error) {
	clean := cleanPath(path)
	if !isPlain(path, clean) {
		return "", fmt.Errorf("%s can't be signed: want a path without //, /./, /../ and \\", path)
	}
	return clean, nil
}

// Sign returns a token, percent-encoded for a query or a cookie. host is in lower case and without
// port, path is decoded, and query has no "?". For a token with a prefix, path and query don't
// matter.
func (t Token) Sign(key []byte, host, path, query string) string {
	signed := token{Token: t, expires: strconv.FormatInt(t.Expires, 10)}
	if t.Network.IsValid() {
		signed.network = t.Network.String()
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(signed.text(nil, host, query, path))
	var b strings.Builder
	b.WriteString(signed.expires + "~" + signed.network + "~")
	for _, c := range []byte(t.Prefix) {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._/", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String() + "~" + hex.EncodeToString(mac.Sum(nil))
}

// Param returns the name of the query parameter that has the token. It reports whether a rule wants
// one at this target, whatever the fields of the request.
func (s *Set) Param(r *Request) (param string, ok bool) {
	r.clean = cleanPath(r.Path)
	for i := range s.rules {
		if signed := s.rules[i].Signed; signed != nil {
			if _, matches := s.rules[i].Match.target(r); matches {
				return signed.param, true
			}
		}
	}
	return "", false
}
