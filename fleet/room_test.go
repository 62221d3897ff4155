package fleet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// smallDisk is a folder with a file system of its own of so many bytes.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("mount a file system: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// fill takes all the room that a folder has.
func fill(t *testing.T, dir string) (file string) {
	t.Helper()
	file = filepath.Join(dir, "filler")
	w, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for block := make([]byte, 64<<10); err == nil; {
		_, err = w.Write(block)
	}
	for err = nil; err == nil; {
		_, err = w.Write([]byte{0})
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return file
}

// pressed appends purges until some are refused, and notes those that were acknowledged.
func pressed(t *testing.T, c *Client, acked map[uint64]int) {
	t.Helper()
	refused := 0
	for n := 1; refused < 3; n++ {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		seq, err := c.Append(ctx, fmt.Sprint("pressed-", n), "", n)
		cancel()
		if err != nil {
			if refused++; !errors.Is(err, ErrUnavailable) {
				t.Error(err)
			}
			continue
		}
		acked[seq] = n
	}
}

// has reports an error unless an edge has what was acknowledged up to a sequence, and never lost
// the log.
func (e *testEdge) hasAll(t *testing.T, acked map[uint64]int, last uint64) {
	t.Helper()
	testwait.Until(t, "the edge has all", func() bool { return e.Applied().Seq == last })
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lost != 1 {
		t.Errorf("lost %d times, want once, at the start", e.lost)
	}
	for seq, n := range acked {
		if int(seq) > len(e.purges) || e.purges[seq-1] != fmt.Sprint(n) {
			t.Errorf("purge %d was acknowledged as %d, which is something else", n, seq)
		}
	}
}

// A control node refuses purges before its disk is full, and takes them when there is room again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, 96<<20)
	nodes := startControl(t, dir, 1)
	c := dial(t, nodes, "hel1", RoleEdge)
	e := startEdge(t, dial(t, nodes, "nyc1", RoleEdge), Position{})
	testwait.Until(t, "the edge is in touch", e.InTouch)
	acked := map[uint64]int{appendPurge(t, c, 0): 0}
	filler := fill(t, dir)
	if _, err := c.Append(t.Context(), "full", "", 1); !errors.Is(err, ErrFull) || !errors.Is(err, ErrUnavailable) ||
		!strings.Contains(err.Error(), "c1 has 0 MiB free") {
		t.Errorf("with a full disk: %v", err)
	}
	if err := c.Drain(t.Context(), "hel1", true); !errors.Is(err, ErrFull) {
		t.Errorf("with a full disk: %v", err)
	}
	if _, _, err := c.position(t.Context()); err != nil {
		t.Errorf("the end of the log is not told: %v", err)
	}
	pressed(t, c, acked)
	server := nodes[0].nats()
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	last, err := c.Append(t.Context(), "room", "", 2)
	if err != nil || last != uint64(len(acked)+1) {
		t.Fatalf("with room: %d after %d, %v", last, len(acked), err)
	}
	e.hasAll(t, acked, last)
	if nodes[0].nats() != server {
		t.Error("the log was ended")
	}
}

// Where something else filled the disk between two looks at it, a write fails, which ends the log.
// It is opened again when there is room, and has what was acknowledged.
func TestFailedWrite(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, 96<<20)
	nodes := makeControl(t, dir, 1)
	nodes[0].floor.Store(-1) // nothing is refused
	nodes[0].start(t)
	c := dial(t, nodes, "hel1", RoleEdge)
	e := startEdge(t, dial(t, nodes, "nyc1", RoleEdge), Position{})
	testwait.Until(t, "the edge is in touch", e.InTouch)
	acked := map[uint64]int{appendPurge(t, c, 0): 0}
	filler := fill(t, dir)
	server := nodes[0].nats()
	big := strings.Repeat("x", 1<<20)
	testwait.Until(t, "a write has failed", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if seq, err := c.Append(ctx, rand.Text(), "", big); err == nil {
			t.Errorf("a purge was acknowledged as %d with a full disk", seq)
		}
		return nodes[0].failed.Load().Load() || nodes[0].nats() != server
	})
	nodes[0].floor.Store(1 << 20)
	pressed(t, c, acked)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	last := appendPurge(t, c, 1_000_000)
	e.hasAll(t, acked, last)
}

// One of three whose disk is full keeps the others from nothing; two do.
func TestFullDisksOfSome(t *testing.T) {
	t.Parallel()
	nodes := startControl(t, t.TempDir(), 3)
	c := dial(t, nodes, "hel1", RoleEdge)
	appendPurge(t, c, 0)
	replicasOf(t, c, 3)
	nodes[0].floor.Store(1 << 60)
	appendPurge(t, c, 1)
	nodes[1].floor.Store(1 << 60)
	testwait.Until(t, "purges are refused", func() bool {
		_, err := c.Append(t.Context(), rand.Text(), "", 2)
		return errors.Is(err, ErrFull)
	})
	nodes[0].floor.Store(0)
	appendPurge(t, c, 3)
}
