package deploy

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Binary is the program that nodes get.
type Binary struct {
	Path    string // here
	SHA256  string // in hexadecimal
	Size    int64
	Machine string // what `uname -m` says where it runs; "" is not checked
}

// machines are the names that uname has for what ELF files are for.
var machines = map[elf.Machine]string{elf.EM_X86_64: "x86_64", elf.EM_AARCH64: "aarch64", elf.EM_RISCV: "riscv64", elf.EM_PPC64: "ppc64le", elf.EM_S390: "s390x"}

// OpenBinary reads what is needed to know of a program. It fails for one that doesn't run on Linux.
func OpenBinary(path string) (*Binary, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := &Binary{Path: path}
	program, err := elf.NewFile(f)
	if err != nil {
		return nil, fmt.Errorf("%s is no program for Linux: build one with GOOS=linux make build, and give it by --binary", path)
	}
	if b.Machine = machines[program.Machine]; b.Machine == "" {
		return nil, fmt.Errorf("%s is for %s, which is not known here", path, program.Machine)
	}
	if program.Section(".interp") != nil {
		return nil, fmt.Errorf("%s is not static, and may miss its libraries on a node: build it with CGO_ENABLED=0, as make build does", path)
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

// Version is what nodes keep it by: the begin of its checksum.
func (b *Binary) Version() string { return b.SHA256[:16] }

// upload brings the binary to a node, unless it is there. What was sent of it before, in this deploy or another, is not sent again.
func (b *Binary) upload(ctx context.Context, c *Conn, w *waiting) error {
	f, err := os.Open(b.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	size := strconv.FormatInt(b.Size, 10)
	return c.again(ctx, func() error {
		out, err := c.once(ctx, script("part"), []string{b.Version(), b.SHA256, size}, nil)
		if err != nil {
			return err
		}
		at, have, err := parsePart(out, b.Size)
		if err != nil || have {
			return err
		}
		args := []string{b.Version(), b.SHA256, strconv.FormatInt(at, 10), size}
		_, err = c.once(ctx, script("append"), args, &sending{from: io.NewSectionReader(f, at, b.Size-at), sent: at, size: b.Size, w: w})
		return err
	})
}

// parsePart reads what part.sh wrote.
func parsePart(out []byte, size int64) (at int64, have bool, err error) {
	text := strings.TrimSpace(string(out))
	if text == "have" {
		return 0, true, nil
	}
	at, err = strconv.ParseInt(text, 10, 64)
	if err != nil || at < 0 || at > size {
		return 0, false, errDenied{fmt.Errorf("the node said %.100q: want how much of the binary is there", text)}
	}
	return at, false, nil
}
