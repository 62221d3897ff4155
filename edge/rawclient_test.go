package edge

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// rawRequest is a GET-like request as it goes over the line, without a body.
type rawRequest struct {
	method, authority, target string
	fields                    []hpack.HeaderField // names in lower case
}

// pseudo are the pseudo-header fields of HTTP/2 and HTTP/3.
func (q *rawRequest) pseudo() []hpack.HeaderField {
	return []hpack.HeaderField{{Name: ":method", Value: q.method}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: q.authority}, {Name: ":path", Value: q.target}}
}

// rawClient sends requests as they are. An answer with an error says that there was none: the
// request was reset.
type rawClient interface {
	ask(q rawRequest) answer
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
func withPeers(s *Server, _ *Site) {
	s.Peer, s.PeerTLS = "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*(*s.Certificates.files.Load())[0]}, NextProtos: []string{"h2"}}
}

// rawHTTP1 makes a connection for each request.
type rawHTTP1 struct {
	edge *testEdge
	addr net.Addr
	tls  *tls.Config // nil for plain HTTP
}

func (c *rawHTTP1) ask(q rawRequest) answer {
	conn, err := net.Dial("tcp", c.addr.String())
	if err != nil {
		return answer{err: err}
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if c.tls != nil {
		conn = tls.Client(conn, c.tls)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", q.method, q.target, q.authority)
	for _, f := range q.fields {
		fmt.Fprintf(&b, "%s: %s\r\n", f.Name, f.Value)
	}
	b.WriteString("\r\n")
	if _, err := conn.Write(b.Bytes()); err != nil {
		return answer{err: err}
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: q.method})
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body), err}
}

// rawHTTP2 makes a new connection when the edge has ended the one before.
type rawHTTP2 struct {
	edge *testEdge
	addr net.Addr
	conn *attacker
}

var errReset = errors.New("the request was reset")

func (c *rawHTTP2) ask(q rawRequest) answer {
	a := c.askOnce(q)
	if a.err != nil && !errors.Is(a.err, errReset) {
		c.conn.conn.Close()
		c.conn = nil
	}
	return a
}

func (c *rawHTTP2) askOnce(q rawRequest) answer {
	if c.conn == nil {
		c.conn = c.edge.attackAt(c.addr, tls.VersionTLS13)
		c.conn.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	}
	a := c.conn
	_ = a.conn.SetDeadline(time.Now().Add(30 * time.Second))
	a.buf.Reset()
	for _, f := range append(q.pseudo(), q.fields...) {
		_ = a.hp.WriteField(f)
	}
	id := a.next
	a.next += 2
	if err := a.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: a.buf.Bytes(), EndHeaders: true, EndStream: true}); err != nil {
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

func (c *rawHTTP3) ask(q rawRequest) answer {
	a := c.askOnce(q)
	if a.err != nil && c.conn != nil && c.conn.Context().Err() != nil {
		c.conn = nil
	}
	return a
}

func (c *rawHTTP3) askOnce(q rawRequest) answer {
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
	const headers = 1
	block := qpackBlock(append(q.pseudo(), q.fields...))
	b := quicvarint.Append(quicvarint.Append(nil, headers), uint64(len(block)))
	if _, err := s.Write(append(b, block...)); err != nil {
		return answer{err: err}
	}
	s.Close()
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
