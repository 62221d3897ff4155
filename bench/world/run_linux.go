package world

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// TempDir makes a temporary folder for a run, and removes those of runs that were killed. Their
// names are prefix, the ID of the process, and a part after a "-".
func TempDir(prefix string) (string, error) {
	if err := removeStaleDirs(prefix); err != nil {
		return "", err
	}
	return os.MkdirTemp("", fmt.Sprintf("%s%d-", prefix, os.Getpid()))
}

func removeStaleDirs(prefix string) error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	for _, dir := range dirs {
		var pid int
		if _, bad := fmt.Sscanf(filepath.Base(dir), prefix+"%d-", &pid); bad == nil &&
			errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return err
}

// Pause waits for d, or until ctx ends.
func Pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
