package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"github.com/dgraph-io/ristretto/v2/z"
	"google.golang.org/protobuf/proto"
)

// checkTables returns an error if a table of a segment has a damaged footer. Badger would end the
// process: it panics in a goroutine of its own, where the store can't recover (4.9.6).
func checkTables(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := checkTable(f); err != nil {
			return fmt.Errorf("table %s: %w", filepath.Base(f), err)
		}
	}
	return nil
}

func checkTable(file string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errDamaged
		}
	}()
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := checkFooter(b); err != nil {
		return err
	}
	m, err := z.OpenMmapFile(file, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	t, err := table.OpenTable(m, table.Options{ReadOnly: true, BlockSize: 4 << 10, BloomFalsePositive: 0.01,
		ChkMode: options.NoVerification, Compression: options.None})
	if err != nil {
		return errors.Join(err, m.Close(-1))
	}
	return errors.Join(t.VerifyChecksum(), t.Close(-1))
}

// checkFooter checks the footer of a table, and the checksum of its index. A table ends with the
// index, the length of the index (4 bytes), the checksum, and the length of the checksum (4 bytes).
func checkFooter(b []byte) error {
	length := func() int {
		if len(b) < 4 {
			return -1
		}
		n := int(binary.BigEndian.Uint32(b[len(b)-4:]))
		b = b[:len(b)-4]
		if n > len(b) {
			return -1
		}
		return n
	}
	cut := func(n int) []byte {
		part := b[len(b)-n:]
		b = b[:len(b)-n]
		return part
	}
	n := length()
	if n < 0 {
		return errDamaged
	}
	var sum pb.Checksum
	if err := proto.Unmarshal(cut(n), &sum); err != nil {
		return errDamaged
	}
	if n = length(); n <= 0 {
		return errDamaged
	}
	return y.VerifyChecksum(cut(n), &sum)
}
