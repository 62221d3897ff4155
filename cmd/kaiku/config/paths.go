package config

import (
	"os"
	"path"
	"path/filepath"
	"strings"
)

// NodeDir is the folder of the fleet file on nodes. Relative paths in the file start from there.
const NodeDir = "/etc/kaiku"

// NodeFile returns the path on a node of a file that the fleet file names.
func NodeFile(p string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	return path.Join(NodeDir, p)
}

// LocalFile returns the path of a file on the operator's machine. A file that is below /etc/kaiku
// on nodes may be next to the fleet file there.
func (f *Fleet) LocalFile(p string) string {
	if rest, ok := strings.CutPrefix(path.Clean(p), NodeDir+"/"); ok {
		if beside := filepath.Join(f.dir, rest); isThere(beside) {
			return beside
		}
	}
	return f.Path(p)
}

func isThere(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// Path returns a path of the fleet file as seen from this process: relative paths start from the
// fleet file's folder.
func (f *Fleet) Path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(f.dir, p)
}

// Name returns the path of the fleet file, as it was given to Load.
func (f *Fleet) Name() string { return f.file.name }

// Sum returns the start of the SHA-256 of the fleet file, as deploy.FleetSum does.
func (f *Fleet) Sum() string { return f.sum }

// Watched returns the files that a running node watches for changes: those that name servers answer
// from, and those of certificates, tokens and the keys of buckets.
func (f *Fleet) Watched() []string {
	var files []string
	for _, z := range f.zoneNames {
		files = append(files, z.file)
		for _, name := range z.included() {
			files = append(files, filepath.Join(filepath.Dir(z.file), name))
		}
	}
	for _, z := range f.GeoDNS.Zones {
		if z.DNSSEC != nil && z.DNSSEC.Key != "" {
			files = append(files, f.LocalFile(z.DNSSEC.Key))
		}
	}
	if f.GeoDNS.GeoIP != "" {
		files = append(files, f.LocalFile(f.GeoDNS.GeoIP))
	}
	for _, c := range f.TLS.Certificates {
		files = append(files, f.Path(c.Cert), f.Path(c.Key))
	}
	if f.Secrets.AdminToken != "" {
		files = append(files, f.Path(f.Secrets.AdminToken))
	}
	for _, s := range f.Sites {
		for _, o := range s.AllOrigins() {
			if o.S3 != nil {
				files = append(files, f.Path(o.S3.Credentials))
			}
		}
	}
	for _, t := range f.Secrets.Tokens {
		files = append(files, f.Path(t.File))
	}
	return files
}
