package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// A stream has room for a consumer of each node that may be connected.
func TestConsumersOfManyNodes(t *testing.T) {
	a := startAbused(t)
	conn, js, err := inside(a.node.nats(), userFleet, a.node.secret)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i := range 1100 {
		if _, err := js.CreateConsumer(t.Context(), purgeStream,
			jetstream.ConsumerConfig{Name: fmt.Sprint("c", i), AckPolicy: jetstream.AckNonePolicy,
				MemoryStorage: true}); err != nil {
			t.Fatalf("consumer %d: %v", i, err)
		}
	}
}

// An edge that was away while somebody filled the log with large purges catches up, and holds a
// bounded part of them at a time.
func TestLargePurgesComeInParts(t *testing.T) {
	a := startAbused(t)
	conn, js, err := inside(a.node.nats(), userFleet, a.node.secret)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const size, count = 3 << 20, 20
	large := bytes.Repeat([]byte(" "), size)
	for range count {
		if _, err := js.Publish(t.Context(), subjectOf(""), large); err != nil {
			t.Fatal(err)
		}
	}
	log, _, err := a.admin.position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	taken, largest := 0, 0
	client := dial(t, []*control{a.node}, "hel1", RoleEdge)
	f := &Follower{Client: client, Start: Position{Log: log.Log},
		Lost: func(Position) error { return errors.New("lost") },
		Apply: func(purges []Logged, _ Position) error {
			if taken == 0 { // slow, so that others wait to be applied
				testwait.Until(t, "more have come", func() bool { return client.conn.Stats().InBytes >= 10*size })
			}
			sum := 0
			for _, p := range purges {
				sum += len(p.Purge)
			}
			taken, largest = taken+sum, max(largest, sum)
			return nil
		}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = f.Serve(ctx)
	}()
	testwait.Until(t, "all are applied", func() bool { return f.Applied().Seq == count })
	cancel()
	<-done
	if taken != size*count || largest > maxFed+size {
		t.Errorf("%d bytes were applied, %d at once", taken, largest)
	}
}

// Every stream has a bound in bytes.
func TestStreamsAreBounded(t *testing.T) {
	a := startAbused(t)
	for _, name := range streamNames() {
		testwait.Until(t, name+" has a bound", func() bool {
			s, err := a.admin.js.Stream(t.Context(), name)
			return err == nil && s.CachedInfo().Config.MaxBytes > 0 && s.CachedInfo().Config.MaxMsgs > 0
		})
	}
}

// A bucket that is full takes what changes or takes back an entry of it, and no new one.
func TestFullBucket(t *testing.T) {
	a := startAbused(t)
	conn, js, err := inside(a.node.nats(), userFleet, a.node.secret)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for bucket, was := range map[string]string{leaseBucket: `{"node":"hel1"}`, drainBucket: "true",
		challengeBucket: "x", certificateBucket: "x"} {
		testwait.Until(t, bucket+" has a bound", func() bool {
			s, err := js.Stream(t.Context(), "KV_"+bucket)
			return err == nil && s.CachedInfo().Config.MaxMsgs > 0
		})
		kv, err := js.KeyValue(t.Context(), bucket)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"hel1", "nyc1"} {
			if _, err := kv.Put(t.Context(), key, []byte(was)); err != nil {
				t.Fatal(err)
			}
		}
		s, err := js.Stream(t.Context(), "KV_"+bucket)
		if err != nil {
			t.Fatal(err)
		}
		conf := s.CachedInfo().Config
		conf.MaxMsgs = 2
		if _, err := js.UpdateStream(t.Context(), conf); err != nil {
			t.Fatal(err)
		}
		if _, err := kv.Put(t.Context(), "new", []byte(was)); err == nil {
			t.Errorf("%s takes one more", bucket)
		}
		if _, err := kv.Put(t.Context(), "hel1", []byte(was)); err != nil {
			t.Errorf("%s takes no change: %v", bucket, err)
		}
		if err := errors.Join(kv.Delete(t.Context(), "hel1"), kv.Purge(t.Context(), "nyc1")); err != nil {
			t.Errorf("%s: nothing can be taken back: %v", bucket, err)
		}
	}
}
