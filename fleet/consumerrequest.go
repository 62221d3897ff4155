package fleet

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// consumer passes on a request for a consumer, written anew from what was parsed.
func (f *frames) consumer(subject, reply string, size int) error {
	if size > maxConsumer {
		return fmt.Errorf("%w: %d bytes for %.80q", errFrame, size, subject)
	}
	b, err := f.read(size)
	if err != nil {
		return err
	}
	r, err := f.checkConsumer(subject, b)
	if err == nil {
		b, err = json.Marshal(r)
	}
	if err != nil {
		return fmt.Errorf("%w: %.80q: %w", errFrame, subject, err)
	}
	f.has.add(r.Stream, r.Config.Name)
	if err := f.write(fmt.Appendf(nil, "PUB %s%s.%s %s %d\r\n%s", createConsumer, r.Stream, r.Config.Name, reply,
		len(b), b)); err != nil {
		return err
	}
	return f.end()
}

// consumerRequest is a node's request for a consumer. It has all fields that the NATS client sends
// to watch a bucket or follow the log of purges.
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

// checkConsumer parses a request for a consumer and limits it to what nodes need: a consumer that
// one control node keeps in memory, and that ends a minute after its last client. It fails if the
// request asks for anything else.
func (f *frames) checkConsumer(subject string, b []byte) (*consumerRequest, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var r consumerRequest
	if err := d.Decode(&r); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	c := &r.Config
	if to := c.DeliverSubject; to != "" && !f.own(to) {
		return nil, fmt.Errorf("a consumer that delivers to %.80q", to)
	}
	stream, rest, _ := strings.Cut(strings.TrimPrefix(subject, createConsumer), ".")
	if stream != r.Stream {
		return nil, fmt.Errorf("a consumer of %.80q", r.Stream)
	}
	if name, _, _ := strings.Cut(rest, "."); name != "" {
		c.Name = name // a filter follows in the subject; the request has it too
	}
	if c.Name == "" {
		c.Name = rand.Text()
	}
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	if len(c.Name) > 64 || strings.Trim(c.Name, letters) != "" {
		return nil, fmt.Errorf("a consumer of the name %.80q", c.Name)
	}
	if c.AckPolicy != "none" {
		return nil, fmt.Errorf("a consumer with ack_policy %.80q, want none", c.AckPolicy)
	}
	if c.IdleHeartbeat != 0 && c.IdleHeartbeat < int64(time.Second) {
		return nil, fmt.Errorf("a consumer with a heartbeat every %v", time.Duration(c.IdleHeartbeat))
	}
	c.MemoryStorage, c.Replicas, c.Metadata = true, 1, nil
	c.InactiveThreshold = min(max(c.InactiveThreshold, 0), int64(time.Minute))
	c.MaxWaiting, c.MaxAckPending = min(max(c.MaxWaiting, 0), 512), 0
	return &r, nil
}
