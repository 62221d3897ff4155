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

// Effect is what the process needs to take a changed file.
type Effect int

// From the most to the least.
const (
	Restart Effect = iota // the zero value, as it is never wrong
	Reload
	None
)

// String is what the plan says.
func (e Effect) String() string { return [...]string{"restart", "reload", "none"}[e] }

// File is a file on a node.
type File struct {
	Path   string // absolute
	Data   []byte
	Secret bool // mode 0600 and of the user kaiku; never shown
	// Effect is what a change from before needs; nil is Restart. before is nil for a file that was
	// not there.
	Effect func(before []byte) Effect
	// Replace is asked whether it replaces the file that a node has, if that is another one. An
	// error refuses the deploy. nil replaces it; of a secret, before is only read from the node for
	// Replace.
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

// isText reports whether a diff of the file is of use.
func (f *File) isText() bool {
	return !f.Secret && len(f.Data) < 1<<20 && !bytes.ContainsRune(f.Data, 0)
}

// CheckPath refuses paths that scripts on the node, or lists of lines, could take for something
// else.
func CheckPath(p string) error {
	ok := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("/._-+@ ", c)
	}
	if !strings.HasPrefix(p, "/") || path.Clean(p) != p || p == "/" || strings.ContainsFunc(p, func(c rune) bool { return !ok(c) }) {
		return fmt.Errorf("%q can't be the path of a file on a node: want an absolute one of letters, digits and ._-+@", p)
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

// noStub keeps systemd-resolved off 127.0.0.53:53 and 127.0.0.54:53, which would keep a name server
// off port 53 of all addresses.
const noStub = "[Resolve]\nDNSStubListener=no\n"

// needsPort53 reports whether a node listens where systemd-resolved would.
func (s Service) needsPort53() bool {
	return slices.ContainsFunc(s.Listen, func(l string) bool {
		a, err := net.ResolveTCPAddr("tcp", l)
		if err != nil || a.Port != 53 {
			return false
		}
		return a.IP == nil || a.IP.IsUnspecified() || a.IP.Equal(net.IPv4(127, 0, 0, 53)) || a.IP.Equal(net.IPv4(127, 0, 0, 54))
	})
}

// Service is what systemd is told of a node.
type Service struct {
	// Listen are TCP addresses that systemd listens on, as :80 or 192.0.2.1:80.
	Listen []string
	// Binds are all addresses that the node listens on: a program that has one of them is found
	// before anything is changed.
	Binds []Bind
	// Memory is the most that the process may use, in bytes; 0 is not limited.
	Memory int64
	// Drain is how long requests under way may take at the end; 0 is 30 s.
	Drain time.Duration
	// Writable are folders beside /var/lib/kaiku and /var/log/kaiku that the process writes to.
	// Deploy makes those that are not there.
	Writable []string
	// Program is the path of the binary; "" is /usr/local/bin/kaiku.
	Program string
	// Environment is a file of variables for the process; "" is none.
	Environment string
}

// StopSeconds is how long systemd waits for the end of the process.
func (n *Node) StopSeconds() int {
	drain := n.Service.Drain
	if drain == 0 {
		drain = 30 * time.Second
	}
	return int((drain + 15*time.Second) / time.Second)
}

// MemoryLimit is what Go is told to stay below: room for what Go doesn't count.
func (n *Node) MemoryLimit() int64 { return n.Service.Memory / 10 * 8 }

// all are the files of a node: its own, and those that every node has.
func (n *Node) all() ([]*File, error) {
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
	out = append(out, &File{Path: manifest, Data: []byte(strings.Join(list, "")), Effect: func([]byte) Effect { return None }})
	slices.SortFunc(out, func(a, b *File) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// Units are the files of systemd and of the kernel's settings, as the node gets them:
// kaiku.service, 60-kaiku.conf, kaiku.socket if it listens, and, on a name server, what keeps
// systemd-resolved off its port. That one is there whether systemd-resolved runs or not: it may be
// installed later.
func (n *Node) Units() ([]File, error) {
	units := []struct{ name, path string }{{"kaiku.service", serviceUnit}, {"60-kaiku.conf", sysctlFile}}
	if len(n.Service.Listen) > 0 {
		units = append(units, struct{ name, path string }{"kaiku.socket", socketUnit})
	}
	for _, text := range slices.Concat([]string{n.Name, n.Program, n.Environment}, n.Listen, n.Writable) {
		if strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }) {
			return nil, fmt.Errorf("%q can't stand in a unit: it is not one line of visible characters", text)
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

// unitValues are what stands in units in place of the words in braces. Those at the begin of a line
// are whole lines, or none.
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
			l = port // which systemd takes for all addresses of both families
		}
		listen += "ListenStream=" + l + "\n"
	}
	for _, folder := range n.Writable {
		writable += `ReadWritePaths="-` + folder + "\"\n"
	}
	if n.Memory > 0 {
		memory = fmt.Sprintf("MemoryMax=%d\n# Go collects harder before the kernel ends the process.\nEnvironment=GOMEMLIMIT=%d\n", n.Memory, n.MemoryLimit())
	}
	return strings.NewReplacer("{{node}}", node, "{{name}}", n.Name, "{{socket}}", socket, "{{environment}}", environment, "{{program}}", cmp.Or(n.Program, "/usr/local/bin/kaiku"),
		"{{stop}}", strconv.Itoa(n.StopSeconds()), "{{writable}}", writable, "{{memory}}", memory, "{{listen}}", listen)
}

// pack makes what stage.sh takes: the files to lay aside, and the lists of what to do with them.
func pack(files []*File, removed, folders []string) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	add := func(name string, mode uint32, data []byte) error {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: int64(mode), Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
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
	lists := map[string]string{".sums": sums.String(), ".files": paths.String(), ".secrets": secrets.String(), ".removed": gone.String(), ".folders": made.String()}
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
