package origin

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// exampleKey is the key in the examples of Amazon's documentation.
func exampleKey() *S3 {
	return &S3{Bucket: "examplebucket", Region: "us-east-1", KeyID: "AKIAIOSFODNN7EXAMPLE",
		Secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
}

// The signature of a request for a range is that of Amazon's documentation ("Signature Calculations
// for the Authorization Header", "GET Object").
func TestSignature(t *testing.T) {
	s := exampleKey()
	s.HostStyle = true
	r := httptest.NewRequest("GET", "/test.txt", http.NoBody)
	r.Host = "examplebucket.s3.amazonaws.com"
	r.Header.Set("Range", "bytes=0-9")
	r.Header.Set("Authorization", "Bearer client")
	r.Header.Set("X-Amz-Acl", "public-read")
	r.Header.Set("X-Anything", "client")
	if err := s.sign(r, time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	want := "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, " +
		"SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, " +
		"Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
	if got := r.Header.Get("Authorization"); got != want {
		t.Errorf("Authorization: %s\nwant %s", got, want)
	}
	if r.Header["X-Amz-Acl"] != nil || r.Header["X-Anything"] != nil {
		t.Errorf("fields of the client are sent: %v", r.Header)
	}
}

// Paths are sent as S3 signs them. What would list a bucket, or may lead out of it, is refused.
func TestObjectPaths(t *testing.T) {
	for _, c := range []struct{ path, sent string }{
		{"/a", "/examplebucket/a"},
		{"/a/b c", "/examplebucket/a/b%20c"},
		{"/a%20b+c", "/examplebucket/a%20b%2Bc"},
		{"/%C3%A4/ä", "/examplebucket/%C3%A4/%C3%A4"},
		{"/a%2Fb%2fc", "/examplebucket/a/b/c"},
		{"/a//b", "/examplebucket/a//b"},
		{"//a", "/examplebucket//a"},
		{"/a/", "/examplebucket/a/"},
		{"/a!b'c(d)*e", "/examplebucket/a%21b%27c%28d%29%2Ae"},
		{"/%7Ea%25b?x", "/examplebucket/~a%25b"},
		{"/a%3Fb", "/examplebucket/a%3Fb"},
		{"/.a/..b", "/examplebucket/.a/..b"},
		{"/", "404"}, {"//", "404"}, {"/%2F", "404"}, {"/%5C", "404"},
		{"/..", "400"}, {"/../b", "400"}, {"/a/%2e%2e/b", "400"}, {"/a/./b", "400"}, {"/a%2F..%2Fb", "400"},
		{"/a/..%5Cb", "400"}, {"/%zz", "400"}, {"/a%", "400"},
	} {
		s, sent := exampleKey(), ""
		path, query, _ := strings.Cut(c.path, "?")
		r := &http.Request{Method: "GET", Host: "s3.example", URL: &url.URL{Opaque: path, RawQuery: query},
			Header: http.Header{}}
		if status, _ := s.Refuses(r, path); status != 0 {
			sent = fmt.Sprint(status)
			if s.sign(r, time.Now()) == nil {
				t.Errorf("%s is refused, and signed", c.path)
			}
		} else if err := s.sign(r, time.Now()); err != nil {
			sent = err.Error()
		} else {
			sent = r.URL.RequestURI()
		}
		if sent != c.sent {
			t.Errorf("%s: %s, want %s", c.path, sent, c.sent)
		}
	}
}

func TestObjectParameters(t *testing.T) {
	s := exampleKey()
	s.Query = []string{"versionId", "response-content-disposition"}
	for raw, want := range map[string]string{
		"": "", "versionId=a%2Fb+c": "versionId=a%2Fb%20c", "versionId": "versionId=",
		"x=1&versionId=2&response-content-disposition=a%3Db": "response-content-disposition=a%3Db&versionId=2",
		"list-type=2&prefix=":                                "", "acl": "", "response-content-type=text/html": "",
		"version%49d=1": "",
		"versionId=%zz": "",
	} {
		if got := s.query(raw); got != want {
			t.Errorf("%s: %s, want %s", raw, got, want)
		}
	}
}

// startBucket starts a pool for a bucket of the server h.
func startBucket(t *testing.T, h http.HandlerFunc) *Pool {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	p := &Pool{Name: "files", Servers: []Server{{URL: u}}, S3: exampleKey()}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func objectRequest(method, path string) *http.Request {
	r := httptest.NewRequestWithContext(context.Background(), method, path, http.NoBody)
	r.RequestURI, r.Host = "", "www.example"
	return r
}

// Errors of a bucket tell clients nothing of the key. Those that are the fault of the edge's
// settings are failures, with a hint for the operator.
func TestBucketErrors(t *testing.T) {
	const secrets = "<AWSAccessKeyId>AKIAIOSFODNN7EXAMPLE</AWSAccessKeyId><StringToSign>AWS4</StringToSign>"
	status, code, region, at := 0, "", "", time.Now()
	p := startBucket(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Amz-Request-Id", "4442587FB7D0A2F9")
		w.Header().Set("X-Amz-Meta-Color", "blue")
		w.Header().Set("Date", at.UTC().Format(http.TimeFormat))
		if region != "" {
			w.Header().Set("X-Amz-Bucket-Region", region)
		}
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		fmt.Fprintf(w, "<?xml version=\"1.0\"?>\n<Error><Message>x</Message><Code>%s</Code>%s</Error>", code, secrets)
	})
	for _, c := range []struct {
		status             int
		code, region       string
		skew               time.Duration
		body, failed, hint string
	}{
		{404, "NoSuchKey", "", 0, "Not Found\n", "", ""},
		{403, "AccessDenied", "", 0, "Forbidden\n", "", ""},
		{416, "InvalidRange", "", 0, "Requested Range Not Satisfiable\n", "", ""},
		{403, "", "", 0, "Forbidden\n", "", ""},
		{403, "SignatureDoesNotMatch", "", 0, "", "with 403 SignatureDoesNotMatch", "check the key"},
		{403, "RequestTimeTooSkewed", "", -time.Hour, "", "clock is 1h0m", "set this machine's clock"},
		{400, "AuthorizationHeaderMalformed", "eu-west-1", 0, "", "with 400", "in the region eu-west-1"},
		{301, "PermanentRedirect", "eu-west-1", 0, "", "with 301", "in the region eu-west-1"},
		{404, "NoSuchBucket", "", 0, "", "NoSuchBucket", "origin.s3.bucket"},
		{404, "XAdminUserNotFound", "", 0, "", "with 404 XAdminUserNotFound", "the key in the file"},
	} {
		status, code, region, at = c.status, c.code, c.region, time.Now().Add(c.skew)
		resp, err := p.Fetch(objectRequest("GET", "/a"), FetchOptions{})
		if err != nil {
			f := FailureOf(err, time.Now())
			if c.failed == "" || !strings.Contains(f.Error, c.failed) || !strings.Contains(f.Hint, c.hint) ||
				f.Reason != "s3-refused" || strings.Contains(fmt.Sprint(f), "AKIA") {
				t.Errorf("%d %s: %+v, want %s, %s", c.status, c.code, f, c.failed, c.hint)
			}
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if c.failed != "" || string(body) != c.body || resp.ContentLength != int64(len(body)) ||
			resp.Header.Get("X-Amz-Request-Id") != "" || resp.Header.Get("X-Amz-Meta-Color") != "blue" ||
			strings.Contains(resp.Header.Get("Content-Type"), "xml") {
			t.Errorf("%d %s: %d %v %q, want %q", c.status, c.code, resp.StatusCode, resp.Header, body, c.body)
		}
	}
	st := p.Status().Servers[0]
	if st.State != "up" || st.Failures["s3-refused"] != 6 || st.InFlight != 0 {
		t.Errorf("the server: %+v", st)
	}
}

// Whatever the path, the server gets a GET for an object.
func FuzzObjectName(f *testing.F) {
	for _, path := range []string{"/a", "/%2e./b", "/a%5c../b", "/ä%ff", "//"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		r := &http.Request{Method: "GET", Host: "s3.example", URL: &url.URL{Opaque: path}, Header: http.Header{}}
		if exampleKey().sign(r, time.Now()) != nil {
			return
		}
		sent := r.URL.RequestURI()
		decoded, err := url.PathUnescape(sent)
		if name, ok := strings.CutPrefix(decoded, "/examplebucket/"); err != nil || !ok ||
			strings.Trim(name, "/") == "" ||
			strings.Contains("/"+strings.ReplaceAll(decoded, "\\", "/")+"/", "/../") || strings.Contains(sent, "?") {
			t.Errorf("%q is sent as %q", path, sent)
		}
	})
}

func FuzzS3ErrorCode(f *testing.F) {
	f.Add([]byte("<Error><Code>NoSuchKey</Code></Error>"))
	f.Add([]byte("<Code><![CDATA[a"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if code := s3ErrorCode(text, ""); len(code) > 64 || strings.ContainsAny(code, "<> \n") {
			t.Errorf("the code is %q", code)
		}
	})
}
