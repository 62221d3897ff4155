package http2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// modelState is the state of a stream as its client knows it (RFC 9113, 5.1).
type modelState int

const (
	modelIdle modelState = iota
	modelOpen            // the client may still send
	modelSent            // the client has sent everything
	modelOver            // either side has reset the stream
)

// model is a model of an HTTP/2 server for the frames that these tests send.
type model struct {
	streams map[uint32]modelState
	last    uint32
	dead    bool // the connection must end with an error
	// either means that the connection may end or not. The server is free to end it, or has done
	// something that the client does not know yet.
	either bool
}

// headers models a header block: a request, or trailers.
func (m *model) headers(id uint32, end, malformed bool) {
	state := m.streams[id]
	switch {
	case id%2 == 0:
		m.dead = true
	case state == modelOpen && end && !malformed:
		m.streams[id] = modelSent
	case state == modelOpen:
		m.streams[id] = modelOver
	case state == modelSent, state == modelOver:
		m.either = true
	case id < m.last:
		m.dead = true
	default:
		m.last = id
		m.streams[id] = modelOpen
		if end {
			m.streams[id] = modelSent
		}
		if malformed {
			m.streams[id] = modelOver
		}
	}
}

// other models a frame that may come only on a stream that was opened.
func (m *model) other(id uint32, then func(state modelState)) {
	switch state := m.streams[id]; {
	case id%2 == 0, id > m.last:
		m.dead = true
	case state == modelIdle: // a later stream was opened, which closes this one
		m.streams[id] = modelOver
	default:
		then(state)
	}
}

// FuzzFrames sends sequences of frames, and compares with a model whether the connection survives.
// Each operation is two bytes: what is sent, and on which stream.
func FuzzFrames(f *testing.F) {
	for _, seed := range []string{"\x00\x00\x02\x00", "\x01\x00\x02\x00\x03\x00", "\x00\x02\x00\x00", "\x04\x00",
		"\x05\x01", "\x01\x01\x05\x01\x03\x01", "\x06\x00\x07\x00\x08\x00\x09\x00", "\x0a\x00\x0b\x00",
		"\x00\x00\x00\x00", "\x01\x00\x04\x00\x01\x00", "\x01\x00\x04\x00\x03\x00", "\x02\x00\x03\x01",
		"\x0c\x00\x0c\x01\x0d\x01", "\x0e\x00\x0f\x01\x10\x02"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) > 60 {
			return
		}
		client, server := net.Pipe()
		s := &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "POST" {
				_, _ = io.Copy(io.Discard, r.Body)
			}
			_, _ = io.WriteString(w, "x")
		})}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.ServeConn(context.Background(), server)
		}()
		var out bytes.Buffer
		out.WriteString(xhttp2.ClientPreface)
		m := play(&out, ops)
		fr := xhttp2.NewFramer(&out, nil)
		last := [8]byte{'l', 'a', 's', 't'}
		_ = fr.WritePing(false, last)
		_ = client.SetDeadline(time.Now().Add(10 * time.Second))
		go func() { _, _ = client.Write(out.Bytes()) }()
		alive, answered, err := listen(client, last)
		if alive == m.dead && !m.either {
			t.Errorf("%x: alive is %t (%v), want %t", ops, alive, err, !m.dead)
		}
		for id, state := range m.streams {
			if answered[id] && state == modelIdle {
				t.Errorf("%x: stream %d was answered, and never asked", ops, id)
			}
		}
		_ = client.Close()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatalf("%x: the server hangs", ops)
		}
		if len(s.conns) != 0 {
			t.Error("a connection is left")
		}
	})
}

// play writes the frames of ops, and returns the model after them.
func play(out *bytes.Buffer, ops []byte) *model {
	m := &model{streams: map[uint32]modelState{}}
	fr := xhttp2.NewFramer(out, nil)
	fr.AllowIllegalWrites = true
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	headers := func(method string, trailers bool) []byte {
		block.Reset()
		if trailers {
			_ = enc.WriteField(hpack.HeaderField{Name: "x-trailer", Value: "x"})
			return block.Bytes()
		}
		for _, f := range []hpack.HeaderField{{Name: ":method", Value: method}, {Name: ":scheme", Value: "https"},
			{Name: ":path", Value: "/"}, {Name: ":authority", Value: "x"}} {
			_ = enc.WriteField(f)
		}
		return block.Bytes()
	}
	_ = fr.WriteSettings()
	for i := 0; i+1 < len(ops) && !m.dead && !m.either; i += 2 {
		id := uint32(ops[i+1]%8) + 1
		switch ops[i] % 17 {
		case 0, 1, 2: // a request that ends, one that goes on, trailers
			kind := ops[i] % 17
			end, trailers := kind != 1, kind == 2
			method := "GET"
			if kind == 1 {
				method = "POST"
			}
			isNew := m.streams[id] == modelIdle
			_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: headers(method, trailers),
				EndHeaders: true, EndStream: end})
			m.headers(id, end, isNew == trailers)
		case 3, 4:
			end := ops[i]%17 == 3
			_ = fr.WriteData(id, end, []byte("data"))
			m.other(id, func(state modelState) {
				if state == modelOpen && end {
					m.streams[id] = modelSent
				} else if state == modelSent {
					m.streams[id] = modelOver
				}
			})
		case 5:
			_ = fr.WriteRSTStream(id, xhttp2.ErrCodeCancel)
			m.other(id, func(modelState) { m.streams[id] = modelOver })
		case 6:
			_ = fr.WriteWindowUpdate(id, 1)
			m.other(id, func(modelState) {})
		case 7:
			_ = fr.WriteWindowUpdate(id, 0)
			m.other(id, func(modelState) { m.streams[id] = modelOver })
		case 8:
			_ = fr.WritePriority(id, xhttp2.PriorityParam{StreamDep: 99})
		case 9:
			_ = fr.WritePing(false, [8]byte{1})
		case 10:
			_ = fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: uint32(ops[i+1])})
		case 11:
			_ = fr.WriteRawFrame(0xaa, 0xff, id, []byte("what"))
		case 12:
			_ = fr.WritePriorityUpdate(id, "u=1, i")
			m.dead = id%2 == 0
		case 13:
			_ = fr.WriteData(0, false, nil)
			m.dead = true
		case 14:
			_ = fr.WriteWindowUpdate(0, 1<<20)
		case 15:
			_ = fr.WriteContinuation(id, true, nil)
			m.dead = true
		case 16:
			_ = fr.WritePushPromise(xhttp2.PushPromiseParam{StreamID: id, PromiseID: 2, EndHeaders: true})
			m.dead = true
		}
	}
	return m
}

// listen reads up to the answer to the ping last, or to the end. alive reports whether the answer
// came. answered has the streams on which a response came.
func listen(c net.Conn, last [8]byte) (alive bool, answered map[uint32]bool, err error) {
	answered = map[uint32]bool{}
	fr := xhttp2.NewFramer(nil, c)
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return false, answered, err
		}
		switch f := f.(type) {
		case *xhttp2.PingFrame:
			if f.IsAck() && f.Data == last {
				return true, answered, nil
			}
		case *xhttp2.GoAwayFrame:
			if f.ErrCode != xhttp2.ErrCodeNo {
				return false, answered, errors.New(f.ErrCode.String())
			}
		case *xhttp2.HeadersFrame:
			answered[f.StreamID] = true
		}
	}
}

// FuzzBytes sends arbitrary bytes. They must neither hang nor crash the server.
func FuzzBytes(f *testing.F) {
	f.Add([]byte(xhttp2.ClientPreface))
	f.Add([]byte(xhttp2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" +
		"\x00\x00\x05\x01\x05\x00\x00\x00\x01\x82\x87\x84\x41\x00"))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		client, server := net.Pipe()
		s := &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_,
				_ = io.Copy(w, r.Body)
		})}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.ServeConn(context.Background(), server)
		}()
		go func() { _, _ = io.Copy(io.Discard, client) }()
		_ = client.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = client.Write(b)
		_ = client.Close()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatalf("%x: the server hangs", b)
		}
	})
}
