package origin

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/smithy-go/aws-http-auth/credentials"
	"github.com/aws/smithy-go/aws-http-auth/sigv4"
	v4 "github.com/aws/smithy-go/aws-http-auth/v4"
)

// S3 makes a Pool fetch the objects of a private bucket. Requests are signed by Signature Version 4
// with the pool's own key. The path of a request, without its first slash, is the name of an
// object.
//
// A signed request may do what the key may do. So clients choose only the object, a range and
// conditions: nothing else of their requests gets into a signed one.
type S3 struct {
	Bucket string
	// HostStyle means that the Host names the bucket. Otherwise the path begins with it.
	HostStyle bool
	Region    string
	// KeyID, Secret and Token are the access key. Token is for temporary keys only; "" means none.
	KeyID, Secret, Token string
	// Query has the names of the query parameters that reach the server, of S3Parameters.
	Query []string
}

// S3Parameters are the query parameters that S3.Query may have. They select a version of an object,
// or change fields of the response. Other parameters make another operation of a GET.
func S3Parameters() []string {
	return []string{"versionId", "response-cache-control", "response-content-disposition",
		"response-content-encoding", "response-content-language", "response-content-type", "response-expires"}
}

// Allows reports whether a query parameter reaches the server.
func (s *S3) Allows(parameter string) bool { return slices.Contains(s.Query, parameter) }

// Refuses returns the status for a request that isn't passed on to the server, and why; 0 if it is.
func (s *S3) Refuses(r *http.Request, path string) (status int, why string) {
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return http.StatusMethodNotAllowed, "the site is a bucket: only GET and HEAD are for clients"
	case hasBody(r) && r.ContentLength != 0:
		return http.StatusBadRequest, "a request for an object has no body"
	}
	switch _, err := objectName(path); err {
	case nil:
		return 0, ""
	case errNoObject:
		return http.StatusNotFound, err.Error()
	default:
		return http.StatusBadRequest, err.Error()
	}
}

type s3NameError string

func (e s3NameError) Error() string { return string(e) }

const (
	errNoObject = s3NameError("the path names no object")
	errDots     = s3NameError("the path has a segment . or ..")
	errEscape   = s3NameError("the path has an invalid % escape")
)

// objectName returns the name of the object at a path of a client's request. A name of slashes
// alone would list the bucket, if something on the way removed them. A segment .. would lead out of
// the bucket, if something on the way resolved it.
func objectName(path string) (string, error) {
	name, err := url.PathUnescape(path)
	if err != nil {
		return "", errEscape
	}
	if strings.Trim(name, "/\\") == "" || name[0] != '/' {
		return "", errNoObject
	}
	for segment := range strings.FieldsFuncSeq(name, func(c rune) bool { return c == '/' || c == '\\' }) {
		if segment == "." || segment == ".." {
			return "", errDots
		}
	}
	return name[1:], nil
}

// s3Fields are the fields of a request that reach the server.
var s3Fields = []string{"Accept-Encoding", "If-Match", "If-Modified-Since", "If-None-Match", "If-Range",
	"If-Unmodified-Since", "Origin", "Range", "Traceparent", "Tracestate", "Via", cdnLoopField}

const cdnLoopField = "Cdn-Loop"

// sign makes r a signed request for the object at its path. The host and its URL's host are set
// already.
func (s *S3) sign(r *http.Request, now time.Time) error {
	path := r.URL.Opaque
	if path == "" {
		path = r.URL.EscapedPath()
	}
	if status, why := s.Refuses(r, path); status != 0 {
		return &RequestError{fmt.Errorf("%s", why)}
	}
	name, err := objectName(path)
	if err != nil {
		return &RequestError{err}
	}
	name = "/" + name
	if !s.HostStyle {
		name = "/" + s.Bucket + name
	}
	r.URL.Opaque, r.URL.Path, r.URL.RawPath = "", name, encodeS3(name, true)
	r.URL.RawQuery, r.URL.ForceQuery = s.query(r.URL.RawQuery), false
	h := make(http.Header, 16)
	for _, field := range s3Fields {
		if lines, ok := r.Header[field]; ok {
			h[field] = lines
		}
	}
	h["User-Agent"] = []string{"kaiku"}
	r.Header, r.Trailer = h, nil
	empty := sha256.Sum256(nil)
	return sigv4.New().SignRequest(&sigv4.SignRequestInput{Request: r, PayloadHash: empty[:],
		Credentials: credentials.Credentials{AccessKeyID: s.KeyID, SecretAccessKey: s.Secret, SessionToken: s.Token},
		Service:     "s3", Region: s.Region, Time: now}, func(o *v4.SignerOptions) {
		o.DisableDoublePathEscape, o.AddPayloadHashHeader = true, true
		o.HeaderRules = signedFields{}
	})
}

// signedFields are the fields that a signature covers.
type signedFields struct{}

// IsSigned implements v4.SignedHeaderRules.
func (signedFields) IsSigned(name string) bool {
	name = strings.ToLower(name)
	return name == "host" || name == "range" || strings.HasPrefix(name, "x-amz-")
}

// query returns the parameters of a query that reach the server, encoded as they are signed.
func (s *S3) query(raw string) string {
	var kept []string
	for parameter := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(parameter, "=")
		if decoded, err := url.QueryUnescape(value); err == nil && s.Allows(name) {
			kept = append(kept, name+"="+encodeS3(decoded, false))
		}
	}
	slices.Sort(kept)
	return strings.Join(kept, "&")
}

// encodeS3 encodes a text as S3 does for signatures: every byte except for unreserved ones, and
// except for slashes in a path.
func encodeS3(text string, path bool) string {
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(text)+16)
	for i := range len(text) {
		switch c := text[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '~',
			c == '/' && path:
			b = append(b, c)
		default:
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

// String describes the bucket without its key.
func (s *S3) String() string {
	style := "path"
	if s.HostStyle {
		style = "host"
	}
	return fmt.Sprintf("%s in %s, by %s, with the key %s", s.Bucket, s.Region, style, shorten(s.KeyID))
}

// shorten returns the start of the name of a key, by which an operator recognises it.
func shorten(id string) string { return id[:min(4, len(id)/2)] + "…" }
