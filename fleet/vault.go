package fleet

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Vault has the certificates that the edges of a fleet share, with their keys. All values are
// encrypted with a secret that only edges have. So control nodes, and backups of their data, reveal
// the names only. Each value is bound to its key, and is refused under another one. The fields are
// set before any method is called.
type Vault struct {
	Client *Client
	// Secrets are from Key.CertificateSecrets. The first one encrypts.
	Secrets [][32]byte
}

// ErrChanged means that somebody else has saved or deleted the value meanwhile.
var ErrChanged = errors.New("another node has changed the value meanwhile")

const (
	// maxVaultValue and maxVaultKey bound a value and its key, in bytes.
	maxVaultValue = 64 << 10
	maxVaultKey   = 1000
	// vaultFormat is the first byte of a stored value. A nonce of AES-GCM and the ciphertext
	// follow.
	vaultFormat = 1
	// deletedTime is how long the marker of a deleted value is kept.
	deletedTime = 24 * time.Hour
)

// Load returns a value, its revision, which is never 0, and when it was stored, by the control
// plane's clock. The error Is fs.ErrNotExist if the value doesn't exist, and ErrUnavailable if the
// control plane can't be reached. If the value can't be decrypted, Load returns its revision with
// the error, so that it can be replaced.
func (v *Vault) Load(ctx context.Context, key string) (value []byte, revision uint64, stored time.Time, err error) {
	kv, ctx, cancel, err := v.open(ctx, key)
	if err != nil {
		return nil, 0, time.Time{}, err
	}
	defer cancel()
	e, err := v.get(ctx, kv, key)
	if err != nil {
		return nil, 0, time.Time{}, err
	}
	if value, _, err = v.decrypt(key, e.Value()); err != nil {
		return nil, e.Revision(), e.Created(), fmt.Errorf("load %s from the vault: %w", key, err)
	}
	return value, e.Revision(), e.Created(), nil
}

// get loads the encrypted value of a key.
func (v *Vault) get(ctx context.Context, kv jetstream.KeyValue, key string) (jetstream.KeyValueEntry, error) {
	e, err := get(ctx, kv, encodeToken(key))
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return nil, fmt.Errorf("load %s from the vault: %w", key, fs.ErrNotExist)
	case err != nil:
		return nil, fmt.Errorf("load %s from the vault: %w: %w", key, ErrUnavailable, err)
	}
	return e, nil
}

// Reseal encrypts all values with the first secret that are encrypted with another one, so that the
// others can be given up. Values that no secret decrypts stay as they are. After an error, it can
// be called again.
func (v *Vault) Reseal(ctx context.Context) error {
	keys, err := v.Keys(ctx)
	if err != nil {
		return err
	}
	for _, key := range keys {
		for {
			err := v.reseal(ctx, key)
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				break
			}
			if !errors.Is(err, ErrChanged) { // otherwise it is read again
				return err
			}
		}
	}
	return nil
}

func (v *Vault) reseal(ctx context.Context, key string) error {
	kv, call, cancel, err := v.open(ctx, key)
	if err != nil {
		return err
	}
	e, err := v.get(call, kv, key)
	cancel()
	if err != nil {
		return err
	}
	value, by, err := v.decrypt(key, e.Value())
	if err != nil || by == 0 {
		return nil
	}
	_, err = v.Save(ctx, key, value, e.Revision())
	return err
}

// Save stores a value of at most 64 KiB, or deletes it if value is nil. It does so only if the
// given revision is the present one; 0 means that the value doesn't exist. Once a majority of the
// control nodes has the change on disk, Save returns the new revision, which is 0 after a deletion.
// The error Is ErrChanged if the revision was another one. It Is ErrUnavailable if the control
// plane did not answer; then the value may or may not be stored.
func (v *Vault) Save(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	if len(value) > maxVaultValue {
		return 0, fmt.Errorf("save %s in the vault: %d bytes, want at most %d", key, len(value), maxVaultValue)
	}
	kv, ctx, cancel, err := v.open(ctx, key)
	if err != nil {
		return 0, err
	}
	defer cancel()
	token := encodeToken(key)
	var saved uint64
	switch {
	case value == nil && revision == 0: // nothing to delete, unless somebody has saved it
		if _, err = get(ctx, kv, token); err == nil {
			err = ErrChanged
		} else if errors.Is(err, jetstream.ErrKeyNotFound) {
			err = nil
		}
	case value == nil:
		err = kv.Purge(ctx, token, jetstream.LastRevision(revision), jetstream.PurgeTTL(deletedTime))
	default:
		var sealed []byte
		if sealed, err = v.encrypt(key, value); err != nil {
			return 0, fmt.Errorf("save %s in the vault: %w", key, err)
		}
		if revision == 0 {
			saved, err = kv.Create(ctx, token, sealed) // also over the marker of a deleted value
		} else {
			saved, err = kv.Update(ctx, token, sealed, revision)
		}
	}
	switch {
	case err == nil:
		return saved, nil
	case errors.Is(err, ErrChanged), changedMeanwhile(err):
		return 0, fmt.Errorf("save %s in the vault: %w", key, ErrChanged)
	}
	return 0, fmt.Errorf("save %s in the vault: %w: %w", key, ErrUnavailable, err)
}

// getTries is how often a value is requested within callTimeout.
const getTries = 4

// get requests a value several times: requests during the election of a leader get no answer.
func get(ctx context.Context, kv jetstream.KeyValue, token string) (e jetstream.KeyValueEntry, err error) {
	for range getTries {
		try, cancel := context.WithTimeout(ctx, callTimeout/getTries)
		e, err = kv.Get(try, token)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, nats.ErrNoResponders) || ctx.Err() != nil {
			break
		}
	}
	return e, err
}

// changedMeanwhile reports whether an error says that an update came too late.
func changedMeanwhile(err error) bool {
	var refused *jetstream.APIError
	return errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) ||
		errors.As(err, &refused) && (refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
			refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// Keys returns all keys, in no particular order.
func (v *Vault) Keys(ctx context.Context) ([]string, error) {
	kv, ctx, cancel, err := v.open(ctx, "keys")
	if err != nil {
		return nil, err
	}
	defer cancel()
	w, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes(), jetstream.MetaOnly())
	if err != nil {
		return nil, fmt.Errorf("list the keys of the vault: %w: %w", ErrUnavailable, err)
	}
	defer func() { _ = w.Stop() }()
	seen := map[string]bool{} // a key that changes meanwhile may come twice
	var keys []string
	for {
		select {
		case e, ok := <-w.Updates():
			if !ok {
				return nil, fmt.Errorf("list the keys of the vault: %w: the list broke off", ErrUnavailable)
			}
			if e == nil {
				return keys, nil
			}
			if key := decodeToken(e.Key()); key != "" && !seen[key] {
				seen[key] = true
				keys = append(keys, key)
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("list the keys of the vault: %w: %w", ErrUnavailable, ctx.Err())
		}
	}
}

// Watch calls changed with the key of each present value, and of each value that is saved or
// deleted, one after the other, until ctx ends, which is no error. It reconnects, and then reports
// what has changed meanwhile. changed may call the vault.
func (v *Vault) Watch(ctx context.Context, changed func(key string)) error {
	known := map[string]uint64{} // revisions by key
	var at uint64
	var there map[string]bool // keys that have arrived while the present entries arrive
	w := watch{client: v.Client, bucket: certificateBucket, opts: []jetstream.WatchOpt{jetstream.MetaOnly()},
		begin: func(log uint64) {
			if log != at {
				clear(known) // revisions start again in a bucket that replaces another one
			}
			at, there = log, map[string]bool{}
		},
		take: func(_ uint64, e jetstream.KeyValueEntry, _ bool) {
			if e == nil {
				for key := range known {
					if !there[key] { // deleted while nobody watched
						delete(known, key)
						changed(key)
					}
				}
				there = nil
				return
			}
			key := decodeToken(e.Key())
			was, had := known[key]
			switch put := e.Operation() == jetstream.KeyValuePut; {
			case key == "", !put && !had, put && was == e.Revision():
			case put:
				known[key] = e.Revision()
				changed(key)
			default:
				delete(known, key)
				changed(key)
			}
			if there != nil && key != "" {
				there[key] = e.Operation() == jetstream.KeyValuePut
			}
		}}
	w.serve(ctx)
	return nil
}

// open returns the bucket, and a context that bounds the call.
func (v *Vault) open(ctx context.Context, key string) (jetstream.KeyValue, context.Context, context.CancelFunc, error) {
	if key == "" || len(key) > maxVaultKey {
		return nil, nil, nil, fmt.Errorf("a key of the vault has 1 to %d bytes, not %d", maxVaultKey, len(key))
	}
	release := v.Client.hold()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	end := func() {
		cancel()
		release()
	}
	kv, err := v.Client.open(ctx, certificateBucket)
	if err != nil {
		end()
		return nil, nil, nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return kv, ctx, end, nil
}

func aead(secret [32]byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(secret[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// encrypt encrypts a value. Nonces are random: with 96 bits and so few values under one secret,
// none repeats.
func (v *Vault) encrypt(key string, value []byte) ([]byte, error) {
	gcm, err := aead(v.Secrets[0])
	if err != nil {
		return nil, err
	}
	out := make([]byte, 1+gcm.NonceSize(), 1+gcm.NonceSize()+len(value)+gcm.Overhead())
	out[0] = vaultFormat
	if _, err := rand.Read(out[1:]); err != nil {
		return nil, err
	}
	return gcm.Seal(out, out[1:], value, []byte(key)), nil
}

// decrypt reverses encrypt for the same key. by is the index of the secret that encrypted the
// value.
func (v *Vault) decrypt(key string, stored []byte) (value []byte, by int, err error) {
	for i, secret := range v.Secrets {
		gcm, err := aead(secret)
		if err != nil {
			return nil, 0, err
		}
		if len(stored) < 1+gcm.NonceSize() || stored[0] != vaultFormat {
			return nil, 0, errors.New("this version can't read the stored value")
		}
		nonce, sealed := stored[1:1+gcm.NonceSize()], stored[1+gcm.NonceSize():]
		if value, err = gcm.Open(nil, nonce, sealed, []byte(key)); err != nil {
			continue
		}
		if value == nil {
			value = []byte{} // nil would mean none
		}
		return value, i, nil
	}
	return nil, 0, errors.New("the value does not decrypt: it was stored under another fleet key, or is damaged")
}
