package compress

import (
	"fmt"
	"io"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// bestBrotli is the size in bytes of the largest body that br codes at its best quality, which
// takes about three seconds of a core a MiB. Larger ones get a quality that takes a tenth of that.
const bestBrotli = 1 << 20

// NewWriter returns a writer that codes a body of size bytes to w. The caller must close it. It
// uses the calling goroutine alone. With fast, it takes much less time and its results are larger.
// Equal bodies have equal results.
func NewWriter(w io.Writer, coding string, size int64, fast bool) (io.WriteCloser, error) {
	switch coding {
	case Brotli:
		quality := 11
		switch {
		case fast:
			quality = 5
		case size > bestBrotli:
			quality = 9
		}
		return brotli.NewWriterOptions(w, brotli.WriterOptions{Quality: quality, LGWin: window(size, 10, 24)}), nil
	case Zstd:
		level := zstd.SpeedBestCompression
		if fast {
			level = zstd.SpeedDefault
		}
		// clients need not have room for larger windows than 8 MiB (RFC 9659)
		return zstd.NewWriter(w, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1),
			zstd.WithEncoderCRC(false), zstd.WithWindowSize(1<<window(size, 10, 23)), zstd.WithLowerEncoderMem(true))
	case Gzip:
		level := gzip.BestCompression
		if fast {
			level = gzip.DefaultCompression
		}
		return gzip.NewWriterLevel(w, level)
	}
	return nil, fmt.Errorf("the content coding %q is unknown", coding)
}
