package dnssec

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Fields of a key file. State and Seen are Kaiku's own. The others are those of BIND's private key
// files.
const (
	fieldFormat  = "Private-key-format"
	fieldAlg     = "Algorithm"
	fieldPrivate = "PrivateKey"
	fieldState   = "State"
	fieldSeen    = "Seen"

	format    = "v1.3"
	algorithm = "13 (ECDSAP256SHA256)"
)

const (
	// maxFile is the maximum size of a key file in octets.
	maxFile = 64 << 10
	// maxKeys is the maximum number of keys of a zone. Their signatures of the DNSKEY records must
	// fit into a packet.
	maxKeys = 4
)

// Keys are the keys of a zone. One of them is Active or Leaving, and at most one is Next.
type Keys []*Key

// Signer returns the key that signs the zone's records: the one in the state Active or Leaving. It
// returns nil if there is none.
func (k Keys) Signer() *Key {
	for _, key := range k {
		if key.State == Active || key.State == Leaving {
			return key
		}
	}
	return nil
}

// Wanted returns the key whose DS record the parent should have, or nil if the parent should have
// none.
func (k Keys) Wanted() *Key {
	for _, key := range k {
		if key.State == Next {
			return key
		}
	}
	if signer := k.Signer(); signer != nil && signer.State == Active {
		return signer
	}
	return nil
}

// Check returns an error if these can't be the keys of a zone. A zone has 1 to 4 keys with
// different tags and known states. Exactly one of them is Active or Leaving. At most one is Next,
// and none if one is Leaving.
func (k Keys) Check() error {
	signers, nexts, leaving := 0, 0, false
	for i, key := range k {
		switch key.State {
		case Leaving:
			leaving = true
			signers++
		case Active:
			signers++
		case Next:
			nexts++
		case Retired:
		default:
			return fmt.Errorf("key %d has the state %q: want active, next, retired or leaving", key.tag, key.State)
		}
		for _, other := range k[:i] {
			if key.tag == other.tag {
				return fmt.Errorf("two keys have the tag %d: replace one of them, as validators tell keys apart by it",
					key.tag)
			}
		}
	}
	switch {
	case len(k) > maxKeys:
		return fmt.Errorf("%d keys: want %d at most", len(k), maxKeys)
	case signers != 1:
		return fmt.Errorf("%d keys are active: want 1", signers)
	case nexts > 1 || nexts == 1 && leaving:
		return errors.New("more keys are in the state next than there can be")
	}
	return nil
}

// Parse parses a key file: one or several private keys in BIND's format, each with a line for its
// state if that isn't active. Lines that begin with # or ; are comments. An error states the line.
func Parse(text []byte) (Keys, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("a key file has %d octets at most", maxFile)
	}
	var keys Keys
	var fields map[string]string
	end := func() error {
		if fields == nil {
			return nil
		}
		key, err := parseKey(fields)
		if err == nil {
			keys = append(keys, key)
		}
		fields = nil
		return err
	}
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		field, value, ok := strings.Cut(line, ":")
		if !ok || fields == nil && field != fieldFormat {
			return nil, fmt.Errorf("line %d: not a line of a private key in BIND's format, which begins with %s", i+1,
				fieldFormat)
		}
		if field == fieldFormat {
			if err := end(); err != nil {
				return nil, fmt.Errorf("before line %d: %w", i+1, err)
			}
			fields = map[string]string{}
		}
		if _, twice := fields[field]; twice {
			return nil, fmt.Errorf("line %d: a second %s in a key", i+1, field)
		}
		fields[field] = strings.TrimSpace(value)
	}
	if err := end(); err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, errors.New("no key in the file")
	}
	return keys, keys.Check()
}

// parseKey makes a key of the fields of a file. BIND's times have no effect.
func parseKey(fields map[string]string) (*Key, error) {
	known := []string{fieldFormat, fieldAlg, fieldPrivate, fieldState, fieldSeen, "Created", "Publish", "Activate"}
	for field := range fields {
		if !slices.Contains(known, field) {
			return nil, fmt.Errorf("unknown field %q", field)
		}
	}
	if version := fields[fieldFormat]; !strings.HasPrefix(version, "v1.") {
		return nil, fmt.Errorf("format %q: want %s", version, format)
	}
	if alg, _, _ := strings.Cut(fields[fieldAlg], " "); alg != "13" {
		return nil, fmt.Errorf("algorithm %q: want %s", fields[fieldAlg], algorithm)
	}
	scalar, err := base64.StdEncoding.DecodeString(fields[fieldPrivate])
	if err != nil || len(scalar) != scalarLen {
		return nil, fmt.Errorf("%s is not %d octets in base64", fieldPrivate, scalarLen)
	}
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar)
	if err != nil {
		return nil, fmt.Errorf("%s is not a private key", fieldPrivate) // err must not show the key
	}
	state := State(fields[fieldState])
	if state == "" {
		state = Active
	}
	key, err := newKey(private, state)
	if seen := fields[fieldSeen]; seen != "" && err == nil {
		key.Seen, err = time.Parse(time.RFC3339, seen)
	}
	return key, err
}

// Format returns the text of a key file with the keys, as Parse reads it. It returns an error if a
// private key can't be encoded.
func (k Keys) Format() ([]byte, error) {
	var b strings.Builder
	for i, key := range k {
		scalar, err := key.private.Bytes()
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "# key tag %d\n%s: %s\n%s: %s\n%s: %s\n%s: %s\n", key.tag, fieldFormat, format, fieldAlg,
			algorithm,
			fieldPrivate, base64.StdEncoding.EncodeToString(scalar), fieldState, key.State)
		if !key.Seen.IsZero() {
			fmt.Fprintf(&b, "%s: %s\n", fieldSeen, key.Seen.UTC().Format(time.RFC3339))
		}
	}
	return []byte(b.String()), nil
}
