package fleet

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// folder is the data of a control node as it lies on the disk:
//
//	jetstream/$G/streams/           the log of purges and the buckets
//	jetstream/$SYS/_js_/_meta_/     of a node that is in a group: its Raft log of what there is, and peers.idx, the members
//	jetstream/$SYS/_js_/_meta_/kaiku-group   the name of the group
//	jetstream/$SYS/_js_/_meta_/kaiku-fresh   is there until the group has had a leader: nothing here is worth anything
//
// A node that has always been alone has no group; see conversion for how it gets one.
type folder string

func (f folder) store() string          { return filepath.Join(string(f), "jetstream") }
func (f folder) before() string         { return filepath.Join(string(f), "jetstream.before") }
func (f folder) next() string           { return filepath.Join(string(f), "jetstream.next") }
func (f folder) gone() string           { return filepath.Join(string(f), "jetstream.removed") }
func (f folder) conversionFile() string { return filepath.Join(string(f), "carry.json") }
func (f folder) streams() string        { return filepath.Join(f.store(), "$G", "streams") }

// metaOf returns the folder of a store that has the Raft log of its group.
func metaOf(store string) string { return filepath.Join(store, "$SYS", "_js_", "_meta_") }

const (
	peersFile = "peers.idx"
	groupFile = "kaiku-group"
	freshFile = "kaiku-fresh"
	// firstGroup is the name of all groups that did not grow out of a single control node.
	firstGroup = "kaiku"
	// maxSmall bounds the two files, in bytes.
	maxSmall = 4096
)

// hasStreams reports whether the folder has any streams.
func (f folder) hasStreams() (bool, error) {
	entries, err := os.ReadDir(f.streams())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return len(entries) > 0, err
}

// inGroup reports whether the node is already a member of a group.
func (f folder) inGroup() (bool, error) {
	_, err := os.Stat(filepath.Join(metaOf(f.store()), peersFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// group returns the name of the node's group; "" means that none is known.
func (f folder) group() (string, error) {
	b, err := readSmall(filepath.Join(metaOf(f.store()), groupFile))
	if errors.Is(err, fs.ErrNotExist) {
		in, err := f.inGroup()
		if in {
			return firstGroup, err
		}
		return "", err
	}
	name := strings.TrimSpace(string(b))
	if err == nil && !isGroup(name) {
		err = fmt.Errorf("%s: %.40q is not the name of a group", groupFile, name)
	}
	return name, err
}

// isGroup reports whether a name is a valid name of a group.
func isGroup(name string) bool {
	return len(name) <= 64 && (name == firstGroup || strings.HasPrefix(name, firstGroup+"-")) &&
		!strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' })
}

// enter makes a node without data a new member of a group.
func (f folder) enter(group string) error {
	if err := os.RemoveAll(f.store()); err != nil {
		return err
	}
	if err := writeGroup(f.store(), group); err != nil {
		return err
	}
	return writeSynced(filepath.Join(metaOf(f.store()), freshFile), nil)
}

// fresh reports whether the node has never been in a group that had a leader.
func (f folder) fresh() (bool, error) {
	_, err := os.Stat(filepath.Join(metaOf(f.store()), freshFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// entered records that the group has a leader.
func (f folder) entered() error {
	if err := os.Remove(filepath.Join(metaOf(f.store()), freshFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(metaOf(f.store()))
}

func writeGroup(store, group string) error {
	if err := os.MkdirAll(metaOf(store), 0o750); err != nil {
		return err
	}
	return writeSynced(filepath.Join(metaOf(store), groupFile), []byte(group+"\n"))
}

// writePeers makes a node the only member of a group. NATS itself forms groups of two or more only.
func writePeers(store, node string) error {
	b := binary.LittleEndian.AppendUint32(nil, 1) // expected size of the group
	b = binary.LittleEndian.AppendUint32(b, 1)    // number of peers that follow
	b = append(b, peerID(node)...)
	return writeSynced(filepath.Join(metaOf(store), peersFile), append(b, 0, 0))
}

// peerID returns NATS's ID of a member.
func peerID(node string) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	sum := sha256.Sum256([]byte(node))
	id := sum[:8]
	for i, b := range id {
		id[i] = digits[int(b)%len(digits)]
	}
	return string(id)
}

func readSmall(file string) ([]byte, error) {
	r, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, maxSmall))
}

// writeSynced replaces a file. After a power loss, the file has either the old or the new content.
func writeSynced(file string, b []byte) error {
	w, err := os.OpenFile(file+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	if err := errors.Join(err, w.Sync(), w.Close()); err != nil {
		return err
	}
	return renameSynced(file+".new", file)
}

// renameSynced renames a file or folder durably.
func renameSynced(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// copySynced copies a folder durably.
func copySynced(from, to string) error {
	var dirs []string
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rest, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rest)
		switch {
		case d.IsDir():
			dirs = append(dirs, target)
			return os.MkdirAll(target, 0o750)
		case d.Type().IsRegular():
			return copyFile(path, target)
		}
		return fmt.Errorf("%s is neither a file nor a folder", path)
	})
	for _, dir := range slices.Backward(dirs) {
		if err == nil {
			err = syncDir(dir)
		}
	}
	return err
}

func copyFile(from, to string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Sync(), w.Close())
}
