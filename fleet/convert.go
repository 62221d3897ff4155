package fleet

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

// A control node that has always been alone is in no group, because NATS has no groups of one. When
// the fleet file gives it other control nodes, it becomes the only member of a group, which these
// join. NATS doesn't take the streams along, so Kaiku does:
//
//  1. It reads the streams, and copies them beside the original.
//  2. It writes what they were to carry.json, moves the original aside, and puts the copy in its
//     place.
//  3. It starts the server with the copy in a group of one, and accepts no clients.
//  4. It creates each stream, for which NATS uses the files that are there, and compares it with
//     what it was.
//  5. It deletes carry.json, accepts clients, and deletes the original.
//
// A start that finds carry.json starts over from the original: no client has been served with the
// copy.

// conversion is the contents of carry.json: the streams as they were.
type conversion struct {
	Streams []convertedStream `json:"streams"`
}

type convertedStream struct {
	Config jetstream.StreamConfig `json:"config"`
	Log    uint64                 `json:"log"` // see logOf
	First  uint64                 `json:"first"`
	Last   uint64                 `json:"last"`
}

// logMetadata is the metadata key of a stream's identity, for streams whose identity isn't the time
// of their creation.
const logMetadata = "kaiku_log"

// convertTimeout bounds the conversion once the server runs. NATS deletes streams on the disk that
// nobody creates within 30 s.
const convertTimeout = 25 * time.Second

// undo restores what an interrupted conversion moved aside, and deletes what a finished one left
// behind.
func (f folder) undo() error {
	_, err := os.Stat(f.conversionFile())
	begun := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, err = os.Stat(f.before())
	moved := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.RemoveAll(f.next()); err != nil {
		return err
	}
	switch {
	case begun && moved:
		if err := os.RemoveAll(f.store()); err != nil {
			return err
		}
		if err := renameSynced(f.before(), f.store()); err != nil {
			return err
		}
	case moved:
		if err := os.RemoveAll(f.before()); err != nil {
			return err
		}
	}
	if begun {
		return f.commit()
	}
	return nil
}

// commit makes the contents of the store final.
func (f folder) commit() error {
	if err := os.Remove(f.conversionFile()); err != nil {
		return err
	}
	return syncDir(string(f))
}

// beginConversion turns the store into that of a group of one: steps 1 and 2.
func (c *Control) beginConversion(ctx context.Context) error {
	f := folder(c.Dir)
	streams, err := c.readAlone(ctx)
	if err != nil {
		return fmt.Errorf("read the log of purges: %w", err)
	}
	c.did("read")
	if err := copySynced(f.store(), f.next()); err != nil {
		return fmt.Errorf("copy the log of purges, which needs the same disk space again: %w", err)
	}
	c.group = firstGroup + "-" + strings.ToLower(rand.Text()[:16])
	if err := writeGroup(f.next(), c.group); err != nil {
		return err
	}
	if err := writePeers(f.next(), c.Node); err != nil {
		return err
	}
	c.did("copied")
	b, err := json.Marshal(streams)
	if err != nil {
		return err
	}
	if err := writeSynced(f.conversionFile(), b); err != nil {
		return err
	}
	c.did("noted")
	if err := renameSynced(f.store(), f.before()); err != nil {
		return err
	}
	c.did("moved")
	c.converting = streams
	return renameSynced(f.next(), f.store())
}

// readAlone reads the streams with a server that nobody can reach.
func (c *Control) readAlone(ctx context.Context) (*conversion, error) {
	s, err := server.NewServer(&server.Options{ServerName: c.Node, DontListen: true, NoSigs: true, JetStream: true,
		StoreDir: c.Dir, SyncAlways: true, DisableJetStreamBanner: true})
	if err != nil {
		return nil, err
	}
	s.SetLoggerV2(natsLog{log: c.Log.With("part", "control")}, false, false, false)
	s.Start()
	defer s.WaitForShutdown()
	defer s.Shutdown()
	if !s.ReadyForConnections(controlStart) {
		return nil, fmt.Errorf("the server did not start within %v: is %s writable?", controlStart, c.Dir)
	}
	conn, js, err := inside(s, "", "")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, controlStart)
	defer cancel()
	out := &conversion{}
	list := js.ListStreams(ctx)
	for info := range list.Info() {
		out.Streams = append(out.Streams, convertedStream{info.Config, logOf(info), info.State.FirstSeq,
			info.State.LastSeq})
	}
	return out, list.Err()
}

// finishConversion turns the streams into those of the group: steps 4 and 5.
func (c *Control) finishConversion(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, convertTimeout)
	defer cancel()
	conn, js, err := inside(c.nats(), userFleet, c.secret)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, s := range c.converting.Streams {
		if err := s.adopt(ctx, js); err != nil {
			return fmt.Errorf("convert %s: %w; the original is untouched, and the next start tries again",
				s.Config.Name, err)
		}
		c.did("adopted " + s.Config.Name)
	}
	f := folder(c.Dir)
	if err := f.commit(); err != nil {
		return err
	}
	c.did("committed")
	c.converting = nil
	close(c.open)
	c.Log.Info("control plane: the log of purges was converted to a group that other control nodes can join", "group",
		c.group)
	return os.RemoveAll(f.before())
}

// maxConversionWait is how long a client is kept waiting while the log is converted, before it has
// to connect again. It is shorter than the client's own limit.
const maxConversionWait = 2 * time.Second

// untilOpen waits until the log has been converted, for maxConversionWait at most.
func (c *Control) untilOpen() error {
	select {
	case <-c.open:
		return nil
	case <-time.After(maxConversionWait):
		return errors.New("the log of purges is being converted")
	}
}

// adopt makes NATS use the files in the store for a stream of the group.
func (s *convertedStream) adopt(ctx context.Context, js jetstream.JetStream) error {
	conf := s.Config
	conf.Metadata = map[string]string{logMetadata: strconv.FormatUint(s.Log, 10)}
	stream, err := js.CreateStream(ctx, conf)
	if err != nil {
		return err
	}
	info := stream.CachedInfo()
	if info.State.LastSeq != s.Last || info.State.FirstSeq < s.First || s.Config.MaxAge == 0 &&
		info.State.FirstSeq != s.First {
		return fmt.Errorf("it had entries %d to %d, and now has %d to %d", s.First, s.Last, info.State.FirstSeq,
			info.State.LastSeq)
	}
	if logOf(info) != s.Log {
		return errors.New("NATS treats it as another log")
	}
	return nil
}
