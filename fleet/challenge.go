package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// challengeTime is how long name servers answer a challenge that nobody removes.
const challengeTime = time.Hour

// challengeLabel begins the names at which authorities look for challenges (RFC 8555, 8.4). With an
// edge's credential, nobody can publish at other names, such as those of SPF, DKIM or proofs of
// ownership.
const challengeLabel = "_acme-challenge."

// maxText is the length of the longest value in bytes: one string of a TXT record (RFC 1035, 3.3).
// ACME's values have 43.
const maxText = 255

// Challenges publishes TXT records at all name servers of the fleet. A certificate authority asks
// for them before it issues a certificate (ACME's DNS-01, RFC 8555, 8.4). Each name server reports
// in its lease up to which position it answers. The fields are set before any method is called.
type Challenges struct {
	Client   *Client
	Registry *Registry // a Registry that is being served
	// Servers are the names of all name servers of the fleet. One that isn't live may be starting,
	// as all are in a new fleet. Resolvers ask it although it doesn't know any challenge yet.
	Servers []string
	// Patience is how long Present waits for name servers that aren't live; 0 means 10 s.
	Patience time.Duration
}

// defaultPatience is longer than a name server takes from its start until it is live.
const defaultPatience = 10 * time.Second

// challenge is one record as it is stored in the bucket.
type challenge struct {
	Name  string    `json:"name"` // lower case, without a final dot
	Value string    `json:"value"`
	Until time.Time `json:"until"` // clocks that are right enough for certificates are right enough for an hour
}

// key returns the challenge's key in the bucket. One name may have several values.
func (c challenge) key() string {
	hash := sha256.Sum256([]byte(c.Value))
	return encodeToken(c.Name) + "." + hex.EncodeToString(hash[:16])
}

func newChallenge(name, value string) (challenge, error) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if !strings.HasPrefix(name, challengeLabel) || len(name) > 253 {
		return challenge{}, fmt.Errorf("%q is not the name of a challenge: want %sNAME", name, challengeLabel)
	}
	if value == "" || len(value) > maxText {
		return challenge{}, fmt.Errorf("the challenge at %s has %d bytes, want 1 to %d", name, len(value), maxText)
	}
	return challenge{Name: name, Value: value, Until: time.Now().Add(challengeTime)}, nil
}

// Present publishes a TXT value at a name, which may have a final dot, beside the values that are
// there. It returns once all live name servers answer with it, at least one is live, and it has
// waited for the others. If ctx ends earlier, the error names the servers that don't answer. The
// record expires after an hour; call Remove also after an error. The error Is ErrUnavailable if the
// control plane did not take the record.
func (c *Challenges) Present(ctx context.Context, name, value string) error {
	record, err := newChallenge(name, value)
	if err != nil {
		return err
	}
	at, err := c.publish(ctx, record)
	if err != nil {
		return fmt.Errorf("publish the challenge at %s: %w: %w", record.Name, ErrUnavailable, err)
	}
	news, stop := c.Registry.listen()
	defer stop()
	patience := c.Patience
	if patience == 0 {
		patience = defaultPatience
	}
	impatient := time.After(patience)
	late := false
	for {
		live, behind := c.behind(at)
		starting := slices.ContainsFunc(c.Servers, func(s string) bool { return !slices.Contains(live, s) })
		if len(live) > 0 && len(behind) == 0 && (late || !starting) {
			return nil
		}
		select {
		case <-news:
		case <-impatient:
			late = true
		case <-time.After(time.Second): // a lease may expire meanwhile
		case <-ctx.Done():
			if len(live) == 0 {
				return fmt.Errorf("publish the challenge at %s: no name server is live: %w", record.Name, ctx.Err())
			}
			if len(behind) == 0 {
				return fmt.Errorf("publish the challenge at %s: not all name servers are live: %w", record.Name,
					ctx.Err())
			}
			return fmt.Errorf("publish the challenge at %s: these name servers don't answer it yet: %s: %w", record.Name,
				strings.Join(behind, ", "), ctx.Err())
		}
	}
}

// publish writes the record to the bucket and returns its position.
func (c *Challenges) publish(ctx context.Context, record challenge) (Position, error) {
	b, err := json.Marshal(record)
	if err != nil {
		return Position{}, err
	}
	defer c.Client.hold()()
	kv, err := c.Client.open(ctx, challengeBucket)
	if err != nil {
		return Position{}, err
	}
	before, err := c.Client.bucketAt(ctx, challengeBucket)
	if err != nil {
		return Position{}, err
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	revision, err := kv.Put(call, record.key(), b)
	if err != nil {
		return Position{}, err
	}
	after, err := c.Client.bucketAt(ctx, challengeBucket)
	if err != nil {
		return Position{}, err
	}
	if before.Log != after.Log {
		return Position{}, errors.New("the bucket was replaced meanwhile")
	}
	return Position{Log: after.Log, Seq: revision}, nil
}

// behind returns the names of the live name servers, and of those that don't yet answer with
// everything up to a position of the bucket.
func (c *Challenges) behind(at Position) (live, names []string) {
	for _, l := range c.Registry.Nodes() {
		if !l.Live || !slices.Contains(l.Roles, RoleGeoDNS) {
			continue
		}
		live = append(live, l.Node)
		// a bucket that replaces another one starts its sequence again
		if l.Challenges.Log != at.Log || l.Challenges.Seq < at.Seq {
			names = append(names, l.Node)
		}
	}
	return live, names
}

// Remove removes a value. It doesn't wait until name servers stop answering with it. Removing a
// value that doesn't exist is no error. The error Is ErrUnavailable if the control plane did not
// take the removal.
func (c *Challenges) Remove(ctx context.Context, name, value string) error {
	record, err := newChallenge(name, value)
	if err != nil {
		return err
	}
	defer c.Client.hold()()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	kv, err := c.Client.open(ctx, challengeBucket)
	if err == nil {
		err = kv.Purge(ctx, record.key())
	}
	if err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) {
		return fmt.Errorf("remove the challenge at %s: %w: %w", record.Name, ErrUnavailable, err)
	}
	return nil
}
