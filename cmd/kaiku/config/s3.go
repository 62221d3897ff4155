package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/words"
	"github.com/kaiku-cdn/kaiku/origin"
)

// S3 has the settings of an origin that is a private bucket of an S3-compatible server.
type S3 struct {
	Bucket      string   `yaml:"bucket"`
	Region      string   `yaml:"region"`
	Style       string   `yaml:"style"`       // of URLs: path or host; "" means path
	Credentials string   `yaml:"credentials"` // a file with the access key
	Query       []string `yaml:"query"`       // parameters that reach the server
}

var (
	bucketRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{1,62}$`)
	regionRE = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
)

// checkS3 reports what is wrong with the bucket of an origin.
func (f *Fleet) checkS3(at string, o *Origin) {
	s, p := o.S3, at+".s3"
	if s == nil {
		return
	}
	if !bucketRE.MatchString(s.Bucket) {
		f.errorf(p+".bucket", "%q is not the name of a bucket", s.Bucket)
	}
	if !regionRE.MatchString(s.Region) {
		f.errorf(p+".region", "%q is not a region: want the server's, such as eu-north-1; many servers take us-east-1 or auto",
			s.Region)
	}
	if s.Credentials == "" {
		f.errorf(p+".credentials", "want a file with the lines aws_access_key_id = … and aws_secret_access_key = …")
	}
	f.checkWord(p+".style", s.Style, []string{"path", "host"})
	for i, name := range s.Query {
		if !slices.Contains(origin.S3Parameters(), name) {
			f.errorf(fmt.Sprintf("%s.query[%d]", p, i), "%q can't be let through: %s", name,
				words.Suggest(name, origin.S3Parameters()))
		}
	}
	switch {
	case o.Host == origin.ClientHost:
		f.errorf(at+".host", "the server of a bucket wants its own name, which is signed: leave host out")
	case s.Style == "host" && o.Host != "" && !strings.HasPrefix(o.Host, s.Bucket+"."):
		f.errorf(at+".host", "with s3.style host, the Host begins with the bucket: want %s.%s", s.Bucket, o.Host)
	case s.Style == "host" && o.Host == "":
		for i, srv := range o.Servers {
			if srv.URL.URL == nil {
				continue
			}
			if _, err := netip.ParseAddr(srv.URL.Hostname()); err == nil {
				f.errorf(fmt.Sprintf("%s.servers[%d]", at, i),
					"with s3.style host, edges connect to %s.NAME, and this server has no name: give host, or use style path",
					s.Bucket)
			}
		}
	}
	if h := o.Health; h != nil && strings.Trim(h.Path, "/") == "" {
		f.errorf(at+".health.path", "want the path of an object: a probe of %q would list the bucket", h.Path)
	}
	if len(o.PassFields) > 0 {
		f.errorf(at+".pass_fields", "an S3 server gets no fields of clients, except for ranges and conditions")
	}
	if o.Auth != nil {
		f.errorf(at+".auth", "requests to a bucket are signed: leave auth out")
	}
}

// S3Server returns the URL that edges connect to for a server of an origin.
func (o *Origin) S3Server(srv OriginServer) OriginURL {
	if o.S3 == nil || o.S3.Style != "host" || o.Host != "" || srv.URL.URL == nil {
		return srv.URL
	}
	u := *srv.URL.URL
	if !strings.HasPrefix(u.Host, o.S3.Bucket+".") {
		u.Host = o.S3.Bucket + "." + u.Host
	}
	return OriginURL{&u}
}

// S3Bucket reads the access key of an origin's bucket. It returns nil if the origin has none.
func (f *Fleet) S3Bucket(o *Origin) (*origin.S3, error) {
	if o.S3 == nil {
		return nil, nil
	}
	key, err := readS3Key(f.Path(o.S3.Credentials))
	if err != nil {
		return nil, fmt.Errorf("read the key of the bucket: %w", err)
	}
	key.Bucket, key.Region, key.Query = o.S3.Bucket, o.S3.Region, o.S3.Query
	key.HostStyle = o.S3.Style == "host"
	return key, nil
}

// maxS3Key is the size in bytes up to which a file with an access key is read.
const maxS3Key = 64 << 10

// readS3Key reads a file with an access key, in the form of the AWS command line's file
// credentials. It may have one profile, of any name.
func readS3Key(file string) (*origin.S3, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	switch {
	case info.Mode().Perm()&0o007 != 0:
		return nil, fmt.Errorf("%s: every user of this machine may read or write the key: chmod 600 %s", file, file)
	case info.Size() > maxS3Key:
		return nil, fmt.Errorf("%s is larger than a file with an access key", file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	key, err := parseS3Key(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return key, nil
}

// parseS3Key parses a file with an access key. Its errors have no text of the file.
func parseS3Key(text string) (*origin.S3, error) {
	key := &origin.S3{}
	to := map[string]*string{"aws_access_key_id": &key.KeyID, "aws_secret_access_key": &key.Secret,
		"aws_session_token": &key.Token}
	n, profiles := 0, 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		name, value, ok := strings.Cut(line, "=")
		field := to[strings.ToLower(strings.TrimSpace(name))]
		value = strings.TrimSpace(value)
		switch {
		case line == "", line[0] == '#', line[0] == ';':
		case line[0] == '[':
			if profiles++; profiles > 1 {
				return nil, fmt.Errorf("line %d: a second profile begins here: want one", n)
			}
		case !ok:
			return nil, fmt.Errorf("line %d: want NAME = VALUE", n)
		case field == nil: // region and other settings of the command line
		case *field != "":
			return nil, fmt.Errorf("line %d: this value stands here twice", n)
		case value == "" || strings.ContainsFunc(value, func(c rune) bool { return c <= ' ' || c > '~' }):
			return nil, fmt.Errorf("line %d: the value is empty, or has a character that no key has", n)
		default:
			*field = value
		}
	}
	if key.KeyID == "" || key.Secret == "" {
		return nil, errors.New("want the lines aws_access_key_id = … and aws_secret_access_key = …")
	}
	return key, nil
}

// checkS3Key returns what is wrong with a file with an access key, or nil.
func checkS3Key(file string) error {
	_, err := readS3Key(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // reported by the caller
	}
	return err
}
