package storage

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// dropPageCache has the kernel forget what it has of the files in a folder.
func dropPageCache(b *testing.B, dir string) {
	unix.Sync()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
	if err != nil {
		b.Fatal(err)
	}
}

// reportUsage returns a function that reports what the process has used since, per operation.
func reportUsage(b *testing.B) func() {
	usage := func() (u unix.Rusage) {
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u
	}
	before := usage()
	return func() {
		after := usage()
		micros := func(a, b unix.Timeval) float64 { return float64(a.Nano()-b.Nano()) / 1000 }
		b.ReportMetric(micros(after.Utime, before.Utime)/float64(b.N), "user-µs/op")
		b.ReportMetric(micros(after.Stime, before.Stime)/float64(b.N), "system-µs/op")
		b.ReportMetric(float64(after.Minflt-before.Minflt)/float64(b.N), "faults/op")
	}
}
