package cache

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// Proxies use request fields to tell the servers behind them who the client is and what it
// requested. An origin would believe such a field of a client. As the fields are not part of the
// key, other clients would get the response too. So the edge removes these fields from clients'
// requests: the fields that the edge sets itself, those of other proxies, load balancers, CDNs and
// frameworks, and all names that have other characters than letters, digits and hyphens. CGI and
// its successors can't tell X_Forwarded_For from X-Forwarded-For. docs/security.md has the list. A
// site can let fields pass with origin.pass_fields.

// impersonating are names of such fields, in canonical form.
var impersonating = set(
	// the address of the client
	"Ali-Cdn-Real-Ip", "Cdn-Real-Ip", "Cdn-Src-Ip", "Client-Ip", "Cluster-Client-Ip", "Eo-Client-Ip",
	"X-Custom-Ip-Authorization", "Cf-Connecting-Ip", "Cf-Connecting-Ipv6", "Cf-Pseudo-Ipv4", "Do-Connecting-Ip",
	"Fastly-Client-Ip", "Fly-Client-Ip", "Incap-Client-Ip", "Proxy-Client-Ip",
	"True-Client-Ip", "True-Client-Port", "X-Azure-Clientip", "X-Azure-Socketip", "X-Client-Ip", "X-Clientip",
	"X-Cluster-Client-Ip", "X-Nf-Client-Connection-Ip",
	"X-Originating-Ip", "X-Proxyuser-Ip", "X-Real-Ip", "X-Real-Port", "X-Sucuri-Clientip", "X-True-Client-Ip",
	"X-True-Ip", "X-Vercel-Proxied-For", "Z-Forwarded-For",
	// the scheme
	"Cf-Visitor", "Fastly-Ssl", "Front-End-Https", "Https", "X-Real-Proto", "X-Real-Scheme", "X-Scheme", "X-Url-Scheme",
	// the host
	"X-Backend-Host", "X-Host", "X-Host-Override", "X-Original-Host", "X-Proxy-Host", "X-Real-Host",
	// the target
	"Request-Uri", "Script-Name", "X-Original-Path", "X-Original-Uri", "X-Original-Url", "X-Proxy-Url", "X-Request-Uri",
	"X-Rewrite-Uri", "X-Rewrite-Url", "X-Script-Name",
	"X-Waws-Unencoded-Url", "Next-Resume", "X-Matched-Path", "X-Now-Route-Matches",
	// the method
	"X-Method-Override", "X-Original-Method",
	// who the user is
	"Cf-Access-Authenticated-User-Email", "Cf-Access-Jwt-Assertion", "X-Anonymous-Consumer", "X-Client-Dn",
	"X-Client-Verified", "X-Client-Verify", "X-Consumer-Custom-Id",
	"X-Consumer-Groups", "X-Consumer-Id", "X-Consumer-Username", "X-Credential-Identifier", "X-Goog-Iap-Jwt-Assertion",
	"X-User-Context-Hash",
	// what stands before the origin, and what it can do
	"Akamai-Origin-Hop", "Cf-Ew-Via", "Cf-Ray", "Cf-Worker", "Early-Data", "Fastly-Client", "Fastly-Ff", "Proxy",
	"Surrogate-Capability", "X-Akamai-Edgescape", "X-Azure-Fdid",
	"X-Azure-Ref",
)

// impersonatingPrefixes are the prefixes of names of such fields.
var impersonatingPrefixes = []string{
	"Cf-Ip", "Client-Cert", "Cloudfront-", "Fly-Forwarded-", "Forwarded", "Iv-", "Kaiku-", "Oidc-", "Remote-", "Shib-",
	"Sm-User", "Ssl-Client-", "Tailscale-User-",
	"Wl-Proxy-", "X-Accel-", "X-Amzn-Mtls-", "X-Amzn-Oidc-", "X-Amzn-Tls-", "X-Appengine-", "X-Arr-", "X-Astro-",
	"X-Auth-Request-", "X-Authenticated-", "X-Authentik-",
	"X-Client-Cert", "X-Envoy-", "X-Forward", "X-Goog-Authenticated-User-", "X-Http-", "X-Invoke-",
	"X-Middleware-Subrequest", "X-Ms-Client-Principal",
	"X-Ms-Token-", "X-Original-Forwarded-", "X-Original-Remote-", "X-Pomerium-", "X-React-Router-", "X-Remote-",
	"X-Sendfile", "X-Ssl-", "X-Vercel-Forwarded-", "X-Vercel-Ip-", "X-Vouch-", "X-Webauth-",
}

// Impersonating returns the names of the fields that are removed from clients' requests, in
// canonical form, and the prefixes of further names.
func Impersonating() (names, prefixes []string) {
	return slices.Sorted(maps.Keys(impersonating)), slices.Clone(impersonatingPrefixes)
}

// edgeWrites are the fields that the edge sets itself. No site can let them pass.
var edgeWrites = set("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto")

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

// Impersonates reports whether a field is removed from clients' requests. The name is in canonical
// form.
func Impersonates(name string) bool {
	switch name {
	case "":
		return true
	case "Accept", "Accept-Encoding", "Accept-Language", "Cookie", "If-None-Match", "Range", "Referer", "User-Agent":
		// most requests have only these fields
		return false
	}
	for i := range len(name) {
		if c := name[i]; !('a' <= c|0x20 && c|0x20 <= 'z') && c != '-' && !('0' <= c && c <= '9') {
			return true
		}
	}
	for _, p := range prefixesOf[name[0]&0x7f] {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return impersonating[name]
}

// prefixesOf has impersonatingPrefixes by first letter.
var prefixesOf = func() (of [128][]string) {
	for _, p := range impersonatingPrefixes {
		of[p[0]] = append(of[p[0]], p)
	}
	return of
}()

// CheckPassField returns an error if a field can't be in Site.PassFields.
func CheckPassField(name string) error {
	canonical := http.CanonicalHeaderKey(name)
	switch {
	case !httpcache.IsToken(name):
		return fmt.Errorf("%q is not a valid field name", name)
	case edgeWrites[canonical], strings.HasPrefix(canonical, "Kaiku-"):
		return fmt.Errorf("the edge writes %s itself", canonical)
	case !Impersonates(canonical):
		return fmt.Errorf("%s reaches the origin in any case", canonical)
	}
	return nil
}

// cleanFields removes the request fields that the origin must not see. It is called before the
// look-up, because a response varies by the fields that the origin was sent.
func (x *exchange) cleanFields() {
	h := x.r.Header
	tunnel := x.w.WantsTunnel() || wantsWebSocket(x.r)
	x.trailers = httpcache.ListHas(h["Te"], "trailers")
	httpcache.RemoveHopByHop(h)
	delete(h, "Host") // of HTTP/2 and HTTP/3, beside :authority
	if x.r.ContentLength == 0 || !x.r.ProtoAtLeast(1, 1) {
		delete(h, "Expect") // without a body it has no meaning (RFC 9110, 10.1.1), and others may share the response
	}
	if tunnel {
		h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	}
	if x.peer {
		return // the edge that serves the client has done this
	}
	if lines, ok := h["Accept-Encoding"]; ok && (x.r.Method == http.MethodGet || x.r.Method == http.MethodHead) {
		h["Accept-Encoding"] = []string{httpcache.Codings(lines)}
	}
	bucket := x.site.Bucket() != nil
	for name := range h {
		if bucket && (name == "Authorization" || strings.HasPrefix(name, "X-Amz-")) {
			delete(h, name) // the edge signs requests itself; all clients get the same
			continue
		}
		if Impersonates(name) && !slices.Contains(x.site.PassFields, name) {
			delete(h, name)
		}
	}
}

// wantsWebSocket reports whether a request asks for WebSocket (RFC 6455, 4.1), the only protocol to
// which the edge switches a connection. For other protocols the edge ignores Upgrade, as RFC 9110,
// 7.8 allows: h2c would carry requests past the cache.
func wantsWebSocket(r *http.Request) bool {
	return r.Method == http.MethodGet && r.ProtoMajor == 1 && r.ProtoMinor == 1 && r.ContentLength == 0 &&
		httpcache.ListHas(r.Header["Connection"], "upgrade") && httpcache.ListHas(r.Header["Upgrade"], "websocket")
}
