package deploy

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Effect is what the process must do to use a changed file.
type Effect int

// From the largest effect to the smallest.
const (
	Restart Effect = iota // the zero value, because it is always sufficient
	Reload
	None
)

// String returns the word that the plan shows.
func (e Effect) String() string { return [...]string{"restart", "reload", "none"}[e] }

// File is a file to install on a node.
type File struct {
	Path   string // absolute
	Data   []byte
	Secret bool // mode 0600, owner kaiku; the contents are never shown
	// Effect returns the effect of replacing the contents before, which is nil if the file is new.
	// A nil Effect means Restart.
	Effect func(before []byte) Effect
	// Replace reports whether to replace the contents before if they differ. An error stops the
	// deploy. A nil Replace always replaces. The contents of a secret are read from the node only
	// if Replace is set.
	Replace func(before []byte) (bool, error)
}

func (f *File) sum() string {
	s := sha256.Sum256(f.Data)
	return hex.EncodeToString(s[:])
}

func (f *File) mode() uint32 {
	if f.Secret {
		return 0o600
	}
	return 0o644
}

// isText reports whether a diff of the file is useful.
func (f *File) isText() bool {
	return !f.Secret && len(f.Data) < 1<<20 && !bytes.ContainsRune(f.Data, 0)
}

// CheckPath returns an error for a path that would be ambiguous in a script's arguments or in a
// list of lines.
func CheckPath(p string) error {
	ok := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			strings.ContainsRune("/._-+@ ", c)
	}
	if !strings.HasPrefix(p, "/") || path.Clean(p) != p || p == "/" ||
		strings.ContainsFunc(p, func(c rune) bool { return !ok(c) }) {
		return fmt.Errorf("%q is not a valid path on a node: want an absolute path of letters, digits and ._-+@",
			p)
	}
	return nil
}

//go:embed systemd/*
var unitFiles embed.FS

// Paths on a node.
const (
	etc         = "/etc/kaiku"
	manifest    = etc + "/.deployed"
	socketUnit  = "/etc/systemd/system/kaiku.socket"
	serviceUnit = "/etc/systemd/system/kaiku.service"
	sysctlFile  = "/etc/sysctl.d/60-kaiku.conf"
	stubFile    = "/etc/systemd/resolved.conf.d/kaiku.conf"
)

// noStub makes systemd-resolved release 127.0.0.53:53 and 127.0.0.54:53. With these in use, a name
// server can't listen on port 53 of all addresses.
const noStub = "[Resolve]\nDNSStubListener=no\n"

// needsPort53 reports whether the node listens on an address that conflicts with those of
// systemd-resolved: port 53 of all addresses, of 127.0.0.53 or of 127.0.0.54.
func (s Service) needsPort53() bool {
	return slices.ContainsFunc(s.Listen, func(l string) bool {
		a, err := net.ResolveTCPAddr("tcp", l)
		if err != nil || a.Port != 53 {
			return false
		}
		return a.IP == nil || a.IP.IsUnspecified() || a.IP.Equal(net.IPv4(127, 0, 0, 53)) ||
			a.IP.Equal(net.IPv4(127, 0, 0, 54))
	})
}

// Service configures the systemd units of a node.
type Service struct {
	// Listen are the TCP addresses that systemd listens on, such as ":80" or "192.0.2.1:80".
	Listen []string
	// Binds are all addresses that the node listens on. A deploy fails before it changes anything
	// if another program uses one.
	Binds []Bind
	// Memory is the memory limit of the process in bytes; 0 means no limit.
	Memory int64
	// Drain is how long requests may take to finish when the process stops; 0 means 30 s.
	Drain time.Duration
	// Writable are the folders that the process writes to, besides /var/lib/kaiku and
	// /var/log/kaiku. Deploy creates missing ones.
	Writable []string
	// Program is the path of the binary; "" means /usr/local/bin/kaiku.
	Program string
	// Environment is a file of environment variables for the process; "" means none.
	Environment string
}

// StopSeconds returns how long systemd waits for the process to stop, in seconds.
func (n *Node) StopSeconds() int {
	drain := n.Service.Drain
	if drain == 0 {
		drain = 30 * time.Second
	}
	return int((drain + 15*time.Second) / time.Second)
}

// MemoryLimit returns the value for GOMEMLIMIT in bytes: 80 % of Memory, as Go does not count all
// memory of the process.
func (n *Node) MemoryLimit() int64 { return n.Service.Memory / 10 * 8 }

// allFiles returns the node's own files and those that every node has.
func (n *Node) allFiles() ([]*File, error) {
	out := make([]*File, 0, len(n.Files)+4)
	for i := range n.Files {
		out = append(out, &n.Files[i])
	}
	units, err := n.Units()
	if err != nil {
		return nil, err
	}
	for i := range units {
		out = append(out, &units[i])
	}
	for _, folder := range n.Writable {
		if err := CheckPath(folder); err != nil {
			return nil, err
		}
	}
	var list []string
	for _, f := range out {
		if err := CheckPath(f.Path); err != nil {
			return nil, err
		}
		list = append(list, f.Path+"\n")
	}
	list = append(list, manifest+"\n")
	slices.Sort(list)
	if twice := len(list) - len(slices.Compact(slices.Clone(list))); twice > 0 {
		return nil, fmt.Errorf("node %s gets two files with the same path: %v", n.Name, list)
	}
	out = append(out, &File{Path: manifest, Data: []byte(strings.Join(list, "")),
		Effect: func([]byte) Effect { return None }})
	slices.SortFunc(out, func(a, b *File) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// Units returns the files for systemd and sysctl: kaiku.service, 60-kaiku.conf, kaiku.socket if
// systemd listens, and, on a name server, the file that makes systemd-resolved release its port.
// The last one is installed even without systemd-resolved, in case that is installed later.
func (n *Node) Units() ([]File, error) {
	units := []struct{ name, path string }{{"kaiku.service", serviceUnit}, {"60-kaiku.conf", sysctlFile}}
	if len(n.Service.Listen) > 0 {
		units = append(units, struct{ name, path string }{"kaiku.socket", socketUnit})
	}
	for _, text := range slices.Concat([]string{n.Name, n.Program, n.Environment}, n.Listen, n.Writable) {
		if strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }) {
			return nil, fmt.Errorf("%q is not valid in a systemd unit: want one line of visible characters", text)
		}
	}
	values := n.unitValues()
	var out []File
	for _, u := range units {
		text, err := unitFiles.ReadFile("systemd/" + u.name)
		if err != nil {
			return nil, err
		}
		f := File{Path: u.path, Data: []byte(values.Replace(string(text)))}
		if u.path == sysctlFile {
			f.Effect = func([]byte) Effect { return None }
		}
		out = append(out, f)
	}
	if n.Service.needsPort53() {
		out = append(out, File{Path: stubFile, Data: []byte(noStub), Effect: func([]byte) Effect { return None }})
	}
	return out, nil
}

// unitValues returns the values for the words in braces in the unit templates. A word at the
// beginning of a line stands for whole lines, or for none.
func (n *Node) unitValues() *strings.Replacer {
	var node, socket, environment, writable, memory, listen string
	if n.Environment == "" {
		node = ", node " + n.Name
	} else {
		environment = "EnvironmentFile=" + n.Environment + "\n"
	}
	if len(n.Listen) > 0 {
		socket = " kaiku.socket\nRequires=kaiku.socket"
	}
	for _, l := range n.Listen {
		if host, port, err := net.SplitHostPort(l); err == nil && host == "" {
			l = port // systemd reads a bare port as all addresses of both families
		}
		listen += "ListenStream=" + l + "\n"
	}
	for _, folder := range n.Writable {
		writable += `ReadWritePaths="-` + folder + "\"\n"
	}
	if n.Memory > 0 {
		memory = fmt.Sprintf("MemoryMax=%d\n# Go collects harder before the kernel ends the process.\nEnvironment=GOMEMLIMIT=%d\n", n.Memory, n.MemoryLimit())
	}
	return strings.NewReplacer("{{node}}", node, "{{name}}", n.Name, "{{socket}}", socket, "{{environment}}",
		environment, "{{program}}", cmp.Or(n.Program, "/usr/local/bin/kaiku"),
		"{{stop}}", strconv.Itoa(n.StopSeconds()), "{{writable}}", writable, "{{memory}}", memory, "{{listen}}", listen)
}

// packFiles returns the input of stage.sh: a tar of the files to stage, and the lists of what to do
// with them.
func packFiles(files []*File, removed, folders []string) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	add := func(name string, mode uint32, data []byte) error {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: int64(mode), Size: int64(len(data)),
			Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		_, err := w.Write(data)
		return err
	}
	var sums, paths, secrets, gone, made strings.Builder
	for _, f := range files {
		if err := add("."+f.Path, f.mode(), f.Data); err != nil {
			return nil, err
		}
		fmt.Fprintf(&sums, "%s  .%s\n", f.sum(), f.Path)
		fmt.Fprintln(&paths, f.Path)
		if f.Secret {
			fmt.Fprintln(&secrets, f.Path)
		}
	}
	for _, p := range removed {
		fmt.Fprintln(&gone, p)
	}
	for _, p := range folders {
		fmt.Fprintln(&made, p)
	}
	lists := map[string]string{".sums": sums.String(), ".files": paths.String(), ".secrets": secrets.String(),
		".removed": gone.String(), ".folders": made.String()}
	for name, text := range lists {
		if err := add(name, 0o600, []byte(text)); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
