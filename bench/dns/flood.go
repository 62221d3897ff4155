package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/net/ipv4"
)

// Flood is a load that dnsperf can't generate. dnsperf needs two system calls per query, so a
// server waits for it half of the time. Flood keeps many queries in the server's socket, but not so
// many that the socket drops some. So the server is always busy, and its queries per second are the
// most that it can do.
const (
	floodSockets = 16
	// floodBatch is the number of outstanding queries of each socket. All sockets together have
	// 128, which is about half of what a server's socket holds.
	floodBatch = 8
)

type floodResult struct{ Answers, Lost int }

// flood sends queries to the server at addr for the given time, and writes a floodResult. It runs
// as a process of its own, on its own core.
func flood(addr, file string, length time.Duration, out io.Writer) error {
	queries, err := readQueries(file)
	if err != nil {
		return err
	}
	var clients []*client
	for range floodSockets {
		c, err := newClient(addr)
		if err != nil {
			return err
		}
		defer c.conn.Close()
		clients = append(clients, c)
	}
	var total floodResult
	next := 0
	for _, c := range clients {
		if err := c.send(queries, &next); err != nil {
			return err
		}
	}
	for end := time.Now().Add(length); time.Now().Before(end); {
		for _, c := range clients {
			answers, err := c.receive()
			if err != nil {
				return err
			}
			total.Answers += answers
			total.Lost += floodBatch - answers
			if err := c.send(queries, &next); err != nil {
				return err
			}
		}
	}
	return json.NewEncoder(out).Encode(total)
}

// readQueries reads a file of queries in the format of dnsperf -B.
func readQueries(file string) (all [][]byte, err error) {
	b, err := os.ReadFile(file)
	for len(b) > 2 {
		n := 2 + int(binary.BigEndian.Uint16(b))
		all = append(all, b[2:n])
		b = b[n:]
	}
	return all, err
}

// client is a socket with its outstanding queries.
type client struct {
	conn    *net.UDPConn
	batch   *ipv4.PacketConn
	out, in []ipv4.Message
	id      uint16
}

func newClient(addr string) (*client, error) {
	conn, err := net.Dial("udp4", addr)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn.(*net.UDPConn), out: make([]ipv4.Message, floodBatch), in: make([]ipv4.Message, floodBatch)}
	c.batch = ipv4.NewPacketConn(c.conn)
	for i := range floodBatch {
		c.out[i].Buffers = [][]byte{make([]byte, 0, 512)}
		c.in[i].Buffers = [][]byte{make([]byte, 2048)}
	}
	return c, nil
}

// send sends a batch of queries, all with the same ID. The ID tells late answers to an earlier
// batch apart.
func (c *client) send(queries [][]byte, next *int) error {
	c.id++
	for i := range c.out {
		b := append(c.out[i].Buffers[0][:0], queries[*next]...)
		binary.BigEndian.PutUint16(b, c.id)
		c.out[i].Buffers[0] = b
		*next = (*next + 1) % len(queries)
	}
	for sent := 0; sent < floodBatch; {
		n, err := c.batch.WriteBatch(c.out[sent:], 0)
		if err != nil {
			return err
		}
		sent += n
	}
	return nil
}

// receive reads the answers to the batch. Answers that take more than 50 ms count as lost.
func (c *client) receive() (answers int, err error) {
	_ = c.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	for answers < floodBatch {
		n, err := c.batch.ReadBatch(c.in[:floodBatch-answers], 0)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return answers, nil
		}
		if err != nil {
			return answers, err
		}
		for _, m := range c.in[:n] {
			b := m.Buffers[0][:m.N]
			if len(b) < 12 || binary.BigEndian.Uint16(b) != c.id {
				continue
			}
			if b[3]&0xf != 0 || binary.BigEndian.Uint16(b[6:]) == 0 {
				return answers, fmt.Errorf("an answer that is none: %x", b)
			}
			answers++
		}
	}
	return answers, nil
}
