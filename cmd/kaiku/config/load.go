package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kaiku-cdn/kaiku/deploy"
	"github.com/kaiku-cdn/kaiku/geodns"
)

// Load reads and checks fleet.yaml and the zone files that it names. All errors are returned at
// once, each with its place.
func Load(file string) (*Fleet, []*geodns.Zone, error) { return LoadNode(file, nil) }

// LoadNode is Load for a node that keeps copies: what is wrong with a zone is no error then.
func LoadNode(file string, keep *Keeper) (*Fleet, []*geodns.Zone, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, unreadFleet(err)
	}
	f := &Fleet{dir: filepath.Dir(file), sum: deploy.FleetSum(text), keep: keep}
	f.file = decodeYAML(file, text, f)
	if keep != nil {
		keep.begin(f)
	}
	zones := f.check()
	if err := f.file.failure(); err != nil {
		return nil, nil, err
	}
	return f, zones, nil
}

// unreadFleet is the error of a fleet file that can't be read.
func unreadFleet(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the fleet: %w: name the fleet file by --config, or write one with kaiku init", err)
	}
	return fmt.Errorf("read the fleet: %w", err)
}

// Read reads the fleet file without the checks of whether a node could run with it: an operator may
// be in the middle of a change.
func Read(file string) (*Fleet, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, unreadFleet(err)
	}
	f := &Fleet{dir: filepath.Dir(file)}
	f.file = decodeYAML(file, text, f)
	return f, f.file.failure()
}

// Decode is what a fleet file says, without its checks and without where it says it: two files that
// say the same give what reflect.DeepEqual takes for the same. It reports whether the file is one.
func Decode(text []byte) (*Fleet, bool) {
	f := &Fleet{}
	return f, len(decodeYAML("", text, f).errs) == 0
}
