package origin

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// S3Error means that an S3 server refused a request for a reason that no client has influence on:
// the key, the region, the bucket or the clock.
type S3Error struct {
	Status int
	Code   string // of S3, such as SignatureDoesNotMatch; "" if the server gave none
	region string // the bucket's, where the server tells it
	skew   time.Duration
}

// Error has the code alone. The message of the server may have the key's name in it.
func (e *S3Error) Error() string {
	text := fmt.Sprintf("the S3 server refused the edge's request with %d", e.Status)
	if e.Code != "" {
		text += " " + e.Code
	}
	if e.Code == codeSkewed {
		ahead, by := "ahead of", e.skew
		if by < 0 {
			ahead, by = "behind", -by
		}
		text += fmt.Sprintf(": this machine's clock is %v %s the server's", by, ahead)
	}
	return text
}

const codeSkewed = "RequestTimeTooSkewed"

// hint says what the operator can do about it.
func (e *S3Error) hint() string {
	switch e.Code {
	case codeSkewed:
		return "set this machine's clock, for example by NTP: S3 accepts signatures for a quarter of an hour"
	case "NoSuchBucket":
		return "the server has no such bucket: check origin.s3.bucket and origin.s3.style"
	case "ExpiredToken", "InvalidToken", "TokenRefreshRequired":
		return "the session token in the file of origin.s3.credentials is not valid: write a new key to the file, or one that doesn't expire"
	case "InvalidAccessKeyId", "SignatureDoesNotMatch":
		return "check the key in the file of origin.s3.credentials, and whether a proxy before the server changes the Host or the path"
	}
	if e.region != "" {
		return "the bucket is in the region " + e.region +
			": correct origin.s3.region, and the server's name in origin.servers"
	}
	return "check origin.s3.region, origin.s3.style and the key in the file of origin.s3.credentials"
}

// clientCodes are the codes of S3 that a client can cause. All others say that the edge's own
// request was wrong. Servers answer AccessDenied to a request for an object that doesn't exist, if
// the key may not list the bucket.
var clientCodes = map[string]bool{"": true, "AccessDenied": true, "InvalidArgument": true, "InvalidObjectState": true,
	"InvalidRange": true, "InvalidURI": true, "KeyTooLongError": true, "MethodNotAllowed": true, "NoSuchKey": true,
	"NoSuchVersion": true, "PreconditionFailed": true}

// maxS3Error is how many bytes of an error are read.
const maxS3Error = 16 << 10

// clean makes a response of an S3 server fit for clients. It removes the server's own fields. It
// replaces the body of an error, which may have the name of the key and the signed text in it. It
// returns an S3Error if the edge's request was wrong; the caller then closes the body.
func (s *S3) clean(resp *http.Response, now time.Time) error {
	h := resp.Header
	region, named := h.Get("X-Amz-Bucket-Region"), h.Get("X-Amz-Error-Code")
	for name := range h {
		if strings.HasPrefix(name, "X-Amz-") && !strings.HasPrefix(name, "X-Amz-Meta-") {
			delete(h, name)
		}
	}
	redirects := resp.StatusCode >= 300 && resp.StatusCode < 400 && resp.StatusCode != http.StatusNotModified
	if resp.StatusCode < 400 && !redirects {
		return nil
	}
	code := s3Code(named)
	if resp.Body != nil && resp.Request != nil && resp.Request.Method != http.MethodHead {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxS3Error)) // a part may do
		code = s3ErrorCode(text, code)
	}
	if redirects || resp.StatusCode < 500 && !clientCodes[code] {
		e := &S3Error{Status: resp.StatusCode, Code: code}
		if region != s.Region {
			e.region = s3Code(region)
		}
		if date, err := http.ParseTime(h.Get("Date")); err == nil {
			e.skew = now.Sub(date).Round(time.Second)
		}
		return e
	}
	replaceBody(resp)
	return nil
}

// replaceBody gives an error the text of its status as body.
func replaceBody(resp *http.Response) {
	_ = resp.Body.Close() // the error was read, or isn't wanted
	for _, name := range []string{"Content-Encoding", "Content-Language", "Etag", "Last-Modified", "Transfer-Encoding",
		"Trailer"} {
		delete(resp.Header, name)
	}
	text := []byte(http.StatusText(resp.StatusCode) + "\n")
	resp.Header.Set("Content-Type", "text/plain; charset=utf-8")
	resp.Header.Set("Content-Length", strconv.Itoa(len(text)))
	resp.ContentLength, resp.TransferEncoding, resp.Trailer = int64(len(text)), nil, nil
	resp.Body = io.NopCloser(bytes.NewReader(text))
	if resp.Request != nil && resp.Request.Method == http.MethodHead {
		resp.Body = http.NoBody
	}
}

// s3ErrorCode returns the code in the XML of an error, or otherwise if there is none.
func s3ErrorCode(text []byte, otherwise string) string {
	d := xml.NewDecoder(bytes.NewReader(text))
	d.Strict = false
	for {
		switch token, err := d.Token(); t := token.(type) {
		case nil:
			if err != nil {
				return otherwise
			}
		case xml.StartElement:
			if t.Name.Local != "Code" {
				continue
			}
			if chars, err := d.Token(); err == nil {
				if code, ok := chars.(xml.CharData); ok {
					return s3Code(string(code))
				}
			}
			return otherwise
		}
	}
}

// s3Code returns a text of the server if it can be a code or the name of a region, and ""
// otherwise.
func s3Code(text string) string {
	text = strings.TrimSpace(text)
	if len(text) > 64 || strings.ContainsFunc(text, func(c rune) bool {
		return !('a' <= c && c <= 'z') && !('A' <= c && c <= 'Z') && !('0' <= c && c <= '9') && c != '-'
	}) {
		return ""
	}
	return text
}

// cleanS3 cleans the response of a bucket. A response that shows that the edge's own settings are
// wrong becomes an error.
func (p *Pool) cleanS3(res result) result {
	err := p.S3.clean(res.resp, time.Now())
	if err == nil {
		return res
	}
	res.resp.Body.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recordError(res.b, time.Now(), err)
	res.b.counts.Failures[Reason(err)]++
	return result{b: res.b, err: err, sent: true}
}
