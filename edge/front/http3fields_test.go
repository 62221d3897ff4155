package front

import (
	"io"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3/qlog"
)

// bodyOf is the request body of a stream.
type bodyOf quic.StreamID

func (b bodyOf) StreamID() quic.StreamID  { return quic.StreamID(b) }
func (bodyOf) Read(p []byte) (int, error) { return 0, io.EOF }

// A malformed request doesn't affect others of its connection, up to a bound. Beyond the bound, all
// requests of the connection are refused.
func TestFieldWatch(t *testing.T) {
	var f fieldWatch
	if f.AddProducer() != nil || f.AddProducer() == nil || f.AddProducer() == nil {
		t.Fatal("QUIC has a recorder, or HTTP/3 has none")
	}
	see := func(id quic.StreamID, fields ...qlog.HeaderField) {
		f.RecordEvent(qlog.FrameParsed{StreamID: id, Frame: qlog.Frame{Frame: qlog.HeadersFrame{HeaderFields: fields}}})
	}
	get, https := qlog.HeaderField{Name: ":method", Value: "GET"}, qlog.HeaderField{Name: ":scheme", Value: "HTTPS"}
	see(0, get, https)
	see(4, get)
	see(8, qlog.HeaderField{Name: "x-trailer", Value: "1"})
	see(12, qlog.HeaderField{Name: ":method", Value: "CONNECT"})
	see(16, get, https, qlog.HeaderField{Name: "content-length"})
	f.RecordEvent(qlog.FrameCreated{StreamID: 20, Frame: qlog.Frame{Frame: qlog.HeadersFrame{}}})
	for id, want := range map[quic.StreamID]bool{0: false, 4: true, 8: false, 12: false, 16: true, 20: false} {
		if got := f.refuses(bodyOf(id)); got != want {
			t.Errorf("stream %d: %v, want %v", id, got, want)
		}
	}
	if f.refuses(bodyOf(4)) || len(f.malformed) > 0 {
		t.Error("what was asked for is kept")
	}
	for id := range quic.StreamID(2 * maxMalformed) {
		see(4*id, get)
	}
	if len(f.malformed) > maxMalformed {
		t.Errorf("%d streams are kept", len(f.malformed))
	}
	if !f.refuses(bodyOf(1 << 20)) {
		t.Error("a further request of the connection is answered")
	}
}
