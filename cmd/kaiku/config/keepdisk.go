package config

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// geoipCopy returns the path of the copy of the geoip database.
func (k *Keeper) geoipCopy() string { return filepath.Join(k.dir, "geoip.mmdb") }

// copyOf returns the path of the copy of a zone. It is a tar archive of the zone's files.
func (k *Keeper) copyOf(key string) string {
	return filepath.Join(k.dir, "zones", url.PathEscape(strings.TrimSuffix(key, "."))+".tar")
}

// load reads the copy of a zone. It returns nil if there is no good copy. at describes when the
// copy was made.
func (k *Keeper) load(z *zoneFiles) (copied *zoneFiles, at string) {
	file := k.copyOf(zoneKey(z.name))
	r, err := os.Open(file)
	if err != nil {
		return nil, ""
	}
	defer r.Close()
	c := newZoneFiles(z.name, z.file)
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if err == io.EOF {
			break
		}
		var text []byte
		if err == nil {
			text, err = io.ReadAll(io.LimitReader(archive, maxZoneText))
		}
		if err != nil {
			k.log.Error("a copy of a zone is damaged", "file", file, "error", err)
			return nil, ""
		}
		name := h.Name
		if len(c.order) == 0 {
			name = z.file
		}
		c.order, c.texts[name] = append(c.order, name), string(text)
	}
	if errs := c.parse(); len(errs) > 0 {
		k.log.Error("a copy of a zone is not good", "file", file, "error", errs[0])
		return nil, ""
	}
	c.texts = nil
	if info, err := r.Stat(); err == nil {
		at = "of " + info.ModTime().UTC().Format(time.DateTime) + " UTC"
	}
	return c, at
}

// Pending reports whether Save has something to do.
func (k *Keeper) Pending() bool {
	return k != nil && (len(k.unsaved) > 0 || k.before != nil || k.unswept)
}

// Save does one piece of the pending work: it saves a zone or the geoip database, or it sweeps.
// That way, its caller can do other things in between.
func (k *Keeper) Save(ctx context.Context) {
	var err error
	switch {
	case len(k.unsaved) > 0:
		z := k.unsaved[0]
		k.unsaved = k.unsaved[1:]
		err = k.saveZone(z)
		z.texts = nil
	case k.before != nil:
		info := k.before
		k.before = nil
		err = k.saveGeoIP(ctx, info)
	default:
		k.unswept = false
		err = k.sweep()
	}
	if err != nil {
		k.unsaved, k.before, k.unswept = nil, nil, false
		k.log.Warn("the name server can't keep copies of its zones: if one is damaged, it will start without it; make the folder writable, or name another in geodns.data", "folder", k.dir, "error", err)
	}
}

// saveZone saves a zone, unless the copy is the same already.
func (k *Keeper) saveZone(z *zoneFiles) error {
	file := k.copyOf(zoneKey(z.name))
	if copyIs(file, z) {
		return nil
	}
	return writeCopy(file, time.Time{}, func(w io.Writer) error {
		archive := tar.NewWriter(w)
		for i, name := range z.order {
			if i == 0 {
				name = "zone"
			}
			text := z.texts[z.order[i]]
			if err := archive.WriteHeader(&tar.Header{Name: name, Size: int64(len(text)), Mode: 0o600,
				Format: tar.FormatPAX}); err != nil {
				return err
			}
			if _, err := io.WriteString(archive, text); err != nil {
				return err
			}
		}
		return archive.Close()
	})
}

// copyIs reports whether a copy has the same content as the files of a zone.
func copyIs(file string, z *zoneFiles) bool {
	r, err := os.Open(file)
	if err != nil {
		return false
	}
	defer r.Close()
	archive := tar.NewReader(r)
	for i, name := range z.order {
		h, err := archive.Next()
		if err != nil || i > 0 && h.Name != name {
			return false
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, archive); err != nil ||
			[sha256.Size]byte(sum.Sum(nil)) != sha256.Sum256([]byte(z.texts[name])) {
			return false
		}
	}
	_, err = archive.Next()
	return err == io.EOF
}

// saveGeoIP copies the geoip database in use. info is its file information from before the server
// read it.
func (k *Keeper) saveGeoIP(ctx context.Context, info fs.FileInfo) error {
	same := func(a fs.FileInfo) bool { return a.Size() == info.Size() && a.ModTime().Equal(info.ModTime()) }
	if have, err := os.Stat(k.geoipCopy()); err == nil && same(have) {
		return nil
	}
	r, err := os.Open(k.geoip)
	if err != nil {
		return nil // it has changed meanwhile, and will be loaded again
	}
	defer r.Close()
	err = writeCopy(k.geoipCopy(), info.ModTime(), func(w io.Writer) error {
		if _, err := io.Copy(w, r); err != nil {
			return err
		}
		if now, err := r.Stat(); err != nil || !same(now) {
			return errChanged
		}
		return ctx.Err()
	})
	if errors.Is(err, errChanged) {
		return nil
	}
	return err
}

var errChanged = errors.New("the file has changed")

// sweep deletes copies of zones that no longer exist and unfinished copies, and syncs the folders
// to make all copies durable.
func (k *Keeper) sweep() error {
	dir := filepath.Join(k.dir, "zones")
	entries, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	known := make(map[string]bool, len(k.served))
	for key := range k.served {
		known[filepath.Base(k.copyOf(key))] = true
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".tar") && !known[e.Name()] || strings.HasPrefix(e.Name(), ".new-") {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(err, syncFolder(dir), syncFolder(k.dir))
}

// writeCopy replaces a file atomically. syncFolder makes that durable.
func writeCopy(file string, modified time.Time, write func(io.Writer) error) error {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	w, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	err = errors.Join(write(w), w.Sync(), w.Close())
	if err == nil && !modified.IsZero() {
		err = os.Chtimes(w.Name(), modified, modified)
	}
	if err == nil {
		err = os.Rename(w.Name(), file)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", file, err), os.Remove(w.Name()))
	}
	return nil
}

func syncFolder(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
