package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"sync"
)

// witnessName is the file in the folder segments that has the sequence up to which the folder
// purges must have records.
const witnessName = "PURGES"

// A witness has two slots, each in a sector of its own. They are written in turns, so that one is
// complete after a power loss. A slot has a sequence (8 bytes) and its CRC-32C (4 bytes).
const (
	witnessSector = 512
	witnessSlot   = 12
)

// witness records, next to the objects, up to which sequence the purge records are on the disk. If
// its sequence is higher than that of the records, these were lost, or are an older copy.
type witness struct {
	known bool // the file existed and could be read

	mu   sync.Mutex
	file *os.File
	seq  uint64
	last int // the slot that has seq
}

// openWitness opens the file. It makes a new one if the file is missing or damaged.
func openWitness(path string) (*witness, error) {
	w := &witness{}
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read which purges are known: %w", err)
	}
	for i := range 2 {
		if seq, ok := readSlot(b, i); ok && (!w.known || seq > w.seq) {
			w.known, w.seq, w.last = true, seq, i
		}
	}
	if !w.known {
		b = make([]byte, 2*witnessSector)
		writeSlot(b, 0)
		if err := writeSynced(path, b); err != nil {
			return nil, fmt.Errorf("note which purges are known: %w", err)
		}
	}
	if w.file, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
		return nil, fmt.Errorf("note which purges are known: %w", err)
	}
	return w, nil
}

func readSlot(b []byte, slot int) (seq uint64, ok bool) {
	if b = b[min(len(b), slot*witnessSector):]; len(b) < witnessSlot {
		return 0, false
	}
	return binary.BigEndian.Uint64(b), crc32.Checksum(b[:8], castagnoli) == binary.BigEndian.Uint32(b[8:])
}

func writeSlot(b []byte, seq uint64) {
	binary.BigEndian.PutUint64(b, seq)
	binary.BigEndian.PutUint32(b[8:], crc32.Checksum(b[:8], castagnoli))
}

// newest returns the recorded sequence.
func (w *witness) newest() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seq
}

// note records on the disk that the records up to a sequence are there.
func (w *witness) note(seq uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if seq <= w.seq {
		return nil
	}
	var b [witnessSlot]byte
	writeSlot(b[:], seq)
	next := 1 - w.last
	_, err := w.file.WriteAt(b[:], int64(next*witnessSector))
	if err == nil {
		err = w.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("note which purges are known: %w", err)
	}
	w.seq, w.last = seq, next
	return nil
}

func (w *witness) close() error { return w.file.Close() }
