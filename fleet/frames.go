package fleet

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
)

// frames passes the frames of the NATS client protocol from a node to a NATS server. It ends with an
// error at the first frame that a node has no business to send:
//
//   - a subject for answers outside of the node's own inbox,
//   - a header field that is not in sentFields, as some make the server send something somewhere,
//   - a consumer that delivers outside of the node's own inbox, or is not of the form that nodes use,
//   - a command that is not PUB, HPUB, SUB, UNSUB, PING or PONG.
//
// Which subjects a node may publish to is for NATS to check (see permissions).
type frames struct {
	node string
	from *bufio.Reader
	to   io.Writer
	buf  []byte
}

const (
	maxLine     = 4096     // of the protocol, as in NATS
	maxHeader   = 8 << 10  // header block of a message
	maxConsumer = 16 << 10 // request for a consumer
	// createConsumer begins the subjects of requests for consumers.
	createConsumer = "$JS.API.CONSUMER.CREATE."
)

// sentFields are the header fields that nodes send: those of a purge, of a bucket's entry, and of its
// deletion.
var sentFields = []string{"Nats-Msg-Id", "Nats-Expected-Stream", "Nats-Expected-Last-Subject-Sequence", "Nats-TTL",
	"Nats-Rollup", "KV-Operation", "Nats-Required-Api-Level"}

var errFrame = errors.New("the node sent what no node sends")

// copy passes frames on until the connection ends or a frame is refused.
func (f *frames) copy() error {
	for {
		line, err := readLine(f.from)
		if err != nil {
			return err
		}
		if err := f.frame(line); err != nil {
			return err
		}
	}
}

// frame passes one frame on.
func (f *frames) frame(line []byte) error {
	verb, rest, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(" "))
	words := bytes.Fields(rest)
	switch strings.ToUpper(string(verb)) {
	case "PING", "PONG":
		if len(words) == 0 {
			return f.write(line)
		}
	case "SUB", "UNSUB": // NATS holds the subject to the node's inbox
		if n := len(words); n >= 1 && n <= 3 {
			return f.write(line)
		}
	case "PUB":
		if n := len(words); n == 2 || n == 3 {
			return f.message(line, words, 1)
		}
	case "HPUB":
		if n := len(words); n == 3 || n == 4 {
			return f.message(line, words, 2)
		}
	}
	return fmt.Errorf("%w: %.80q", errFrame, line)
}

// message passes on a message. Its line is subject, perhaps a subject for answers, and sizes: of the
// message, or of the header block and of both.
func (f *frames) message(line []byte, words [][]byte, sizes int) error {
	subject, reply := string(words[0]), ""
	if len(words) > 1+sizes {
		if reply = string(words[1]); !f.own(reply) {
			return fmt.Errorf("%w: an answer of %.80q on %.80q", errFrame, subject, reply)
		}
	}
	size, err := f.size(words[len(words)-1], maxPurge)
	if err != nil {
		return err
	}
	if strings.HasPrefix(subject, createConsumer) {
		if sizes != 1 {
			return fmt.Errorf("%w: %.80q with a header block", errFrame, subject)
		}
		return f.consumer(subject, reply, size)
	}
	head := 0
	if sizes == 2 {
		if head, err = f.size(words[len(words)-2], min(size, maxHeader)); err != nil {
			return err
		}
	}
	if err := f.write(line); err != nil { // NATS drops a message that does not come whole
		return err
	}
	if head > 0 {
		b, err := f.read(head)
		if err != nil {
			return err
		}
		if err := checkFields(b); err != nil {
			return fmt.Errorf("%w: %.80q: %w", errFrame, subject, err)
		}
		if err := f.write(b); err != nil {
			return err
		}
	}
	if _, err := io.CopyN(f.to, f.from, int64(size-head)); err != nil {
		return err
	}
	return f.end()
}

// consumer passes on a request for a consumer as it was understood here.
func (f *frames) consumer(subject, reply string, size int) error {
	if size > maxConsumer {
		return fmt.Errorf("%w: %d bytes for %.80q", errFrame, size, subject)
	}
	b, err := f.read(size)
	if err != nil {
		return err
	}
	if b, err = f.checkConsumer(b); err != nil {
		return fmt.Errorf("%w: %.80q: %w", errFrame, subject, err)
	}
	if err := f.write(fmt.Appendf(nil, "PUB %s %s %d\r\n%s", subject, reply, len(b), b)); err != nil {
		return err
	}
	return f.end()
}

// size reads a number of bytes, 0 to limit.
func (f *frames) size(word []byte, limit int) (int, error) {
	n, err := strconv.Atoi(string(word))
	if err != nil || n < 0 || n > limit {
		return 0, fmt.Errorf("%w: a size of %.20q, want 0 to %d", errFrame, word, limit)
	}
	return n, nil
}

// read reads n bytes, which the next call overwrites.
func (f *frames) read(n int) ([]byte, error) {
	if cap(f.buf) < n {
		f.buf = make([]byte, n)
	}
	_, err := io.ReadFull(f.from, f.buf[:n])
	return f.buf[:n], err
}

// end passes on the end of a message.
func (f *frames) end() error {
	b, err := f.read(2)
	if err != nil {
		return err
	}
	if string(b) != "\r\n" {
		return fmt.Errorf("%w: a message that is longer than it says", errFrame)
	}
	return f.write(b)
}

// checkFields reports whether a header block has nothing but fields that nodes send.
func checkFields(b []byte) error {
	text, ok := bytes.CutPrefix(b, []byte("NATS/1.0\r\n"))
	if !ok {
		return errors.New("a header block that does not begin with NATS/1.0")
	}
	fields, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(text))).ReadMIMEHeader()
	if err != nil {
		return err
	}
	for name := range fields {
		if !slices.ContainsFunc(sentFields, func(s string) bool { return strings.EqualFold(s, name) }) {
			return fmt.Errorf("the field %.80q", name)
		}
	}
	return nil
}

// consumerRequest is what a node asks a consumer to be: all that the NATS client sends for a watch of
// a bucket, and for the log of purges.
type consumerRequest struct {
	Stream string `json:"stream_name"`
	Action string `json:"action,omitempty"`
	Config struct {
		Name              string            `json:"name,omitempty"`
		DeliverPolicy     string            `json:"deliver_policy"`
		OptStartSeq       uint64            `json:"opt_start_seq,omitempty"`
		AckPolicy         string            `json:"ack_policy,omitempty"`
		AckWait           int64             `json:"ack_wait,omitempty"`
		MaxDeliver        int               `json:"max_deliver,omitempty"`
		FilterSubject     string            `json:"filter_subject,omitempty"`
		FilterSubjects    []string          `json:"filter_subjects,omitempty"`
		ReplayPolicy      string            `json:"replay_policy,omitempty"`
		MaxWaiting        int               `json:"max_waiting,omitempty"`
		MaxAckPending     int               `json:"max_ack_pending,omitempty"`
		HeadersOnly       bool              `json:"headers_only,omitempty"`
		InactiveThreshold int64             `json:"inactive_threshold,omitempty"`
		Replicas          int               `json:"num_replicas,omitempty"`
		MemoryStorage     bool              `json:"mem_storage,omitempty"`
		Metadata          map[string]string `json:"metadata,omitempty"`
		DeliverSubject    string            `json:"deliver_subject,omitempty"`
		FlowControl       bool              `json:"flow_control,omitempty"`
		IdleHeartbeat     int64             `json:"idle_heartbeat,omitempty"`
	} `json:"config"`
}

// checkConsumer returns a request for a consumer, written anew. It fails if the request asks for what
// nodes don't ask for.
func (f *frames) checkConsumer(b []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var r consumerRequest
	if err := d.Decode(&r); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	if to := r.Config.DeliverSubject; to != "" && !f.own(to) {
		return nil, fmt.Errorf("a consumer that delivers to %.80q", to)
	}
	return json.Marshal(&r)
}

// own reports whether a subject is in the node's inbox.
func (f *frames) own(subject string) bool {
	return strings.HasPrefix(subject, inbox(f.node)+".") && !strings.ContainsAny(subject, "*>")
}

func (f *frames) write(b []byte) error {
	_, err := f.to.Write(b)
	return err
}

// readLine reads a line of the protocol. The next read overwrites it.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if len(line) > maxLine || errors.Is(err, bufio.ErrBufferFull) {
		return nil, fmt.Errorf("%w: a line of more than %d bytes", errFrame, maxLine)
	}
	return line, err
}
