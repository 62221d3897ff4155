package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// formatLine is what the file format holds.
const formatLine = "kaiku-store 3\n"

// checkFormat writes the format into a new folder, and refuses one that has another.
func checkFormat(dir string) error {
	path := filepath.Join(dir, "format")
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return os.WriteFile(path, []byte(formatLine), 0o600)
	}
	if err == nil && string(b) != formatLine {
		return fmt.Errorf("the data folder has format %q, this kaiku knows %q: use another folder or another version",
			strings.TrimSpace(string(b)), strings.TrimSpace(formatLine))
	}
	return err
}

// lockDir holds the folder for this process. The lock goes with the process, however it ends.
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

// makeFolder makes the folder of a store, and what is in it for this user alone. What is cached may not
// be for everybody who has an account on the machine.
func makeFolder(dir string) error {
	segments := filepath.Join(dir, "segments")
	if err := os.MkdirAll(segments, 0o700); err != nil {
		return err
	}
	return os.Chmod(segments, 0o700) // of a version that was less strict
}
