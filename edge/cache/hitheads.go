package cache

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/front/http2"
	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// headForm writes header blocks for a version of HTTP.
type headForm interface {
	// render renders the fields that don't change.
	render(status int, fields http.Header) []byte
	// appendPart appends the fields that a 206 has beside those of a 200.
	appendPart(b []byte, part httpcache.Range, size int64) []byte
	// appendLast appends the fields that change, and ends the block. The zero date means no Date.
	appendLast(b []byte, age time.Duration, st httpcache.Status, name string, date time.Time) []byte
}

// textForm is the headForm of HTTP/1.1.
type textForm struct{}

func (textForm) render(status int, fields http.Header) []byte {
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 " + strconv.Itoa(status) + " " + http.StatusText(status) + "\r\n")
	_ = fields.Write(&b)
	return slices.Clip(b.Bytes())
}

func (textForm) appendPart(b []byte, part httpcache.Range, size int64) []byte {
	b = append(b, "Content-Range: "...)
	b = appendContentRange(b, part, size)
	b = append(b, "\r\nContent-Length: "...)
	b = strconv.AppendInt(b, part.Length, 10)
	return append(b, "\r\n"...)
}

func (textForm) appendLast(b []byte, age time.Duration, st httpcache.Status, name string, date time.Time) []byte {
	b = append(b, "Age: "...)
	b = strconv.AppendInt(b, int64(age/time.Second), 10)
	b = append(b, "\r\nCache-Status: "...)
	b = st.Append(b, name)
	if !date.IsZero() {
		b = append(b, "\r\nDate: "...)
		b = date.UTC().AppendFormat(b, http.TimeFormat)
	}
	return append(b, "\r\n\r\n"...)
}

func appendContentRange(b []byte, part httpcache.Range, size int64) []byte {
	b = append(b, "bytes "...)
	b = strconv.AppendInt(b, part.Start, 10)
	b = append(b, '-')
	b = strconv.AppendInt(b, part.Start+part.Length-1, 10)
	b = append(b, '/')
	return strconv.AppendInt(b, size, 10)
}

// hpackForm is the headForm of HTTP/2. It uses entries of HPACK's static table and literals, which
// mean the same on every connection.
type hpackForm struct{}

func (hpackForm) render(status int, fields http.Header) []byte {
	b := http2.AppendStatus(nil, status)
	for name, lines := range fields {
		for _, v := range lines {
			b = http2.AppendField(b, strings.ToLower(name), strings.Trim(v, " \t"))
		}
	}
	return slices.Clip(b)
}

func (hpackForm) appendPart(b []byte, part httpcache.Range, size int64) []byte {
	var text [80]byte
	b = http2.AppendPlain(b, "content-range", appendContentRange(text[:0], part, size))
	return http2.AppendPlain(b, "content-length", strconv.AppendInt(text[:0], part.Length, 10))
}

func (hpackForm) appendLast(b []byte, age time.Duration, st httpcache.Status, name string, date time.Time) []byte {
	var room [512]byte
	v := changingOf(room[:0], age, st, name, date)
	b = http2.AppendPlain(http2.AppendPlain(b, "age", v.age), "cache-status", v.status)
	if len(v.date) > 0 {
		b = http2.AppendPlain(b, "date", v.date)
	}
	return b
}

// changing has the values of the fields that change.
type changing struct{ age, status, date []byte }

// changingOf appends the values to b.
func changingOf(b []byte, age time.Duration, st httpcache.Status, name string, date time.Time) changing {
	b = strconv.AppendInt(b, int64(age/time.Second), 10)
	n := len(b)
	b = st.Append(b, name)
	m := len(b)
	if !date.IsZero() {
		b = date.UTC().AppendFormat(b, http.TimeFormat)
	}
	return changing{b[:n], b[n:m], b[m:]}
}

// qpackForm is the headForm of HTTP/3. It uses entries of QPACK's static table and literals. It
// doesn't share its methods with hpackForm: by a function value, the fields' values would escape to
// the heap with each hit.
type qpackForm struct{}

func (qpackForm) render(status int, fields http.Header) []byte {
	return slices.Clip(front.RenderQPACK(status, fields))
}

func (qpackForm) appendPart(b []byte, part httpcache.Range, size int64) []byte {
	var text [80]byte
	b = front.AppendQPACK(b, "content-range", appendContentRange(text[:0], part, size))
	return front.AppendQPACK(b, "content-length", strconv.AppendInt(text[:0], part.Length, 10))
}

func (qpackForm) appendLast(b []byte, age time.Duration, st httpcache.Status, name string, date time.Time) []byte {
	var room [512]byte
	v := changingOf(room[:0], age, st, name, date)
	b = front.AppendQPACK(front.AppendQPACK(b, "age", v.age), "cache-status", v.status)
	if len(v.date) > 0 {
		b = front.AppendQPACK(b, "date", v.date)
	}
	return b
}
