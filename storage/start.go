package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// openSegments opens the segments in the folder, oldest first. Of the unsealed segments of a class,
// only the newest is written on.
func (s *Store) openSegments() error {
	root := filepath.Join(s.opt.Dir, "segments")
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	var found []*segment // not open
	for _, e := range entries {
		if e.Name() == witnessName {
			continue
		}
		g := &segment{dir: filepath.Join(root, e.Name())}
		number, kind, _ := strings.Cut(e.Name(), ".")
		id, err := strconv.ParseUint(number, 10, 24)
		g.id = uint32(id)
		g.class = class(slices.Index(classNames[:], kind))
		if err != nil || g.class >= classes { // the rest of an interrupted drop
			if err := os.RemoveAll(g.dir); err != nil {
				return err
			}
			continue
		}
		found = append(found, g)
	}
	slices.SortFunc(found, func(a, b *segment) int { return int(a.id) - int(b.id) })
	var newest [classes]uint32
	for _, g := range found {
		newest[g.class], s.lastID = g.id, g.id
	}
	for _, f := range found {
		g, err := s.openMarked(f)
		if err == nil && !g.isSealed() && (g.id != newest[g.class] || g.written.Load() >= s.segmentSize()) {
			err = g.seal()
		}
		if err != nil {
			s.opt.Log.Warn("segment can't be opened and is deleted", "segment", f.id, "error", err)
			if g != nil {
				_ = g.close() // it is deleted in any case
			}
			if err := os.RemoveAll(f.dir); err != nil {
				return err
			}
			continue
		}
		s.version.Store(max(s.version.Load(), g.load(s.index)))
		s.segments[g.id] = g
		if !g.isSealed() {
			s.open[g.class] = g
		}
	}
	return nil
}

// openMarked opens a segment. Meanwhile the file opening has its name. openMarked refuses a segment
// that has ended the process before.
func (s *Store) openMarked(f *segment) (*segment, error) {
	mark := filepath.Join(s.opt.Dir, "opening")
	tries := 0
	if b, err := os.ReadFile(mark); err == nil {
		var of uint32
		if _, err := fmt.Sscanf(string(b), "%d %d", &of, &tries); err != nil || of != f.id {
			tries = 0
		}
	}
	if tries >= openTries {
		return nil, errors.Join(fmt.Errorf("the process ended %d times while it was being opened", tries),
			os.Remove(mark))
	}
	if err := os.WriteFile(mark, fmt.Appendf(nil, "%d %d\n", f.id, tries+1), 0o600); err != nil {
		return nil, err
	}
	g, err := openSegment(f.id, f.class, f.dir, s.segmentSize(), s.opt.Log)
	return g, errors.Join(err, os.Remove(mark))
}
