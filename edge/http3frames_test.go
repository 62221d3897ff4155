package edge

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"
)

// Frames and streams of HTTP/3 (RFC 9114, 6.2 and 7.2; RFC 9204, 4.2).
const (
	frameData, frameHeaders, frameCancelPush, frameSettings, framePushPromise, frameMaxPushID = 0, 1, 3, 4, 5, 0xd
	streamControl, streamEncoder, streamDecoder                                               = 0, 2, 3
)

func rawFrame(kind uint64, payload ...byte) []byte {
	return append(quicvarint.Append(quicvarint.Append(nil, kind), uint64(len(payload))), payload...)
}

// http3Frames are what a client sends on a connection, and how that ends.
type http3Frames struct {
	name    string
	streams map[byte][]byte // what each unidirectional stream has
	request []byte          // what the request stream has
	code    http3.ErrCode   // what the connection ends with
	goesOn  bool            // quic-go does not, and answers the request
}

func http3FrameCases() []http3Frames {
	get := rawFrame(frameHeaders, qpackBlock((&rawRequest{method: "GET", authority: "www.example",
		target: "/a"}).pseudo())...)
	settings := rawFrame(frameSettings)
	join := func(parts ...[]byte) (b []byte) {
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	return []http3Frames{
		{"as it should be", map[byte][]byte{streamControl: settings, streamEncoder: nil, streamDecoder: nil}, get, 0,
			true},
		{"a frame of an unknown type", map[byte][]byte{streamControl: join(settings, rawFrame(0x21, 1, 2))},
			join(rawFrame(0x21, 1, 2), get), 0, true},
		{"GOAWAY before SETTINGS", map[byte][]byte{streamControl: join(rawFrame(7, 0), settings)}, nil,
			http3.ErrCodeMissingSettings, false},
		{"DATA before SETTINGS", map[byte][]byte{streamControl: join(rawFrame(frameData), settings)}, nil,
			http3.ErrCodeMissingSettings, false},
		{"SETTINGS twice", map[byte][]byte{streamControl: join(settings, settings)}, nil, http3.ErrCodeFrameUnexpected,
			false},
		{"DATA on the control stream", map[byte][]byte{streamControl: join(settings, rawFrame(frameData))}, nil,
			http3.ErrCodeFrameUnexpected, false},
		{"DATA before HEADERS", nil, join(rawFrame(frameData), get), http3.ErrCodeFrameUnexpected, false},
		{"SETTINGS on a request stream", nil, join(settings, get), http3.ErrCodeFrameUnexpected, false},
		{"a frame type of HTTP/2", nil, join(rawFrame(6), get), http3.ErrCodeFrameUnexpected, false},

		{"MAX_PUSH_ID before SETTINGS", map[byte][]byte{streamControl: join(rawFrame(frameMaxPushID, 0), settings)},
			get, http3.ErrCodeMissingSettings, true},
		{"a frame of an unknown type before SETTINGS", map[byte][]byte{streamControl: join(rawFrame(0x21), settings)},
			get, http3.ErrCodeMissingSettings, true},
		{"a setting of HTTP/2", map[byte][]byte{streamControl: rawFrame(frameSettings, 2, 1)}, get,
			http3.ErrCodeSettingsError, true},
		{"CANCEL_PUSH on a request stream", nil, join(rawFrame(frameCancelPush, 0), get), http3.ErrCodeFrameUnexpected,
			true},
		{"MAX_PUSH_ID on a request stream", nil, join(rawFrame(frameMaxPushID, 0), get), http3.ErrCodeFrameUnexpected,
			true},
		{"PUSH_PROMISE on a request stream", nil, join(rawFrame(framePushPromise, 0), get),
			http3.ErrCodeFrameUnexpected, true},
		{"a QPACK table larger than it may be", map[byte][]byte{streamEncoder: {0x3f, 0xe1, 0x1f}}, get, 0x201, true},
		{"a QPACK entry that names one out of range", map[byte][]byte{streamEncoder: {0xff, 0xff, 0x01, 0x00}}, get,
			0x201, true},
		{"a QPACK increment of 0", map[byte][]byte{streamDecoder: {0x00}}, get, 0x202, true},
		{"a QPACK acknowledgement of no stream", map[byte][]byte{streamDecoder: {0xff, 0x21}}, get, 0x202, true},
	}
}

// What RFC 9114 and RFC 9204 have a server end the connection for, quic-go does, but for what
// docs/tls.md says.
func TestHTTP3Frames(t *testing.T) {
	e := newSecure(t, static("x", "Cache-Control: max-age=1000"), 1)
	for _, c := range http3FrameCases() {
		t.Run(c.name, func(t *testing.T) {
			conn, err := e.dialQUIC(t.Context(), socket(t))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.CloseWithError(0, "")
			for kind, b := range c.streams {
				s, err := conn.OpenUniStreamSync(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.Write(append([]byte{kind}, b...)); err != nil {
					t.Fatal(err)
				}
			}
			if c.request != nil {
				s, err := conn.OpenStreamSync(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				_ = s.SetDeadline(time.Now().Add(30 * time.Second))
				_, _ = s.Write(c.request)
				s.Close()
				if got := answerOnStream(s); c.goesOn != (got.status == 200) {
					t.Fatalf("answered with %d, %v", got.status, got.err)
				}
			}
			if c.goesOn {
				if err := conn.Context().Err(); err != nil {
					t.Errorf("docs/tls.md says that the connection goes on: %v", context.Cause(conn.Context()))
				}
				return
			}
			<-conn.Context().Done()
			var ended *quic.ApplicationError
			if err := context.Cause(conn.Context()); !errors.As(err, &ended) ||
				http3.ErrCode(ended.ErrorCode) != c.code {
				t.Errorf("the connection ends with %v, want %v", err, c.code)
			}
		})
	}
}
