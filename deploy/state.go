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

// state is what a node said that is on it.
type state struct {
	kernel, machine string
	systemd         bool
	lacks           []string // programs
	free            int64    // bytes where binaries go
	current         string   // version that the link is to; "" if there is none
	running         string   // version of the process; "" if none runs
	versions        []string
	binaries        map[string]string // SHA-256 by version, of those that are wanted and there
	unfinished      bool              // a deploy did not come to its end
	active          bool
	enabled         bool
	pid             int                 // of the process; 0 if none runs
	listens         []string            // what kaiku.socket listens on, as its unit has it
	sockets         []socket            // all listeners; none if the node can't tell
	deployed        []string            // paths that a deploy put there
	files           map[string]fileInfo // by path
}

// fileInfo is what is known of a file on a node.
type fileInfo struct {
	mode uint32
	sum  string // SHA-256 in hexadecimal
}

// readState asks a node what is on it, about some paths and binaries.
func readState(ctx context.Context, c *Conn, binaries []*Binary, paths []string) (*state, error) {
	var versions []string
	for _, b := range binaries {
		versions = append(versions, b.Version())
	}
	out, err := c.Run(ctx, script("read"), append([]string{strings.Join(versions, " ")}, paths...), nil)
	if err != nil {
		return nil, fmt.Errorf("read what is there: %w", err)
	}
	return parseState(out)
}

// parseState reads what read.sh wrote.
func parseState(out []byte) (*state, error) {
	st := &state{files: map[string]fileInfo{}, binaries: map[string]string{}}
	ended := false
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		if ended {
			return nil, errors.New("the node said something after its end")
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
			st.lacks = append(st.lacks, value)
		case "free":
			st.free, err = strconv.ParseInt(value, 10, 64)
			if st.free < 0 || st.free > 1<<52 {
				err = errors.New("no number of KiB")
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
			if s, err := parseSocket(value); err == nil { // what ss may say beside is of no use here
				st.sockets = append(st.sockets, s)
			}
		case "active":
			st.active = value == "active"
		case "enabled":
			st.enabled = value == "enabled"
		case "deployed":
			if err = CheckPath(value); err == nil { // it may be removed
				st.deployed = append(st.deployed, value)
			}
		case "file":
			err = st.file(value)
		case "end":
			ended = true
		default:
			err = errors.New("unknown")
		}
		if err != nil {
			return nil, fmt.Errorf("the node said %.100q: %w", lines.Text(), err)
		}
	}
	if !ended {
		return nil, errors.New("the node did not say all")
	}
	return st, nil
}

// fleetSum is that of the fleet file that is there; "" if none is.
func (st *state) fleetSum() string {
	if f, ok := st.files[fleetFile]; ok {
		return f.sum[:16]
	}
	return ""
}

// file takes "MODE SUM PATH".
func (st *state) file(line string) error {
	mode, rest, _ := strings.Cut(line, " ")
	sum, path, _ := strings.Cut(rest, " ")
	m, err := strconv.ParseUint(mode, 8, 12)
	if err != nil {
		return err
	}
	if len(sum) != 64 {
		return errors.New("no SHA-256")
	}
	st.files[path] = fileInfo{uint32(m), sum}
	return CheckPath(path)
}

// usable tells why a node can't be deployed to, by what it is and for a binary that needs so many
// bytes; nil if it can.
func (st *state) usable(need int64) error {
	var errs []error
	if st.kernel != "Linux" {
		errs = append(errs, fmt.Errorf("it runs %s: want Linux", st.kernel))
	}
	if !st.systemd {
		errs = append(errs, errors.New("systemd does not run there: want Debian or Ubuntu on a machine of its own, no container"))
	}
	if len(st.lacks) > 0 {
		errs = append(errs, fmt.Errorf("it lacks %s", strings.Join(st.lacks, ", ")))
	}
	if need += spare; need > spare && st.free < need {
		errs = append(errs, fmt.Errorf("its disk is full: /usr/local/lib/kaiku has %d MiB free, and %d MiB are needed; nothing was changed", st.free>>20, need>>20))
	}
	return errors.Join(errs...)
}

// spare is what stays free on a node's disk.
const spare = 16 << 20
