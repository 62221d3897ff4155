package storage

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// openRecords opens the purge records, and finds out whether records that are newer than stored
// objects are missing. If so, these may have covered the objects, and all objects are suspect.
func (s *Store) openRecords() error {
	dir, segments := filepath.Join(s.opt.Dir, "purges"), filepath.Join(s.opt.Dir, "segments")
	w, err := openWitness(filepath.Join(segments, witnessName))
	if err != nil {
		return err
	}
	s.witness = w
	stored, err := hasFolders(segments)
	if err != nil {
		return err
	}
	why := ""
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) && stored && !(w.known && w.newest() == 0) {
		why = "the folder is missing"
	}
	for range 2 {
		if why != "" && !w.known { // the epochs of the objects mean nothing then
			if err := removeFolders(segments); err != nil {
				return err
			}
		}
		if s.purges, err = openPurges(dir, w, why != "", s.opt.Log); err == nil || isMachineError(err) {
			break
		}
		why = err.Error()
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove damaged purge records: %w", err)
		}
	}
	switch {
	case err != nil:
		return err
	case !s.purges.lost:
	case !w.known:
		s.opt.Log.Warn("purge records are lost: the cache begins anew", "dir", dir, "found", why)
	default:
		s.opt.Log.Warn("purge records are lost: all that is stored is validated before it is used",
			"dir", dir, "found", cmp.Or(why, "an older copy"), "newest", s.purges.known, "expected", s.purges.expected)
	}
	return nil
}

// isMachineError reports whether an error is due to the machine, and not to the files.
func isMachineError(err error) bool {
	for _, e := range []error{syscall.EACCES, syscall.EPERM, syscall.EROFS, syscall.EMFILE, syscall.ENFILE,
		syscall.ENOMEM, syscall.ENOSPC, syscall.EDQUOT, syscall.EAGAIN} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// hasFolders reports whether a folder contains folders.
func hasFolders(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	return slices.ContainsFunc(entries, os.DirEntry.IsDir), err
}

// removeFolders removes the folders in a folder.
func removeFolders(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}
