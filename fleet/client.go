package fleet

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Client is a node's connection to the control plane. Its fields are set before Dial.
type Client struct {
	Node    string
	Servers []string    // addresses of control nodes, nearest first
	TLS     *tls.Config // from Key.TLS
	Log     *slog.Logger
	// Greeted is true for servers that speak first, such as those of Kaiku 0.1.
	Greeted bool
	// DialTCP connects to a server; nil means net.Dial.
	DialTCP func(network, addr string) (net.Conn, error)

	// replicas of streams that this client creates, 1 to 5; 0 creates none, as only control nodes
	// do; guarded by mu
	replicas int

	conn     *nats.Conn
	js       jetstream.JetStream
	tries    atomic.Int64                  // connection attempts since the last connection; see next
	activity atomic.Pointer[activity]      // signs of life; nil before Dial
	anew     atomic.Pointer[chan struct{}] // see connected
	calls    sync.RWMutex                  // see hold
	received atomic.Uint64                 // bytes received over all connections
	registry atomic.Pointer[Registry]      // the node's registry; nil before it is served
	// noReports is when a control node last refused a report, in nanoseconds of Unix time.
	noReports atomic.Int64
	ctx       context.Context // ends with the client
	end       context.CancelFunc
	work      sync.WaitGroup

	mu     sync.Mutex
	stream jetstream.Stream // nil before the first answer of the control plane
	leases jetstream.KeyValue
	drains jetstream.KeyValue
	others map[string]jetstream.KeyValue // buckets that only some nodes may read, by name, once opened
}

const (
	// callTimeout is how long a call to the control plane may take.
	callTimeout = 5 * time.Second
	// maxPurges bounds the log. An edge that was away for more purges than that treats its store as
	// stale.
	maxPurges = 2_000_000
	// LeaseTime is how long a node counts as live after its last sign of life.
	LeaseTime = 6 * time.Second
	// renewEvery is how often a node renews its lease. After a renewal out of turn, it waits
	// renewPauses times as long as that took.
	renewEvery  = 2 * time.Second
	renewPauses = 5
	// pollEvery is how often a node asks for the end of the purge log. 500 edges that ask each
	// second cost each of three control nodes 13 % of a core.
	pollEvery = 1500 * time.Millisecond
	// bucketEvery is how often a node checks whether a bucket is still the same one.
	bucketEvery = time.Second
)

// inbox returns the subject prefix for answers to a node. No other node may subscribe to it.
func inbox(node string) string { return "_INBOX." + node }

// Create creates the log, the registry and the other buckets, unless they exist, with the given
// number of replicas, or as many as there are control nodes. Streams with fewer replicas get more.
// It retries until ctx ends. Only control nodes may call it.
func (c *Client) Create(ctx context.Context, replicas int) {
	told := ""
	for ctx.Err() == nil {
		err := c.create(ctx, replicas)
		if err == nil {
			return
		}
		if err.Error() != told && !errors.Is(err, errNoControl) {
			told = err.Error()
			c.Log.Info("control plane: waiting for the other control nodes", "error", err)
		}
		select {
		case <-time.After(300 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (c *Client) create(ctx context.Context, replicas int) error {
	if !c.conn.IsConnected() {
		return errNoControl
	}
	m, err := c.Members(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.replicas = max(1, min(replicas, len(m.Current)))
	c.mu.Unlock()
	if _, _, _, err := c.ready(ctx); err != nil {
		return err
	}
	return c.grow(ctx, replicas)
}

// ready makes sure that the stream and the buckets exist, and returns them.
func (c *Client) ready(ctx context.Context) (jetstream.Stream, jetstream.KeyValue, jetstream.KeyValue, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stream != nil {
		return c.stream, c.leases, c.drains, nil
	}
	if !c.conn.IsConnected() {
		return nil, nil, nil, errNoControl
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	stream, err := c.js.Stream(ctx, purgeStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) && c.replicas > 0 {
		stream, err = c.js.CreateStream(ctx,
			jetstream.StreamConfig{Name: purgeStream, Subjects: []string{purgeSubject + ".>"},
				Storage:  jetstream.FileStorage,
				Replicas: c.replicas, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld,
				MaxMsgs: maxPurges, MaxBytes: 4 << 30,
				Duplicates: 2 * time.Minute, AllowDirect: false, DenyDelete: true})
	}
	if err != nil {
		return nil, nil, nil, fmt.Errorf("open the purge log: %w", err)
	}
	leases, err := c.bucket(ctx, jetstream.KeyValueConfig{Bucket: leaseBucket, Storage: jetstream.MemoryStorage,
		TTL: 24 * time.Hour, Replicas: c.replicas, History: 1})
	if err != nil {
		return nil, nil, nil, fmt.Errorf("open the registry: %w", err)
	}
	drains, err := c.bucket(ctx, jetstream.KeyValueConfig{Bucket: drainBucket, Storage: jetstream.FileStorage,
		Replicas: c.replicas, History: 1})
	if err != nil {
		return nil, nil, nil, fmt.Errorf("open the registry of drains: %w", err)
	}
	if c.replicas > 0 {
		if err := c.createBuckets(ctx); err != nil {
			return nil, nil, nil, err
		}
	}
	c.stream, c.leases, c.drains = stream, leases, drains
	return stream, leases, drains, nil
}

// missed handles an error that may mean that the control nodes have lost their data. Then the
// streams must be created again.
func (c *Client) missed(err error) {
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, nats.ErrStreamNotFound) ||
		errors.Is(err, jetstream.ErrBucketNotFound) ||
		errors.Is(err, jetstream.ErrNoStreamResponse) {
		c.mu.Lock()
		c.stream = nil
		c.mu.Unlock()
	}
}

func (c *Client) bucket(ctx context.Context, conf jetstream.KeyValueConfig) (jetstream.KeyValue, error) {
	kv, err := c.js.KeyValue(ctx, conf.Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) && c.replicas > 0 {
		kv, err = c.js.CreateKeyValue(ctx, conf)
	}
	return kv, err
}

// Position is a place in the log of purges. The zero value is before the start of any log.
type Position struct {
	Log  uint64 `json:"log"`            // identity of the log; a log that replaces another one has a different one
	Seq  uint64 `json:"seq"`            // sequence of the newest purge; 0 means none
	Mark uint64 `json:"mark,omitempty"` // mark of that purge, see markOf; 0 means unknown
}

// ErrUnavailable means that the control plane did not take a request. It can be tried again.
var ErrUnavailable = errors.New("the control plane can't be reached, or has no majority of its nodes")

// Sites returns the only sites that the node may purge, from its credential; none means no limit.
func (c *Client) Sites() []string {
	if len(c.TLS.Certificates) == 0 || c.TLS.Certificates[0].Leaf == nil {
		return nil
	}
	return sitesOf(c.TLS.Certificates[0].Leaf)
}

// Append appends a purge to the log, and returns its sequence once a majority of the control nodes
// has it on disk. A purge that is retried with the same id is appended once only. site is the only
// site that the purge concerns, or "".
func (c *Client) Append(ctx context.Context, id, site string, purge any) (uint64, error) {
	b, err := json.Marshal(purge)
	if err != nil {
		return 0, err
	}
	defer c.hold()()
	if _, _, _, err := c.ready(ctx); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	ack, err := c.js.Publish(ctx, subjectOf(site), b, jetstream.WithMsgID(id), jetstream.WithExpectStream(purgeStream),
		jetstream.WithRetryAttempts(8), jetstream.WithRetryWait(250*time.Millisecond))
	if err != nil {
		return 0, refusal(err)
	}
	return ack.Sequence, nil
}

// position returns the end of the log, which includes all purges that were acknowledged before the
// call, and the first sequence that the log still has. It fails without a majority of the control
// nodes.
func (c *Client) position(ctx context.Context) (last Position, first uint64, err error) {
	last, first, _, err = c.positionAnd(ctx, nil)
	return last, first, err
}

// positionAnd is position with an addition to the question. taken is true if the control node has
// taken the beat in it.
func (c *Client) positionAnd(ctx context.Context, q *endQuestion) (last Position, first uint64, taken bool, err error) {
	if !c.conn.IsConnected() {
		return Position{}, 0, false, errNoControl
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	end, err := queryEnd(ctx, c.conn, q)
	if errors.Is(err, nats.ErrNoResponders) {
		last, first, err = c.positionOfLeader(ctx)
		return last, first, false, err
	}
	if err != nil {
		return Position{}, 0, false, fmt.Errorf("query the end of the purge log: %w", err)
	}
	return Position{end.Log, end.Last, end.Mark}, end.First, end.Taken, nil
}

// positionOfLeader asks a control plane of an earlier version: the node that considers itself the
// leader of the log.
func (c *Client) positionOfLeader(ctx context.Context) (last Position, first uint64, err error) {
	stream, _, _, err := c.ready(ctx)
	if err != nil {
		return Position{}, 0, err
	}
	info, err := stream.Info(ctx)
	if err != nil {
		c.missed(err)
		return Position{}, 0, fmt.Errorf("query the purge log: %w", err)
	}
	if info.Cluster != nil && info.Cluster.Name != "" && info.Cluster.Leader == "" {
		return Position{}, 0, fmt.Errorf("%w: the purge log has no leader", ErrUnavailable)
	}
	return Position{logOf(info), info.State.LastSeq, markOf(info.State.LastSeq, info.State.LastTime)},
		info.State.FirstSeq, nil
}
