package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/words"
	"github.com/kaiku-cdn/kaiku/fleet"
)

// namedFile is a file that the fleet file names.
type namedFile struct {
	at     string // the path of its key in the fleet file
	file   string
	secret bool
	// read returns what is wrong with an existing file. nil means that it only has to be readable.
	read func(file string) error
}

// namedFiles returns all files that the fleet file names, except zone files, which every node
// reads.
func (f *Fleet) namedFiles() []namedFile {
	var out []namedFile
	add := func(at, file string, secret bool, read func(string) error) {
		if file != "" {
			out = append(out, namedFile{at, file, secret, read})
		}
	}
	pair := func(at string, c Certificate) {
		add(at+".key", c.Key, true, nil)
		add(at+".cert", c.Cert, false, func(cert string) error { return checkPair(cert, f.LocalFile(c.Key)) })
	}
	secrets := func(file string) error {
		_, err := readSecrets(file)
		return err
	}
	oneSecret := func(file string) error {
		_, err := ReadSecret(file)
		return err
	}
	add("secrets.fleet_key", f.Secrets.FleetKey, true, func(file string) error {
		_, err := fleet.ReadKey(file)
		return err
	})
	add("secrets.admin_token", f.Secrets.AdminToken, true, secrets)
	for i, t := range f.Secrets.Tokens {
		add(fmt.Sprintf("secrets.tokens[%d].file", i), t.File, true, secrets)
	}
	for i, c := range f.TLS.Certificates {
		pair(fmt.Sprintf("tls.certificates[%d]", i), c)
	}
	if a := f.TLS.ACME; a != nil {
		add("tls.acme.ca", a.CA, false, checkAuthorities)
	}
	for i, s := range f.Sites {
		for name, o := range s.AllOrigins() {
			at := fmt.Sprintf("sites[%d].%s", i, name)
			add(at+".ca", o.CA, false, checkAuthorities)
			if c := o.ClientCertificate; c != nil {
				pair(at+".client_certificate", *c)
			}
			if a := o.Auth; a != nil {
				add(at+".auth.secret", a.Secret, true, oneSecret)
			}
			if b := o.S3; b != nil {
				add(at+".s3.credentials", b.Credentials, true, checkS3Key)
			}
		}
		for j := range s.Rules {
			if e := s.Rules[j].ErrorPages; e != nil {
				for status, file := range e.Files {
					add(fmt.Sprintf("sites[%d].rules[%d].error_pages.files.%d", i, j, status), file, false,
						checkErrorPage)
				}
			}
			for _, r := range s.Rules[j].Files() {
				add(fmt.Sprintf("sites[%d].rules[%d].%s", i, j, r.Key), r.File, true, r.check)
			}
		}
	}
	for i, z := range f.GeoDNS.Zones {
		if z.DNSSEC != nil {
			add(fmt.Sprintf("geodns.zones[%d].dnssec.key", i), z.DNSSEC.Key, true, func(file string) error {
				_, err := ReadDNSSECKeys(file)
				return err
			})
		}
	}
	add("geodns.geoip", f.GeoDNS.GeoIP, false, nil)
	return out
}

// checkFiles finds files that are missing or wrong. It is for the operator's machine, where files
// with absolute paths may be missing because only nodes have them. On a node, files that only other
// roles need may be missing.
func (f *Fleet) checkFiles() {
	here, err := filepath.Abs(f.dir)
	onNode := err == nil && here == NodeDir
	for _, n := range f.namedFiles() {
		local := f.LocalFile(n.file)
		err := readable(local)
		if err == nil && n.read != nil {
			err = n.read(local)
		}
		switch {
		case err == nil:
		case errors.As(err, new(doubt)):
			f.warnf(n.at, "%v", err)
		case errors.Is(err, fs.ErrNotExist) && n.secret && looksSecret(n.file):
			f.file.secretErrorf(n.at, "this is the place of a file's name, never of the secret itself: write the secret to a file that only you can read, and name that")
		case errors.Is(err, fs.ErrNotExist) && !path.IsAbs(n.file) && !onNode:
			f.errorf(n.at, "%s", unread(local, err))
		case errors.Is(err, fs.ErrNotExist):
			f.warnf(n.at, "there is no file %s here%s: nodes need it", n.file, nor(n.file))
		case errors.Is(err, fs.ErrPermission):
			f.warnf(n.at, "%s can't be read by you, so its contents were not checked", local)
		default:
			f.errorf(n.at, "%v", err)
		}
	}
}

// nor returns a note about the second place where LocalFile looks, or "".
func nor(file string) string {
	if rest, ok := strings.CutPrefix(path.Clean(file), NodeDir+"/"); ok {
		return ", nor " + rest + " beside the fleet file"
	}
	return ""
}

// doubt is a warning about a file that can still be used.
type doubt string

func (d doubt) Error() string { return string(d) }

// readable returns why a file can't be read.
func readable(file string) error {
	info, err := os.Stat(file)
	if err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", file)
	}
	if err != nil {
		return err
	}
	r, err := os.Open(file)
	if err != nil {
		return err
	}
	return r.Close()
}

var secretRE = regexp.MustCompile(`^[A-Za-z0-9+/=_-]{20,}$`)

// looksSecret reports whether a text that names no file is probably a secret. It is called only if
// the text is an error in any case, or an absolute path.
func looksSecret(text string) bool {
	return strings.Contains(text, "-----BEGIN ") || secretRE.MatchString(text) && !path.IsAbs(text) &&
		strings.ContainsAny(text, "0123456789")
}

// unread returns why a file was not read.
func unread(file string, err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "there is no such file as " + file + nearFile(file)
	case errors.Is(err, fs.ErrPermission):
		return file + " is not yours to read"
	}
	return err.Error()
}

// nearFile suggests a file of the folder with a similar name.
func nearFile(file string) string {
	entries, err := os.ReadDir(filepath.Dir(file))
	if err != nil {
		return ""
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if near := words.Nearest(filepath.Base(file), names); near != "" {
		return ": did you mean " + near + "?"
	}
	return ""
}

// checkPair returns what is wrong with a certificate, or with its key if that exists.
func checkPair(cert, key string) error {
	text, err := os.ReadFile(cert)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return fmt.Errorf("%s does not begin with a certificate in PEM: want -----BEGIN CERTIFICATE-----, its chain after it", cert)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("%s: the certificate is damaged", cert)
	}
	private, err := os.ReadFile(key) // an error is reported for the key's own path
	if err == nil {
		if _, err := tls.X509KeyPair(text, private); err != nil {
			return fmt.Errorf("%s is not the private key, in PEM, of the certificate %s", key, cert)
		}
	}
	if time.Now().After(leaf.NotAfter) {
		return doubt(fmt.Sprintf("%s: the certificate was good until %s", cert,
			leaf.NotAfter.UTC().Format(time.DateOnly)))
	}
	return nil
}

// checkAuthorities returns what is wrong with a file of CA certificates.
func checkAuthorities(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if !x509.NewCertPool().AppendCertsFromPEM(text) {
		return fmt.Errorf("there is no certificate in PEM in %s", file)
	}
	return nil
}
