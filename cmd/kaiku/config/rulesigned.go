package config

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/kaiku-cdn/kaiku/edge/rules"
)

// SignedURLs requires URLs that are signed with one of the keys.
type SignedURLs struct {
	Keys   []string `yaml:"keys"`   // files with one key each; `kaiku sign` uses the first
	Param  string   `yaml:"param"`  // query parameter of the token; "" means token
	Cookie string   `yaml:"cookie"` // a cookie that may have the token instead; "" means none
}

func (m *ruleMaker) signed(at string, s *SignedURLs) *rules.Signed {
	if n := len(s.Keys); n == 0 || n > rules.MaxKeys {
		m.errorf(at+".keys", "%d keys: want the files of 1 to %d; openssl rand -base64 32 makes a key", n,
			rules.MaxKeys)
	}
	for key, name := range map[string]string{"param": s.Param, "cookie": s.Cookie} {
		if name != "" && (!headerRE.MatchString(name) || strings.ContainsAny(name, "%+&")) {
			m.errorf(at+"."+key, "%q is not a name: want letters, digits, - and _", name)
		}
	}
	if m.read == nil {
		return nil
	}
	var keys [][]byte
	for i, file := range s.Keys {
		text, err := m.read(file)
		var key []byte
		if err == nil {
			key, err = signingKey(text)
		}
		if err != nil {
			m.errorf(fmt.Sprintf("%s.keys[%d]", at, i), "read %s: %v", file, err)
			return nil
		}
		keys = append(keys, key)
	}
	signed, err := rules.NewSigned(keys, s.Param, s.Cookie)
	if err != nil {
		m.errorf(at+".keys", "%v", err)
	}
	return signed
}

// signingKey returns the key in the text of a file.
func signingKey(text []byte) ([]byte, error) {
	key := strings.TrimSpace(string(text))
	switch {
	case strings.ContainsAny(key, "\r\n\x00"):
		return nil, errors.New("want one line, which is the key")
	case len(key) < rules.MinKey:
		return nil, fmt.Errorf("the key has %d bytes: want at least %d; openssl rand -base64 32 makes one", len(key),
			rules.MinKey)
	}
	return []byte(key), nil
}

// ReadSigningKey reads the file of a key for signed URLs.
func ReadSigningKey(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	key, err := signingKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return key, nil
}

func checkSigningKey(file string) error {
	_, err := ReadSigningKey(file)
	return err
}

// Signing returns how to sign URLs for a request: the name of the parameter, and the key. They are
// those of the first rule that wants a signed URL at the target.
func (f *Fleet) Signing(r *rules.Request) (param string, key []byte, err error) {
	s := f.siteOf(r.Host)
	if s == nil {
		return "", nil, fmt.Errorf("no site has the host %s", r.Host)
	}
	m := ruleMaker{read: func(file string) ([]byte, error) { return os.ReadFile(f.LocalFile(file)) },
		errorf: func(at, format string, a ...any) { err = errors.Join(err, fmt.Errorf(at+": "+format, a...)) }}
	for i := range s.Rules {
		signed := s.Rules[i].Signed
		if signed == nil {
			continue
		}
		one := m.set("rules", []Rule{{Match: s.Rules[i].Match, Signed: signed}})
		if err != nil {
			return "", nil, err
		}
		if param, ok := one.Param(r); ok {
			key, err = ReadSigningKey(f.LocalFile(signed.Keys[0]))
			return param, key, err
		}
	}
	return "", nil, fmt.Errorf("no rule of the site %s wants a signed URL at %s", s.Name, r.Path)
}
