package config

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kaiku-cdn/kaiku/geodns"
)

// maxZoneText is the largest total size of a zone's files in bytes.
const maxZoneText = 1 << 30

// zoneFiles are the files of a zone: the one that the fleet file names, and those that it includes.
// Included files are in the folder of the first one or below it.
type zoneFiles struct {
	name  string // of the zone
	file  string // the path of the first file
	zone  *geodns.Zone
	order []string                     // names as in $INCLUDE; the first is file
	texts map[string]string            // by name, while they are needed
	sums  map[string][sha256.Size]byte // by name, of the files that could be read
	left  int64                        // what is left of maxZoneText
}

func newZoneFiles(name, file string) *zoneFiles {
	return &zoneFiles{name: name, file: file, texts: map[string]string{}, sums: map[string][sha256.Size]byte{},
		left: maxZoneText}
}

// path returns the path of a file of the zone.
func (z *zoneFiles) path(name string) string {
	if name == z.file {
		return name
	}
	return filepath.Join(filepath.Dir(z.file), name)
}

// zoneNames has the names of a zone's files.
type zoneNames struct {
	index int // of the zone, in the fleet file
	file  string
	order []string
}

// included returns the files that the zone includes, by their names there.
func (z *zoneNames) included() []string { return z.order[min(1, len(z.order)):] }

// ZoneFiles returns the files of all zones, with included files, as the fleet file would name them.
func (f *Fleet) ZoneFiles() []string {
	var files []string
	for _, z := range f.GeoDNS.Zones {
		files = append(files, z.File)
	}
	for _, z := range f.zoneNames {
		for _, name := range z.included() {
			files = append(files, path.Join(path.Dir(f.GeoDNS.Zones[z.index].File), name))
		}
	}
	return files
}

// read returns the text of a file. Each file is read once.
func (z *zoneFiles) read(name string) (string, error) {
	if text, done := z.texts[name]; done {
		return text, nil
	}
	if !slices.Contains(z.order, name) {
		z.order = append(z.order, name)
	}
	text, err := z.load(name)
	if err != nil {
		return "", err
	}
	if utf16(text) {
		return "", errors.New(inUTF16)
	}
	if z.texts == nil {
		z.texts = map[string]string{}
	}
	z.sums[name] = sha256.Sum256(text)
	z.texts[name] = string(bytes.TrimPrefix(text, []byte(byteOrderMark)))
	return z.texts[name], nil
}

// load reads a file from disk. It refuses files outside of the zone's folder, whether the path is
// absolute or has .. or a symbolic link in it, and everything that is not a regular file.
func (z *zoneFiles) load(name string) ([]byte, error) {
	if name == z.file {
		if err := readable(name); err != nil {
			return nil, err
		}
		r, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		return z.take(r)
	}
	root, err := os.OpenRoot(filepath.Dir(z.file))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	info, err := root.Stat(name)
	switch {
	case err != nil && (filepath.IsAbs(name) || strings.Contains(err.Error(), "escapes")):
		return nil, fmt.Errorf("it is outside of the zone's folder %s, from which alone a zone includes files",
			filepath.Dir(z.file))
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a file")
	}
	r, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	return z.take(r)
}

func (z *zoneFiles) take(r *os.File) ([]byte, error) {
	defer r.Close()
	info, err := r.Stat()
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	buf.Grow(int(min(info.Size(), z.left)) + bytes.MinRead) // avoids copies of a large file while the buffer grows
	_, err = buf.ReadFrom(io.LimitReader(r, z.left+1))
	text := buf.Bytes()
	if z.left -= int64(len(text)); err == nil && z.left < 0 {
		err = fmt.Errorf("the files of the zone have more than %d bytes", maxZoneText)
	}
	return text, err
}

// same reports whether the files are unchanged since the zone was read from them.
func (z *zoneFiles) same(before *zoneFiles) bool {
	if before == nil || before.zone == nil || before.file != z.file || len(before.order) == 0 {
		return false
	}
	for _, name := range before.order {
		if _, err := z.read(name); err != nil || z.sums[name] != before.sums[name] {
			return false
		}
	}
	return true
}

// parse parses the zone. It returns all errors.
func (z *zoneFiles) parse() (errs []error) {
	zone, wrong := geodns.ReadZone(z.name, z.file, z.read)
	for _, e := range wrong {
		errs = append(errs, &fileError{z.path(e.File), e.Line, e.Col, e.Msg, e.Text})
	}
	z.zone = zone
	return errs
}

// note returns an error about a line of the zone.
func (z *zoneFiles) note(line int, format string, a ...any) *fileError {
	name, at := z.zone.At(line)
	text, err := z.read(name) // reads the text again if it was dropped
	if err != nil {
		text = ""
	}
	return &fileError{z.path(name), at, 1, fmt.Sprintf(format, a...), lineOf(text, at)}
}

// lineOf returns a line of a text, counted from 1.
func lineOf(text string, n int) string {
	for ; n > 1; n-- {
		_, text, _ = strings.Cut(text, "\n")
	}
	line, _, _ := strings.Cut(text, "\n")
	return strings.TrimRight(line, "\r")
}

// readZone reads a zone and its included files, and adds its errors to those of the fleet file. The
// result's zone is nil if it can't be served.
func (f *Fleet) readZone(i int, at string, z *Zone) *zoneFiles {
	files := newZoneFiles(z.Name, f.LocalFile(z.File))
	defer func() { f.zoneNames = append(f.zoneNames, zoneNames{i, files.file, files.order}) }()
	before := f.keep.had(z.Name)
	if files.same(before) {
		files.zone, files.order = before.zone, before.order
	} else if _, err := files.read(files.file); err != nil {
		if err.Error() == inUTF16 {
			f.file.errs = append(f.file.errs, &fileError{files.file, 1, 1, inUTF16, ""})
		} else {
			f.errorf(at+".file", "%s", unread(files.file, err))
		}
		return files
	} else if errs := files.parse(); len(errs) > 0 {
		f.file.errs = append(f.file.errs, errs...)
		return files
	}
	f.checkZone(z, files.zone, files)
	return files
}
