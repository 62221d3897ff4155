//go:build real

package storage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The long versions of tests, and what needs root: a small file system of its own.

func TestRealBudget(t *testing.T) { holdBudget(t, 10) }

func TestRealKills(t *testing.T) { killWriter(t, 100) }

func TestRealDamage(t *testing.T) { damage(t, 60) }

// TestRealFullDisk fills a file system of 96 MiB beside a store that is written to: writes are
// refused, reads go on, nothing crashes, and when there is room again, it stores again.
func TestRealFullDisk(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v %s", err, out)
	}
	defer func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	}()
	s, err := Open(Options{Dir: filepath.Join(dir, "data"), Disk: 256 << 20, Floor: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	write := func(key string) error {
		w := s.Create(Header{Key: key, URL: key, Epoch: s.Epoch()})
		defer w.Close()
		if _, err := w.Write(bodyOf(key, 300_000)); err != nil {
			return err
		}
		_, err := w.Commit(nil, []byte("data of "+key))
		return err
	}
	if err := write("/first"); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ { // the store itself fills it
		if err := write(fmt.Sprint("/", i)); errors.Is(err, ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if i > 1000 {
			t.Fatal("300 MB fit 96 MiB")
		}
	}
	junk := filepath.Join(dir, "junk") // and somebody else takes the rest
	f, err := os.Create(junk)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(bytes.Repeat([]byte{1}, 1<<20))
	}
	f.Close()
	for i := range 100 {
		if err := write(fmt.Sprint("/more/", i)); err == nil && s.checkFloor() {
			t.Fatal("a write below the floor succeeded")
		}
	}
	if s.Stats().Refused == 0 {
		t.Error("no write was refused")
	}
	if o := s.Get("/first"); o != nil && !bytes.Equal(read(t, o, 0, o.Size()), bodyOf("/first", 300_000)) {
		t.Error("wrong bytes")
	}
	if err := os.Remove(junk); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ { // a segment goes each second until there is room
		if err := write("/again"); err == nil {
			break
		}
	}
	want(t, s, "/again", bodyOf("/again", 300_000))
	closeStore(t, s)
}
