package config

import (
	"os"
	"path"
	"path/filepath"
	"strings"
)

// NodeDir is where a node has the fleet file, and what it names by relative paths.
const NodeDir = "/etc/kaiku"

// NodeFile is where a node has a file that the fleet file names.
func NodeFile(p string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	return path.Join(NodeDir, p)
}

// LocalFile is where the operator has it: what is below /etc/kaiku on nodes may stand beside the
// fleet file.
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

// Path is a path of the fleet file's as seen from here.
func (f *Fleet) Path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(f.dir, p)
}

// Name is the fleet file's own name, as it was given.
func (f *Fleet) Name() string { return f.file.name }

// Sum is the beginning of the SHA-256 of the fleet file, as deploy.FleetSum has it.
func (f *Fleet) Sum() string { return f.sum }

// Watched are the files that name servers answer from, and those of certificates and tokens.
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
	for _, t := range f.Secrets.Tokens {
		files = append(files, f.Path(t.File))
	}
	return files
}
