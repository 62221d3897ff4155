package deploy

import (
	"cmp"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Binary is a kaiku program to install on nodes.
type Binary struct {
	Path    string // local path
	SHA256  string // hexadecimal
	Size    int64  // in bytes
	Machine string // what `uname -m` prints on a machine that can run it; "" disables the check
}

// machines maps ELF machine types to the names that uname prints.
var machines = map[elf.Machine]string{elf.EM_X86_64: "x86_64", elf.EM_AARCH64: "aarch64", elf.EM_RISCV: "riscv64",
	elf.EM_PPC64: "ppc64le", elf.EM_S390: "s390x"}

// OpenBinary reads the checksum, size and machine of a program. It returns an error if the program
// is not a Linux executable.
func OpenBinary(path string) (*Binary, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := &Binary{Path: path}
	program, err := elf.NewFile(f)
	if err != nil {
		return nil, fmt.Errorf("%s is not a Linux program: build one with GOOS=linux make build, and give it with --binary", path)
	}
	if b.Machine = machines[program.Machine]; b.Machine == "" {
		return nil, fmt.Errorf("%s is for %s, which Kaiku does not support: want amd64 or arm64", path, program.Machine)
	}
	if program.Section(".interp") != nil {
		return nil, fmt.Errorf("%s is not a static program, and a node may not have its libraries: build it with CGO_ENABLED=0, as make build does", path)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	h := sha256.New()
	if b.Size, err = io.Copy(h, f); err != nil {
		return nil, err
	}
	b.SHA256 = hex.EncodeToString(h.Sum(nil))
	return b, nil
}

// buildRevision returns the source revision that is recorded in a program, or "" if there is none.
func buildRevision(file string) string {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return info.Main.Version + " " + s.Value
		}
	}
	return info.Main.Version
}

// binaryName matches the names of programs in a folder, as `make build`, `make release` and a
// release archive name them. Other files in the folder, such as packages and checksums, are
// ignored.
var binaryName = regexp.MustCompile(`^kaiku$|^kaiku-linux-([a-z0-9]+)$|^kaiku_[^_]+_(?:linux_)?([a-z0-9]+)$`)

// architectures maps Go's names of architectures to the names that uname prints.
var architectures = map[string]string{"amd64": "x86_64", "arm64": "aarch64", "riscv64": "riscv64", "ppc64le": "ppc64le",
	"s390x": "s390x"}

// OpenBinaries opens programs, at most one for each kind of machine. A path may be a folder that
// contains programs.
func OpenBinaries(paths ...string) ([]*Binary, error) {
	var out []*Binary
	builds := map[*Binary]string{}
	add := func(path string) error {
		b, err := OpenBinary(path)
		if err != nil {
			return err
		}
		for _, o := range out {
			if o.SHA256 == b.SHA256 {
				return nil
			}
			if o.Machine == b.Machine {
				return fmt.Errorf("%s and %s are both for %s: give only one", o.Path, b.Path, b.Machine)
			}
			if x, y := builds[o], buildRevision(path); x != y && x != "" && y != "" {
				return fmt.Errorf("%s and %s are of different versions: %s and %s", o.Path, b.Path, x, y)
			}
		}
		out, builds[b] = append(out, b), buildRevision(path)
		return nil
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			if err := add(path); err != nil {
				return nil, err
			}
			continue
		}
		files, err := findPrograms(path)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			if err := add(f); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// findPrograms returns the paths of the programs in a folder. If a name contains an architecture,
// the ELF header must match it.
func findPrograms(folder string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		name := binaryName.FindStringSubmatch(e.Name())
		path := filepath.Join(folder, e.Name())
		if info, err := os.Stat(path); name == nil || err != nil || !info.Mode().IsRegular() {
			continue
		}
		if arch := cmp.Or(name[1], name[2]); arch != "" {
			b, err := OpenBinary(path)
			if err != nil {
				return nil, err
			}
			if want := architectures[arch]; b.Machine != want {
				return nil, fmt.Errorf("%s is a program for %s, but its name says %s", path, b.Machine,
					cmp.Or(want, arch))
			}
		}
		out = append(out, path)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the folder %s has no program: want kaiku, or kaiku-linux-amd64 and kaiku-linux-arm64 as make release writes them", folder)
	}
	return out, nil
}

// Version returns the name of the version's folder on nodes: the first 16 digits of the checksum.
func (b *Binary) Version() string { return b.SHA256[:16] }

// upload copies the binary to a node unless the node has it. It continues an upload that was
// interrupted, even in another deploy.
func (b *Binary) upload(ctx context.Context, c *Conn, w *progress) error {
	f, err := os.Open(b.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	size := strconv.FormatInt(b.Size, 10)
	return c.retry(ctx, func() error {
		out, err := c.runOnce(ctx, script("part"), []string{b.Version(), b.SHA256, size}, nil)
		if err != nil {
			return err
		}
		at, have, err := parsePart(out, b.Size)
		if err != nil || have {
			return err
		}
		args := []string{b.Version(), b.SHA256, strconv.FormatInt(at, 10), size}
		_, err = c.runOnce(ctx, script("append"), args, &uploadReader{from: io.NewSectionReader(f, at, b.Size-at),
			sent: at, size: b.Size, progress: w})
		return err
	})
}

// parsePart parses the output of part.sh.
func parsePart(out []byte, size int64) (at int64, have bool, err error) {
	text := strings.TrimSpace(string(out))
	if text == "have" {
		return 0, true, nil
	}
	at, err = strconv.ParseInt(text, 10, 64)
	if err != nil || at < 0 || at > size {
		return 0, false, permanentError{fmt.Errorf("read how much of the binary the node has: unexpected output %.100q", text)}
	}
	return at, false, nil
}
