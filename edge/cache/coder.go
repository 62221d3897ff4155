package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/compress"
	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/ttlset"
	"github.com/kaiku-cdn/kaiku/storage"
)

const (
	// maxJobs and maxJobBytes bound the jobs that wait: their number, and the bytes of their keys.
	maxJobs     = 1024
	maxJobBytes = 1 << 20
	// shortLived is how old a coded body must be when its response is replaced for the next one to
	// be coded well again. What changes more often is coded fast.
	shortLived = 10 * time.Minute
	// worthIt: a coded body is used if it is smaller than the body by this part of it.
	worthIt = 16
)

var errNotWorthIt = errors.New("the coded body is hardly smaller")

// codingJob is a coded body that is to be made.
type codingJob struct {
	of     httpcache.Key // of the response
	coding string
	config *compress.Config
}

func (j *codingJob) key() httpcache.Key { return j.of.Coding(j.coding) }

// coder codes stored bodies, one after the other, in one goroutine. It rests after each step for as
// long as the step took, so it uses half of a core at most.
type coder struct {
	wake chan struct{} // has room for one

	mu     sync.Mutex
	queue  []codingJob
	bytes  int                    // of the keys in queue
	waits  map[httpcache.Key]bool // the coded bodies in queue, and the one being made
	counts CodingCounts

	failed ttlset.Set // why coded bodies could not be made
}

// CodingCounts count since the start what an edge has coded.
type CodingCounts struct {
	Waiting int // jobs that wait or run now
	Done    map[string]CodingCount
	Dropped map[string]uint64 // jobs without a coded body, by reason
}

// CodingCount is what was coded with one coding.
type CodingCount struct {
	Objects, In, Out uint64 // In and Out are bytes
	Time             time.Duration
}

func newCoder() *coder {
	c := &coder{wake: make(chan struct{}, 1), waits: map[httpcache.Key]bool{}}
	c.counts.Done = map[string]CodingCount{}
	for _, coding := range compress.Codings() {
		c.counts.Done[coding] = CodingCount{}
	}
	c.counts.Dropped = map[string]uint64{droppedQueue: 0, droppedSize: 0, droppedFailed: 0}
	return c
}

// The reasons in CodingCounts.Dropped.
const (
	droppedQueue  = "queue"  // too many waited
	droppedSize   = "size"   // the coded body is hardly smaller
	droppedFailed = "failed" // an error, which is logged
)

// add has a coded body made, unless that is under way or has just failed.
func (c *coder) add(j codingJob) {
	key := j.key()
	now := time.Now()
	if c.failed.Get(string(key), now) != "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.waits[key]:
		return
	case len(c.queue) == maxJobs, c.bytes+len(key) > maxJobBytes:
		c.counts.Dropped[droppedQueue]++
		c.failed.Put(string(key), "too much waits to be coded", now)
		return
	}
	c.queue, c.waits[key], c.bytes = append(c.queue, j), true, c.bytes+len(key)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// pending reports whether a coded body is being made, or could not be made lately.
func (c *coder) pending(key httpcache.Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waits[key] || c.failed.Get(string(key), time.Now()) != ""
}

// state describes what becomes of a coded body that is not stored.
func (c *coder) state(key httpcache.Key) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waits[key] {
		return "waits"
	}
	return cmp.Or(c.failed.Get(string(key), time.Now()), "not requested")
}

// take takes the next job. It waits until there is one. It reports false when ctx ends.
func (c *coder) take(ctx context.Context) (codingJob, bool) {
	for ctx.Err() == nil {
		c.mu.Lock()
		if len(c.queue) > 0 {
			j := c.queue[0]
			c.queue[0] = codingJob{}
			c.queue, c.bytes = c.queue[1:], c.bytes-len(j.key())
			c.mu.Unlock()
			return j, true
		}
		c.mu.Unlock()
		select {
		case <-c.wake:
		case <-ctx.Done():
		}
	}
	return codingJob{}, false
}

// end ends a job.
func (c *coder) end(j codingJob, done CodingCount, err error) {
	key := j.key()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waits, key)
	n := c.counts.Done[j.coding]
	n.Time += done.Time
	switch {
	case err == nil:
		n.Objects, n.In, n.Out = n.Objects+done.Objects, n.In+done.In, n.Out+done.Out
	case errors.Is(err, errNotWorthIt):
		c.counts.Dropped[droppedSize]++
	default:
		c.counts.Dropped[droppedFailed]++
		c.failed.Put(string(key), err.Error(), time.Now())
	}
	c.counts.Done[j.coding] = n
}

// Codings returns what the edge has coded so far.
func (s *Cache) Codings() CodingCounts {
	c := s.coder
	c.mu.Lock()
	defer c.mu.Unlock()
	return CodingCounts{Waiting: len(c.waits), Done: maps.Clone(c.counts.Done), Dropped: maps.Clone(c.counts.Dropped)}
}

// runCoder makes coded bodies until ctx ends.
func (s *Cache) runCoder(ctx context.Context) {
	for {
		j, ok := s.coder.take(ctx)
		if !ok {
			return
		}
		done, err := s.makeCoded(ctx, j)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !errors.Is(err, errNotWorthIt) {
			s.Log.Warn("a stored response can't be coded", "key", j.of, "coding", j.coding, "error", err)
		}
		s.coder.end(j, done, err)
	}
}

// makeCoded does a job. It does nothing if the response is gone, or can't be coded any more.
func (s *Cache) makeCoded(ctx context.Context, j codingJob) (done CodingCount, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.Panics.Caught("a content coding", p, "key", j.of)
			err = errPanic
		}
	}()
	o := s.Store.Get(string(j.of))
	if o == nil {
		return done, nil
	}
	e := s.objects.open(o)
	if e == nil || e.size >= 0 || !j.config.Codable(e.Stored, o.Size()) {
		return done, nil
	}
	fast := false
	if made := s.Store.Get(string(j.key())); made != nil {
		if boundTo(made, o) { // a soft purge covers it, and the response was validated since
			_, err := s.Store.Update(made, o.Epoch(), o.Tags(), made.Data())
			return done, err
		}
		fast = time.Since(made.Stored()) < shortLived
	}
	return s.storeCoded(ctx, j, o, fast)
}

// storeCoded codes the body of o and stores the result.
func (s *Cache) storeCoded(ctx context.Context, j codingJob, o *storage.Object, fast bool) (CodingCount, error) {
	header := storage.Header{Key: string(j.key()), URL: o.URL(), Epoch: o.Epoch()}
	w := s.Store.Create(header)
	defer w.Close()
	worked, err := encode(ctx, w, o, j.coding, fast)
	done := CodingCount{Time: worked}
	if errors.Is(err, errNotWorthIt) {
		mark := s.Store.Create(header)
		defer mark.Close()
		if _, e := mark.Commit(o.Tags(), encodeCoded(o.BodyID())); e != nil {
			return done, e
		}
		return done, err
	}
	if err != nil {
		return done, err
	}
	if _, err := w.Commit(o.Tags(), encodeCoded(o.BodyID())); err != nil {
		return done, err
	}
	done.Objects, done.In, done.Out = 1, uint64(o.Size()), uint64(w.Size())
	return done, nil
}

// encode writes the coded body of o to w, and returns how long it worked for that.
func encode(ctx context.Context, w io.Writer, o *storage.Object, coding string, fast bool) (time.Duration, error) {
	var worked time.Duration
	step := func(do func() error) error {
		began := time.Now()
		err := do()
		took := time.Since(began)
		worked += took
		rest := time.NewTimer(took)
		defer rest.Stop()
		select {
		case <-rest.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		return err
	}
	body, err := o.Open(0, o.Size())
	if err != nil {
		return 0, err
	}
	defer body.Close()
	c, err := compress.NewWriter(&limited{w, o.Size() - o.Size()/worthIt - 1}, coding, o.Size(), fast)
	if err != nil {
		return 0, err
	}
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	for err == nil && body.Len() > 0 {
		err = step(func() error {
			n, err := body.Read(*buf)
			if err != nil {
				return fmt.Errorf("read the body: %w", err)
			}
			_, err = c.Write((*buf)[:n])
			return err
		})
	}
	if err != nil {
		_ = c.Close() // the error is known
		return worked, err
	}
	err = step(c.Close)
	return worked, err
}

// limited is a writer that takes so many bytes.
type limited struct {
	w    io.Writer
	left int64
}

// Write writes p, or fails if there is no room for it.
func (l *limited) Write(p []byte) (int, error) {
	if int64(len(p)) > l.left {
		return 0, errNotWorthIt
	}
	l.left -= int64(len(p))
	return l.w.Write(p)
}
