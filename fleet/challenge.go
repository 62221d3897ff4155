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

// challengeTime is how long a challenge is answered if nobody removes it.
const challengeTime = time.Hour

// challengeLabel begins the names at which authorities look for challenges (RFC 8555 section 8.4).
// At others, as those of SPF, DKIM and proofs of ownership, who has the credential of an edge has
// no say.
const challengeLabel = "_acme-challenge."

// maxText is the longest value in bytes: one string of a TXT record (RFC 1035 section 3.3). Those
// of ACME have 43.
const maxText = 255

// Challenges publishes TXT records at all name servers of the fleet, as a certificate authority
// wants to see them before it believes that a name is ours (ACME's DNS-01, RFC 8555 section 8.4).
// Each name server says in its lease up to where it answers. Its fields are set before any method
// is called.
type Challenges struct {
	Client   *Client
	Registry *Registry // that serves
	// Servers are the names of all name servers of the fleet. One that is not live may be starting,
	// as all are when a fleet begins: resolvers ask it although it knows of no challenge yet.
	Servers []string
	// Patience is how long name servers that are not live are waited for; 0 means 10 s.
	Patience time.Duration
}

// defaultPatience is more than a name server that starts takes to be live.
const defaultPatience = 10 * time.Second

// challenge is one record, as it is in the bucket.
type challenge struct {
	Name  string    `json:"name"` // lower case, without a dot at its end
	Value string    `json:"value"`
	Until time.Time `json:"until"` // the clocks of nodes agree well enough for certificates, and so for an hour
}

// key is where the challenge is in the bucket: several values may be at one name.
func (c challenge) key() string {
	hash := sha256.Sum256([]byte(c.Value))
	return encodeToken(c.Name) + "." + hex.EncodeToString(hash[:16])
}

func newChallenge(name, value string) (challenge, error) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if !strings.HasPrefix(name, challengeLabel) || len(name) > 253 {
		return challenge{}, fmt.Errorf("%q is no name for a challenge: want %sNAME", name, challengeLabel)
	}
	if value == "" || len(value) > maxText {
		return challenge{}, fmt.Errorf("the challenge at %s has %d bytes, want 1 to %d", name, len(value), maxText)
	}
	return challenge{Name: name, Value: value, Until: time.Now().Add(challengeTime)}, nil
}

// Present publishes a TXT value at a name, with or without the dot at its end, beside others that
// are there. It returns when each live name server answers with it, one at least being live, and
// the others were waited for, or else when ctx ends, with an error that names those that do not. It
// stays for an hour if it is not removed; Remove is to be called also after an error. The error Is
// ErrUnavailable if the control plane did not take it.
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
		case <-time.After(time.Second): // a lease may end meanwhile
		case <-ctx.Done():
			if len(live) == 0 {
				return fmt.Errorf("publish the challenge at %s: no name server is live: %w", record.Name, ctx.Err())
			}
			if len(behind) == 0 {
				return fmt.Errorf("publish the challenge at %s: not all name servers are live: %w", record.Name,
					ctx.Err())
			}
			return fmt.Errorf("publish the challenge at %s: not answered yet by %s: %w", record.Name,
				strings.Join(behind, ", "), ctx.Err())
		}
	}
}

// publish puts the record into the bucket and tells where.
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

// behind names the live name servers, and those of them that do not answer with all that the bucket
// held at a position.
func (c *Challenges) behind(at Position) (live, names []string) {
	for _, l := range c.Registry.Nodes() {
		if !l.Live || !slices.Contains(l.Roles, RoleGeoDNS) {
			continue
		}
		live = append(live, l.Node)
		if l.Challenges.Log != at.Log || l.Challenges.Seq < at.Seq { // a bucket that replaces another begins anew
			names = append(names, l.Node)
		}
	}
	return live, names
}

// Remove takes back a value. That name servers stop answering with it is not waited for. It is no
// error if it is not there; the error Is ErrUnavailable if the control plane did not take it.
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
