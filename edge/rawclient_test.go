package edge

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/kaiku-cdn/kaiku/edge/site"
)

// rawRequest is a GET-like request as it goes over the line, without a body.
type rawRequest struct {
	method, authority, target string
	fields                    []hpack.HeaderField // names in lower case
}

// pseudo are the pseudo-header fields of HTTP/2 and HTTP/3.
func (q *rawRequest) pseudo() []hpack.HeaderField {
	return []hpack.HeaderField{{Name: ":method", Value: q.method}, {Name: ":scheme", Value: "https"},
		{Name: ":authority", Value: q.authority}, {Name: ":path", Value: q.target}}
}

// rawMessage is a request with all that a client library would not let be.
type rawMessage struct {
	rawRequest
	// of HTTP/2 and HTTP/3: has other pseudo-header fields than usual, in place of them all
	replaced []hpack.HeaderField
	line     string // of HTTP/1.1: the request line and Host, in place of the usual ones
	body     string // without a Content-Length among the fields it is chunked over HTTP/1.1
	open     bool   // the stream of HTTP/2 or HTTP/3 does not end
	late     bool   // it ends with a frame of its own
}

// block are the fields of HTTP/2 and HTTP/3.
func (m *rawMessage) block() []hpack.HeaderField {
	if m.replaced != nil {
		return append(slices.Clip(m.replaced), m.fields...)
	}
	return append(m.pseudo(), m.fields...)
}

// text is the request over HTTP/1.1.
func (m *rawMessage) text() string {
	var b strings.Builder
	if m.line != "" {
		b.WriteString(m.line)
	} else {
		fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", m.method, m.target, m.authority)
	}
	sized := false
	for _, f := range m.fields {
		sized = sized || f.Name == "content-length"
		fmt.Fprintf(&b, "%s: %s\r\n", f.Name, f.Value)
	}
	if m.body != "" && !sized {
		fmt.Fprintf(&b, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(m.body), m.body)
	} else {
		b.WriteString("\r\n" + m.body)
	}
	return b.String()
}

// rawClient sends requests as they are. An answer with an error says that there was none: the
// request was reset.
type rawClient interface {
	ask(q rawRequest) answer
	send(m rawMessage) answer
}

// rawClients are clients of an edge that newSecure made, by the name of their protocol.
func (e *testEdge) rawClients() map[string]rawClient {
	clients := map[string]rawClient{
		"HTTP/1.1":          &rawHTTP1{e, e.Addr(), nil},
		"HTTP/1.1 over TLS": &rawHTTP1{e, e.SecureAddr(), e.trust()},
		"HTTP/2":            &rawHTTP2{edge: e, addr: e.SecureAddr()},
		"HTTP/3":            &rawHTTP3{edge: e},
	}
	if e.Peer != "" {
		clients["peers"] = &rawHTTP2{edge: e, addr: e.PeerAddr()}
	}
	return clients
}

// withPeers has an edge listen for peers, without asking who they are.
func withPeers(s *Server, _ *site.Site) {
	s.Peer, s.PeerTLS = "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*s.Certificates.Files()[0]},
		NextProtos: []string{"h2"}}
}

// rawHTTP1 makes a connection for each request.
type rawHTTP1 struct {
	edge *testEdge
	addr net.Addr
	tls  *tls.Config // nil for plain HTTP
}

func (c *rawHTTP1) ask(q rawRequest) answer { return c.send(rawMessage{rawRequest: q}) }

func (c *rawHTTP1) send(m rawMessage) answer {
	conn, err := net.Dial("tcp", c.addr.String())
	if err != nil {
		return answer{err: err}
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if c.tls != nil {
		conn = tls.Client(conn, c.tls)
	}
	if _, err := io.WriteString(conn, m.text()); err != nil {
		return answer{err: err}
	}
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, &http.Request{Method: m.method})
	for err == nil && resp.StatusCode < 200 && resp.StatusCode != http.StatusSwitchingProtocols {
		resp, err = http.ReadResponse(in, &http.Request{Method: m.method})
	}
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	maps.Copy(resp.Header, resp.Trailer)
	return answer{resp.StatusCode, resp.Header, string(body), err}
}

// rawHTTP2 makes a new connection when the edge has ended the one before.
type rawHTTP2 struct {
	edge *testEdge
	addr net.Addr
	conn *attacker
}

var errReset = errors.New("the request was reset")

func (c *rawHTTP2) ask(q rawRequest) answer { return c.send(rawMessage{rawRequest: q}) }

func (c *rawHTTP2) send(m rawMessage) answer {
	a := c.sendOnce(m)
	if a.err != nil && !errors.Is(a.err, errReset) {
		c.conn.conn.Close()
		c.conn = nil
	}
	return a
}

func (c *rawHTTP2) sendOnce(m rawMessage) answer {
	if c.conn == nil {
		c.conn = c.edge.attackAt(c.addr, tls.VersionTLS13)
		c.conn.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	}
	a := c.conn
	_ = a.conn.SetDeadline(time.Now().Add(30 * time.Second))
	a.buf.Reset()
	for _, f := range m.block() {
		_ = a.hp.WriteField(f)
	}
	id := a.next
	a.next += 2
	a.held = &bytes.Buffer{} // all of it goes together
	over := !m.open && !m.late && m.body == ""
	err := a.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: a.buf.Bytes(), EndHeaders: true,
		EndStream: over})
	if err == nil && m.body != "" {
		err = a.WriteData(id, !m.open && !m.late, []byte(m.body))
	}
	if err == nil && m.late {
		err = a.WriteData(id, true, nil)
	}
	all := a.held.Bytes()
	a.held = nil
	if err == nil {
		_, err = a.conn.Write(all)
	}
	if err != nil {
		return answer{err: err}
	}
	return a.answerTo(id)
}

// answerTo reads what comes until a stream is over.
func (a *attacker) answerTo(id uint32) answer {
	got := answer{header: http.Header{}}
	for {
		frame, err := a.ReadFrame()
		if err != nil {
			return answer{err: err}
		}
		over := false
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = a.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID != id {
				continue
			}
			if got.status < 200 {
				got.header = http.Header{} // of an interim response
			}
			for _, h := range f.Fields {
				if h.Name == ":status" {
					got.status, _ = strconv.Atoi(h.Value)
				} else {
					got.header.Add(h.Name, h.Value)
				}
			}
			over = f.StreamEnded()
		case *http2.DataFrame:
			if f.StreamID != id {
				continue
			}
			got.body += string(f.Data())
			over = f.StreamEnded()
			if n := uint32(len(f.Data())); n > 0 {
				err = a.WriteWindowUpdate(0, n)
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == id {
				return answer{err: fmt.Errorf("%w: %v", errReset, f.ErrCode)}
			}
		case *http2.GoAwayFrame:
			return answer{err: fmt.Errorf("the connection ends: %v", f.ErrCode)}
		}
		if err != nil {
			return answer{err: err}
		}
		if over {
			return got
		}
	}
}

// rawHTTP3 makes a new connection when the edge has ended the one before.
type rawHTTP3 struct {
	edge *testEdge
	conn *quic.Conn
}

func (c *rawHTTP3) ask(q rawRequest) answer { return c.send(rawMessage{rawRequest: q}) }

func (c *rawHTTP3) send(m rawMessage) answer {
	a := c.sendOnce(m)
	if a.err != nil && c.conn != nil && c.conn.Context().Err() != nil {
		c.conn = nil
	}
	return a
}

func (c *rawHTTP3) sendOnce(m rawMessage) answer {
	t := c.edge.t
	if c.conn == nil {
		conn, err := c.edge.dialQUIC(t.Context(), socket(t))
		if err != nil {
			return answer{err: err}
		}
		c.conn = conn
	}
	s, err := c.conn.OpenStreamSync(t.Context())
	if err != nil {
		return answer{err: err}
	}
	_ = s.SetDeadline(time.Now().Add(30 * time.Second))
	const headers, data = 1, 0
	block := qpackBlock(m.block())
	b := append(quicvarint.Append(quicvarint.Append(nil, headers), uint64(len(block))), block...)
	if m.body != "" {
		b = append(quicvarint.Append(quicvarint.Append(b, data), uint64(len(m.body))), m.body...)
	}
	if m.late {
		b = append(b, data, 0)
	}
	_, _ = s.Write(b) // which fails when the answer is there before all of it is read
	if m.open {
		defer s.Close()
	} else {
		s.Close()
	}
	return answerOnStream(s)
}

// qpackBlock is a field section of HTTP/3.
func qpackBlock(fields []hpack.HeaderField) []byte {
	var block bytes.Buffer
	enc := qpack.NewEncoder(&block)
	for _, f := range fields {
		_ = enc.WriteField(qpack.HeaderField{Name: f.Name, Value: f.Value})
	}
	return block.Bytes()
}

// answerOnStream reads a response of HTTP/3.
func answerOnStream(s *quic.Stream) answer {
	const headers, data = 1, 0
	got := answer{header: http.Header{}}
	r := quicvarint.NewReader(s)
	for {
		kind, err := quicvarint.Read(r)
		if errors.Is(err, io.EOF) && got.status != 0 {
			return got
		}
		if err != nil {
			return answer{err: err}
		}
		n, err := quicvarint.Read(r)
		if err != nil {
			return answer{err: err}
		}
		payload := make([]byte, n)
		if _, err := io.ReadFull(r, payload); err != nil {
			return answer{err: err}
		}
		switch kind {
		case data:
			got.body += string(payload)
		case headers:
			if got.status < 200 {
				got.header = http.Header{} // of an interim response
			}
			next := qpack.NewDecoder().Decode(payload)
			for f, err := next(); err == nil; f, err = next() {
				if f.Name == ":status" {
					got.status, _ = strconv.Atoi(f.Value)
				} else {
					got.header.Add(f.Name, f.Value)
				}
			}
		}
	}
}
