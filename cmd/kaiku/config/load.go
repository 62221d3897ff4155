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

// Load reads and checks fleet.yaml and the zone files that it names. It returns all errors at once,
// each with its position.
func Load(file string) (*Fleet, []*geodns.Zone, error) { return LoadNode(file, nil) }

// LoadNode is Load for a node. If keep is not nil, damaged zones are no errors: keep replaces them
// with their last good copies.
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

// unreadFleet returns the error for a fleet file that can't be read.
func unreadFleet(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the fleet: %w: name the fleet file by --config, or write one with kaiku init", err)
	}
	return fmt.Errorf("read the fleet: %w", err)
}

// Read decodes the fleet file, but does not check whether a node could run with it: the operator
// may be in the middle of a change.
func Read(file string) (*Fleet, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, unreadFleet(err)
	}
	f := &Fleet{dir: filepath.Dir(file)}
	f.file = decodeYAML(file, text, f)
	return f, f.file.failure()
}

// Decode decodes a fleet file without checks and positions: for two files with the same meaning,
// the results are equal according to reflect.DeepEqual. It reports whether the file decodes
// without errors.
func Decode(text []byte) (*Fleet, bool) {
	f := &Fleet{}
	return f, len(decodeYAML("", text, f).errs) == 0
}
