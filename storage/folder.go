package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// formatLine is the content of the file format.
const formatLine = "kaiku-store 3\n"

// checkFormat writes the format into a new folder, and refuses a folder with another format. If a
// power loss has left an empty or incomplete file in a new folder, the store starts empty, because
// the format of the other files is unknown.
func checkFormat(dir string, log *slog.Logger) error {
	path := filepath.Join(dir, "format")
	b, err := os.ReadFile(path)
	switch {
	case err == nil && string(b) == formatLine:
		return nil
	case err == nil && !strings.HasPrefix(formatLine, string(b)):
		return fmt.Errorf("the data folder has format %q, this kaiku knows %q: use another folder or another version",
			strings.TrimSpace(string(b)), strings.TrimSpace(formatLine))
	case err == nil:
		log.Warn("the data folder lost its format, as by a power loss soon after it was made: the cache begins anew",
			"dir", dir)
		for _, name := range []string{"segments", "purges"} {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
		if err := makeFolder(dir); err != nil {
			return err
		}
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	return writeSynced(path, []byte(formatLine))
}

// writeSynced replaces a file. After a power loss, the file is either the previous or the new one,
// and complete.
func writeSynced(file string, b []byte) error {
	w, err := os.OpenFile(file+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	if err := errors.Join(err, w.Sync(), w.Close()); err != nil {
		return err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// lockDir locks the folder for this process. The lock ends with the process, however that ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		owner, _ := os.ReadFile(f.Name())
		f.Close()
		return nil, fmt.Errorf("data folder %s is in use by another kaiku (process %s): stop it or choose another folder",
			dir, strings.TrimSpace(string(owner)))
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the data folder: %w", err), f.Close())
	}
	return f, nil
}

// makeFolder makes the folder of a store, readable by this user only: cached responses are not for
// everybody who has an account on the machine.
func makeFolder(dir string) error {
	segments := filepath.Join(dir, "segments")
	if err := os.MkdirAll(segments, 0o700); err != nil {
		return err
	}
	return os.Chmod(segments, 0o700) // earlier versions set other permissions
}
