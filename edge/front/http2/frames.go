package http2

import (
	"encoding/binary"
	"errors"
	"io"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// frame reads the payload of a frame and handles the frame.
func (c *conn) frame(fh xhttp2.FrameHeader) error {
	if fh.Type == xhttp2.FrameData {
		return c.readData(fh)
	}
	if int(fh.Length) > c.br.Buffered() {
		if err := c.within(c.limits.HeaderTimeout); err != nil {
			return err
		}
		c.large = c.large || fh.Length > readSize
	}
	f, err := c.fr.ReadFrameForHeader(fh)
	if err != nil {
		var stream xhttp2.StreamError
		// Without HEADERS the HPACK state is lost, and the connection can't go on.
		if !errors.As(err, &stream) || fh.Type == xhttp2.FrameHeaders {
			return err
		}
		return c.badStream(stream.StreamID, stream.Code)
	}
	switch f := f.(type) {
	case *xhttp2.HeadersFrame:
		return c.readHeaders(f)
	case *xhttp2.SettingsFrame:
		return c.readSettings(f)
	case *xhttp2.WindowUpdateFrame:
		return c.readWindowUpdate(f)
	case *xhttp2.RSTStreamFrame:
		return c.readReset(f.StreamID)
	case *xhttp2.PingFrame:
		return c.readPing(f)
	case *xhttp2.PriorityFrame:
		if f.StreamDep == f.StreamID {
			return c.badStream(f.StreamID, xhttp2.ErrCodeProtocol)
		}
	case *xhttp2.PriorityUpdateFrame:
		return c.readPriorityUpdate(f)
	case *xhttp2.GoAwayFrame:
		return c.readGoAway()
	case *xhttp2.PushPromiseFrame:
		return protocolError("PUSH_PROMISE of a client")
	}
	return c.costs()
}

// costs counts a frame that transfers nothing. It returns an error if the client has sent too many.
func (c *conn) costs() error {
	if c.noise++; c.noise <= c.limits.Frames {
		return nil
	}
	c.mu.Lock()
	paid := 8*c.requests + c.moved/256
	c.mu.Unlock()
	if int64(c.noise-c.limits.Frames) > paid+10*int64(time.Since(c.began)/time.Second) {
		return flood("frames that only cost")
	}
	return nil
}

// isIdle reports whether a stream was never opened. c.mu is held.
func (c *conn) isIdle(id uint32) bool { return id%2 == 0 || id > c.lastID }

// badStream resets a stream because of what the client sent (RFC 9113, 5.4.2).
func (c *conn) badStream(id uint32, code xhttp2.ErrCode) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isIdle(id) {
		return &connError{code, "of a stream that was not opened"}
	}
	return c.blame(id, code)
}

// blame resets a stream because of what the client sent. It counts that as a cancellation by the
// client, which could otherwise start requests at no cost (CVE-2025-8671). c.mu is held.
func (c *conn) blame(id uint32, code xhttp2.ErrCode) error {
	s := c.streams[id]
	if s != nil {
		c.resetStream(s, code, errReset)
	} else {
		c.appendReset(id, code)
	}
	return c.tookBack(s)
}

// tookBack counts a request that the client canceled, if that was early (Limits.ResetBytes). It
// returns an error if there were too many. c.mu is held.
func (c *conn) tookBack(s *stream) error {
	if s != nil && s.sent >= c.limits.ResetBytes {
		return nil
	}
	now := time.Now()
	c.tokens = min(float64(c.limits.Resets), c.tokens+float64(now.Sub(c.refilled))/float64(c.limits.ResetsEach))
	c.refilled = now
	c.resets++
	if c.tokens >= 1 {
		c.tokens--
	} else if 2*c.resets > c.requests {
		return flood("requests that are taken back")
	}
	return nil
}

func (c *conn) readSettings(f *xhttp2.SettingsFrame) error {
	if f.IsAck() {
		return c.costs()
	}
	c.mu.Lock()
	err := f.ForeachSetting(c.set)
	c.out = appendFrame(c.outBuffer(), 0, xhttp2.FrameSettings, xhttp2.FlagSettingsAck, 0)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return c.costs()
}

// set applies a setting of the client. c.mu is held.
func (c *conn) set(s xhttp2.Setting) error {
	if err := s.Valid(); err != nil {
		return err
	}
	switch s.ID {
	case xhttp2.SettingHeaderTableSize:
		if s.Val < initialTable && c.table == tableUnused {
			c.table = tableShrinks
		}
	case xhttp2.SettingMaxFrameSize:
		c.frameSize = min(int(s.Val), maxFrame)
	case xhttp2.SettingInitialWindowSize:
		delta := int64(s.Val) - c.initial
		c.initial = int64(s.Val)
		for _, stream := range c.streams {
			if stream.window += delta; stream.window > maxWindow {
				return &connError{xhttp2.ErrCodeFlowControl, "a window of more than 2 GiB"}
			}
			c.queue(stream)
		}
	}
	return nil
}

func (c *conn) readWindowUpdate(f *xhttp2.WindowUpdateFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.StreamID == 0 {
		if c.sendWindow += int64(f.Increment); c.sendWindow > maxWindow {
			return &connError{xhttp2.ErrCodeFlowControl, "a window of more than 2 GiB"}
		}
		return c.costsLocked()
	}
	s := c.streams[f.StreamID]
	switch {
	case s != nil:
		if s.window += int64(f.Increment); s.window > maxWindow {
			return c.blame(s.id, xhttp2.ErrCodeFlowControl)
		}
		c.queue(s)
	case c.isIdle(f.StreamID):
		return protocolError("WINDOW_UPDATE of a stream that was not opened")
	}
	return c.costsLocked()
}

// costsLocked is costs with c.mu held.
func (c *conn) costsLocked() error {
	c.mu.Unlock()
	defer c.mu.Lock()
	return c.costs()
}

func (c *conn) readReset(id uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[id]
	switch {
	case s != nil:
		c.remove(s, errReset)
		return c.tookBack(s)
	case c.isIdle(id):
		return protocolError("RST_STREAM of a stream that was not opened")
	}
	return c.costsLocked()
}

func (c *conn) readPing(f *xhttp2.PingFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !f.IsAck():
		c.out = appendPing(c.outBuffer(), true, f.Data)
	case f.Data == drainPing:
		c.goAway()
	case f.Data == alivePing:
		c.pinged = time.Time{}
	}
	return c.costsLocked()
}

// readGoAway drains the connection, since the client opens no more streams.
func (c *conn) readGoAway() error {
	c.drain()
	return c.costs()
}

// readData reads a DATA frame into the body of its request.
func (c *conn) readData(fh xhttp2.FrameHeader) error {
	size := int(fh.Length)
	if size > c.br.Buffered() {
		if err := c.within(c.limits.DataTimeout); err != nil {
			return err
		}
	}
	padding := 0
	if fh.Flags.Has(xhttp2.FlagDataPadded) {
		if size == 0 {
			return &connError{xhttp2.ErrCodeFrameSize, "DATA without the length of its padding"}
		}
		n, err := c.br.ReadByte()
		if err != nil {
			return err
		}
		if size--; int(n) > size {
			return protocolError("more padding than DATA")
		}
		padding = int(n)
		size -= padding
	}
	end := fh.Flags.Has(xhttp2.FlagDataEndStream)
	c.mu.Lock()
	s, err := c.admit(fh, size)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if err := c.readBody(s, size); err != nil {
		return err
	}
	if _, err := c.br.Discard(padding); err != nil {
		return err
	}
	c.mu.Lock()
	if s != nil {
		c.giveBack(s, int64(int(fh.Length)-size))
	} else {
		c.giveBack(nil, int64(fh.Length))
	}
	if s != nil && end {
		s.endBody(io.EOF)
		c.maybeClose(s)
	}
	if size > 0 {
		c.moved += int64(size)
		c.mu.Unlock()
		return nil
	}
	c.mu.Unlock()
	return c.costs()
}

// admit checks a DATA frame of size bytes without padding, and takes it off the windows. It returns
// the frame's stream, or nil if the data are to be dropped. c.mu is held.
func (c *conn) admit(fh xhttp2.FrameHeader, size int) (*stream, error) {
	id := fh.StreamID
	switch {
	case id == 0:
		return nil, protocolError("DATA of no stream")
	case c.isIdle(id):
		return nil, protocolError("DATA of a stream that was not opened")
	}
	if c.recvWindow -= int64(fh.Length); c.recvWindow < 0 {
		return nil, &connError{xhttp2.ErrCodeFlowControl, "more than the window of the connection"}
	}
	s := c.streams[id]
	switch {
	case s == nil && c.wasReset(id):
		return nil, nil
	case s == nil || s.recvEnded:
		return nil, c.blame(id, xhttp2.ErrCodeStreamClosed)
	}
	if s.recvWindow -= int64(fh.Length); s.recvWindow < 0 {
		return nil, c.blame(id, xhttp2.ErrCodeFlowControl)
	}
	if s.received += int64(size); s.declared >= 0 && s.received > s.declared {
		s.endBody(errLength)
		return nil, c.blame(id, xhttp2.ErrCodeProtocol)
	}
	return s, nil
}

// readBody reads size bytes of a DATA frame into the body of s. It drops them if s is nil.
func (c *conn) readBody(s *stream, size int) error {
	for size > 0 {
		n := min(size, max(c.br.Buffered(), 1))
		p, err := c.br.Peek(n)
		if err != nil {
			return err
		}
		if s != nil {
			c.mu.Lock()
			s.addBody(p)
			c.mu.Unlock()
		}
		if _, err := c.br.Discard(n); err != nil {
			return err
		}
		size -= n
	}
	return nil
}

// giveBack returns n bytes of credit to the windows of the connection and of s, if not nil. It
// sends WINDOW_UPDATE once a quarter of a window has accumulated. c.mu is held.
func (c *conn) giveBack(s *stream, n int64) {
	if n == 0 || c.err != nil {
		return
	}
	if c.recvUnused += n; c.recvUnused >= int64(c.limits.ConnWindow)/4 {
		c.out = appendWindowUpdate(c.outBuffer(), 0, uint32(c.recvUnused))
		c.recvWindow += c.recvUnused
		c.recvUnused = 0
	}
	if s == nil || s.recvEnded || s.err != nil {
		return
	}
	if s.recvUnused += n; s.recvUnused >= int64(c.limits.StreamWindow)/4 {
		c.out = appendWindowUpdate(c.outBuffer(), s.id, uint32(s.recvUnused))
		s.recvWindow += s.recvUnused
		s.recvUnused = 0
	}
}

// appendFrame appends the header of a frame with a payload of size bytes.
func appendFrame(b []byte, size int, kind xhttp2.FrameType, flags xhttp2.Flags, stream uint32) []byte {
	b = append(b, byte(size>>16), byte(size>>8), byte(size), byte(kind), byte(flags))
	return binary.BigEndian.AppendUint32(b, stream)
}

func appendWindowUpdate(b []byte, stream, n uint32) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, 4, xhttp2.FrameWindowUpdate, 0, stream), n)
}

func appendPing(b []byte, ack bool, data [8]byte) []byte {
	var flags xhttp2.Flags
	if ack {
		flags = xhttp2.FlagPingAck
	}
	return append(appendFrame(b, 8, xhttp2.FramePing, flags, 0), data[:]...)
}

func appendGoAway(b []byte, last uint32, code xhttp2.ErrCode) []byte {
	b = appendFrame(b, 8, xhttp2.FrameGoAway, 0, 0)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, last), uint32(code))
}
