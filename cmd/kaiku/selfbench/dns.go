package selfbench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/capacity"
)

// queries measures DNS queries over UDP, without and with DNSSEC.
func (b *bench) queries(ctx context.Context, c *capacity.Costs) (err error) {
	for _, m := range []struct {
		what, name string
		signed     bool
		to         *float64
	}{
		{"DNS queries", b.node.plainZone, false, &c.Query},
		{"DNS queries with DNSSEC", b.node.signed, true, &c.Signed},
	} {
		b.Told(m.what)
		sockets := make(chan net.Conn, clients)
		for range clients {
			s, err := net.Dial("udp", b.node.dns)
			if err != nil {
				return err
			}
			defer s.Close()
			sockets <- s
		}
		*m.to, err = b.load(ctx, func() error {
			s := <-sockets
			defer func() { sockets <- s }()
			return ask(s, query(m.name, m.signed), m.signed)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", m.what, err)
		}
		*m.to /= window
	}
	return nil
}

// window is how many queries a client sends before it reads the answers.
const window = 8

// ask sends window queries and reads their answers.
func ask(s net.Conn, q []byte, signed bool) error {
	if err := s.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	for i := range window {
		binary.BigEndian.PutUint16(q, uint16(i))
		if _, err := s.Write(q); err != nil {
			return err
		}
	}
	want := uint16(1)
	if signed {
		want = 2 // the address and its signature
	}
	answer := make([]byte, 4096)
	for range window {
		n, err := s.Read(answer)
		if err != nil {
			return err
		}
		if n < 12 || answer[3]&15 != 0 || binary.BigEndian.Uint16(answer[6:]) != want {
			return errors.New("a name server gave an unexpected answer")
		}
	}
	return nil
}

// query returns a query for the A record of a name (RFC 1035, 4), with an OPT record (RFC 6891)
// that asks for signatures if signed is set.
func query(name string, signed bool) []byte {
	q := []byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1}
	for label := range strings.SplitSeq(name, ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	q = append(q, 0, 0, 1, 0, 1)
	do := byte(0)
	if signed {
		do = 0x80
	}
	return append(q, 0, 0, 41, 0x04, 0xd0, 0, 0, do, 0, 0, 0)
}
