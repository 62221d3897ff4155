package deploy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// state is the state of a node as read.sh reports it.
type state struct {
	kernel, machine string
	systemd         bool
	missing         []string // required programs that are missing
	free            int64    // free bytes where binaries are installed
	current         string   // version that the symbolic link points to; "" if there is none
	running         string   // version of the process; "" if it does not run
	versions        []string
	binaries        map[string]string // SHA-256 of each requested version that the node has
	unfinished      bool              // a deploy was interrupted
	active          bool
	enabled         bool
	pid             int                 // of the process; 0 if it does not run
	listens         []string            // addresses in the unit kaiku.socket
	sockets         []socket            // all listening sockets; empty if unknown
	deployed        []string            // paths of the files that deploys installed
	files           map[string]fileInfo // by path
}

// fileInfo describes a file on a node.
type fileInfo struct {
	mode uint32
	sum  string // SHA-256 in hexadecimal
}

// readState reads the state of a node, for the given binaries and paths.
func readState(ctx context.Context, c *Conn, binaries []*Binary, paths []string) (*state, error) {
	var versions []string
	for _, b := range binaries {
		versions = append(versions, b.Version())
	}
	out, err := c.Run(ctx, script("read"), append([]string{strings.Join(versions, " ")}, paths...), nil)
	if err != nil {
		return nil, fmt.Errorf("read its state: %w", err)
	}
	return parseState(out)
}

// parseState parses the output of read.sh.
func parseState(out []byte) (*state, error) {
	st := &state{files: map[string]fileInfo{}, binaries: map[string]string{}}
	ended := false
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		if ended {
			return nil, errors.New("unexpected output of the node after its last line")
		}
		key, value, _ := strings.Cut(lines.Text(), " ")
		var err error
		switch key {
		case "kernel":
			st.kernel = value
		case "machine":
			st.machine = value
		case "systemd":
			st.systemd = true
		case "lacks":
			st.missing = append(st.missing, value)
		case "free":
			st.free, err = strconv.ParseInt(value, 10, 64)
			if st.free < 0 || st.free > 1<<52 {
				err = errors.New("not a number of KiB")
			}
			st.free <<= 10
		case "current":
			st.current = value
		case "running":
			st.running = value
		case "version":
			st.versions = append(st.versions, value)
		case "binary":
			version, sum, _ := strings.Cut(value, " ")
			st.binaries[version] = sum
		case "unfinished":
			st.unfinished = true
		case "pid":
			st.pid, err = strconv.Atoi(value)
		case "listens":
			st.listens = append(st.listens, value)
		case "socket":
			if s, err := parseSocket(value); err == nil { // other output of ss is ignored
				st.sockets = append(st.sockets, s)
			}
		case "active":
			st.active = value == "active"
		case "enabled":
			st.enabled = value == "enabled"
		case "deployed":
			if err = CheckPath(value); err == nil { // the path may be deleted later
				st.deployed = append(st.deployed, value)
			}
		case "file":
			err = st.parseFile(value)
		case "end":
			ended = true
		default:
			err = errors.New("unknown keyword")
		}
		if err != nil {
			return nil, fmt.Errorf("unexpected output of the node: %.100q: %w", lines.Text(), err)
		}
	}
	if !ended {
		return nil, errors.New("the output of the node is incomplete")
	}
	return st, nil
}

// fleetSum returns the checksum of the current fleet file, or "" if there is none.
func (st *state) fleetSum() string {
	if f, ok := st.files[fleetFile]; ok {
		return f.sum[:16]
	}
	return ""
}

// parseFile parses "MODE SUM PATH".
func (st *state) parseFile(line string) error {
	mode, rest, _ := strings.Cut(line, " ")
	sum, path, _ := strings.Cut(rest, " ")
	m, err := strconv.ParseUint(mode, 8, 12)
	if err != nil {
		return err
	}
	if len(sum) != 64 {
		return errors.New("not a SHA-256")
	}
	st.files[path] = fileInfo{uint32(m), sum}
	return CheckPath(path)
}

// checkUsable returns an error if the node can't be deployed to. need is the size of the binary in
// bytes.
func (st *state) checkUsable(need int64) error {
	var errs []error
	if st.kernel != "Linux" {
		errs = append(errs, fmt.Errorf("it runs %s: want Linux", st.kernel))
	}
	if !st.systemd {
		errs = append(errs, errors.New("it doesn't run systemd: want Debian or Ubuntu on a machine or virtual machine, not in a container"))
	}
	if len(st.missing) > 0 {
		errs = append(errs, fmt.Errorf("it has no %s: install that", strings.Join(st.missing, ", ")))
	}
	if need += minFreeDisk; need > minFreeDisk && st.free < need {
		errs = append(errs, fmt.Errorf("its disk is full: /usr/local/lib/kaiku has %d MiB free, and %d MiB are needed; nothing was changed", st.free>>20, need>>20))
	}
	return errors.Join(errs...)
}

// minFreeDisk is how many bytes must stay free on a node's disk.
const minFreeDisk = 16 << 20
