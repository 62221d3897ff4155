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
	"unicode"
)

// frames passes the frames of the NATS client protocol from a node to a NATS server. It fails at
// the first frame that no node may send:
//
//   - a subject for answers outside of the node's own inbox,
//   - a header field that is not in sentFields, because some make the server send messages,
//   - a consumer that delivers outside of the node's inbox, or with options that no node uses,
//   - a message that is too large for its subject, or a purge on a wrong subject,
//   - a lease of another node, or with roles that the node's certificate doesn't have,
//   - a command other than PUB, HPUB, SUB, UNSUB, PING and PONG.
//
// NATS itself checks which subjects a node may publish to (see permissions).
type frames struct {
	who   identity
	from  *bufio.Reader
	to    io.Writer
	spend func(cost int) error // waits until the node may send what costs so much; nil means no limit
	has   consumers
	// refuse returns why nothing may be stored now, or "". sendRefusal sends that reason. Both may
	// be nil.
	refuse      func() (why string)
	sendRefusal func(reply, why string)
	// beat takes a beat of the node, and sendAnswer sends an answer. Both may be nil.
	beat       func(beat) bool
	sendAnswer func(reply string, b []byte)
	buf        []byte
}

const (
	maxLine     = 4096     // of the protocol, as in NATS
	maxHeader   = 8 << 10  // header block of a message
	maxField    = 128      // value of a header field
	maxConsumer = 4 << 10  // request for a consumer
	maxRequest  = 16 << 10 // all other messages, see maxMessage
	maxEntry    = 4 << 10  // a lease, a drain, a challenge
	// createConsumer begins the subjects of requests for consumers.
	createConsumer = "$JS.API.CONSUMER.CREATE."
	deleteConsumer = "$JS.API.CONSUMER.DELETE."
)

// sentFields are the header fields that nodes send: for a purge, for an entry of a bucket, and for
// its deletion.
var sentFields = []string{"Nats-Msg-Id", "Nats-Expected-Stream", "Nats-Expected-Last-Subject-Sequence", "Nats-TTL",
	"Nats-Rollup", "KV-Operation", "Nats-Required-Api-Level"}

var errFrame = errors.New("the node sent an unexpected message")

// copy passes frames on until the connection ends or a frame is refused.
func (f *frames) copy() error {
	for {
		line, err := readLine(f.from)
		if err != nil {
			return err
		}
		if err := f.pay(frameCost); err != nil {
			return err
		}
		if err := f.frame(line); err != nil {
			return err
		}
	}
}

// pay waits until the node may send what costs so much.
func (f *frames) pay(cost int) error {
	if f.spend == nil {
		return nil
	}
	return f.spend(cost)
}

// maxMessage returns the size limit of a message to a subject, without its header block.
func maxMessage(subject string) int {
	switch {
	case strings.HasPrefix(subject, purgeSubject+"."):
		return maxPurge
	case strings.HasPrefix(subject, "$KV."+certificateBucket+"."):
		return 2 * maxVaultValue
	case strings.HasPrefix(subject, "$KV."):
		return maxEntry
	case strings.HasPrefix(subject, reportSubject+"."):
		return MaxReport
	}
	return maxRequest
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
	case "SUB", "UNSUB": // NATS limits the subject to the node's inbox
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

// message passes a message on. Its line has the subject, possibly a subject for answers, and the
// sizes: of the message, or of the header block and of both.
func (f *frames) message(line []byte, words [][]byte, sizes int) error {
	subject, reply := string(words[0]), ""
	if len(words) > 1+sizes {
		if reply = string(words[1]); !f.own(reply) {
			return fmt.Errorf("%w: %.80q asks for its answer on %.80q", errFrame, subject, reply)
		}
	}
	if strings.HasPrefix(subject, purgeSubject+".") && subject != subjectOf(siteOf(subject)) {
		return fmt.Errorf("%w: %.80q, which is not the subject of a purge", errFrame, subject)
	}
	limit := maxMessage(subject)
	if sizes == 2 {
		limit = min(limit+maxHeader, maxPurge)
	}
	size, err := f.size(words[len(words)-1], limit)
	if err != nil {
		return err
	}
	cost := size
	if strings.HasPrefix(subject, "$JS.API.") {
		cost += requestCost
	}
	if subject == reportsSubject {
		cost += reportsCost
	}
	if err := f.pay(cost); err != nil {
		return err
	}
	if f.refuse != nil && isStored(subject) {
		if why := f.refuse(); why != "" {
			if _, err := io.CopyN(io.Discard, f.from, int64(size)); err != nil {
				return err
			}
			if reply != "" {
				f.sendRefusal(reply, why)
			}
			return f.drop()
		}
	}
	if strings.HasPrefix(subject, createConsumer) {
		if sizes != 1 {
			return fmt.Errorf("%w: %.80q with a header block", errFrame, subject)
		}
		return f.consumer(subject, reply, size)
	}
	if rest, ok := strings.CutPrefix(subject, deleteConsumer); ok {
		stream, name, _ := strings.Cut(rest, ".")
		f.has.remove(stream, name)
	}
	if subject == endSubject && sizes == 1 && size > 0 {
		return f.question(reply, size)
	}
	head := 0
	if sizes == 2 {
		if head, err = f.size(words[len(words)-2], min(size, maxHeader)); err != nil {
			return err
		}
	}
	if subject == "$KV."+leaseBucket+"."+f.who.node {
		return f.lease(line, head, size)
	}
	if err := f.write(line); err != nil { // NATS drops an incomplete message
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

// question takes the beat out of a question for the end of the log. It passes on whether the beat
// was taken. It ignores what it can't parse.
func (f *frames) question(reply string, size int) error {
	b, err := f.read(size)
	if err != nil {
		return err
	}
	q, err := parseEndQuestion(b)
	if err != nil || q.Beat == nil {
		q = endQuestion{}
	}
	taken := q.Beat != nil && f.beat != nil && f.beat(*q.Beat)
	if q.Alone {
		if reply != "" && f.sendAnswer != nil {
			b, err := json.Marshal(logEnd{Taken: taken})
			if err != nil {
				return err
			}
			f.sendAnswer(reply, b)
		}
		return f.drop()
	}
	if b, err = json.Marshal(endQuestion{Taken: taken}); err != nil {
		return err
	}
	if err := f.write(fmt.Appendf(nil, "PUB %s %s %d\r\n%s", endSubject, reply, len(b), b)); err != nil {
		return err
	}
	return f.end()
}

// lease passes on the lease of the node.
func (f *frames) lease(line []byte, head, size int) error {
	line = bytes.Clone(line) // read overwrites it
	b, err := f.read(size)
	if err != nil {
		return err
	}
	if head > 0 {
		err = checkFields(b[:head])
	}
	if err == nil && size > head { // an empty lease is a deletion
		err = checkLease(b[head:], f.who)
	}
	if err != nil {
		return fmt.Errorf("%w: its lease: %w", errFrame, err)
	}
	if err := errors.Join(f.write(line), f.write(b)); err != nil {
		return err
	}
	return f.end()
}

// checkLease returns an error if a lease contradicts the certificate of its node.
func checkLease(b []byte, who identity) error {
	var l Lease
	if err := json.Unmarshal(b, &l); err != nil {
		return err
	}
	if l.Node != who.node {
		return fmt.Errorf("it belongs to node %.80q", l.Node)
	}
	for _, role := range l.Roles {
		if !slices.Contains(who.roles, role) {
			return fmt.Errorf("the role %.80q, which its certificate does not have", role)
		}
	}
	if l.Load < 0 || l.Load > 1 {
		return fmt.Errorf("a load of %v, want 0 to 1", l.Load)
	}
	if text := l.Version + l.Region + l.Address + l.Sites; strings.ContainsFunc(text, unicode.IsControl) {
		return fmt.Errorf("a control character in %.200q", text)
	}
	return nil
}

// size parses a number of bytes, 0 to limit.
func (f *frames) size(word []byte, limit int) (int, error) {
	n, err := strconv.Atoi(string(word))
	if err != nil || n < 0 || n > limit {
		return 0, fmt.Errorf("%w: a size of %.20q, want 0 to %d", errFrame, word, limit)
	}
	return n, nil
}

// read reads n bytes. The next call overwrites them.
func (f *frames) read(n int) ([]byte, error) {
	if cap(f.buf) < n {
		f.buf = make([]byte, n)
	}
	_, err := io.ReadFull(f.from, f.buf[:n])
	return f.buf[:n], err
}

// end passes on the end of a message.
func (f *frames) end() error {
	if err := f.drop(); err != nil {
		return err
	}
	return f.write([]byte("\r\n"))
}

// drop reads the end of a message.
func (f *frames) drop() error {
	b, err := f.read(2)
	if err == nil && string(b) != "\r\n" {
		err = fmt.Errorf("%w: a message that is longer than it says", errFrame)
	}
	return err
}

// checkFields returns an error if a header block has fields that nodes don't send.
func checkFields(b []byte) error {
	text, ok := bytes.CutPrefix(b, []byte("NATS/1.0\r\n"))
	if !ok {
		return errors.New("a header block that does not begin with NATS/1.0")
	}
	fields, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(text))).ReadMIMEHeader()
	if err != nil {
		return err
	}
	for name, values := range fields {
		if !slices.ContainsFunc(sentFields, func(s string) bool { return strings.EqualFold(s, name) }) {
			return fmt.Errorf("the field %.80q", name)
		}
		if len(values) > 1 || len(values[0]) > maxField {
			return fmt.Errorf("the field %.80q twice, or with more than %d bytes", name, maxField)
		}
		// "all" would remove the entries of all other nodes
		if strings.EqualFold(name, "Nats-Rollup") && values[0] != "sub" {
			return fmt.Errorf("%s: %.80q, want sub", name, values[0])
		}
	}
	return nil
}

// own reports whether a subject is in the node's inbox.
func (f *frames) own(subject string) bool {
	return strings.HasPrefix(subject, inbox(f.who.node)+".") && !strings.ContainsAny(subject, "*>")
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
