package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/deploy"
)

// nodeDir is where a node has the fleet file, and what it names by relative paths.
const nodeDir = "/etc/kaiku"

// nodeFile is where a node has a file that the fleet file names.
func nodeFile(p string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	return path.Join(nodeDir, p)
}

// localFile is where the operator has it: what is below /etc/kaiku on nodes may stand beside the
// fleet file.
func (f *Fleet) localFile(p string) string {
	if rest, ok := strings.CutPrefix(path.Clean(p), nodeDir+"/"); ok {
		if beside := filepath.Join(f.dir, rest); exists(beside) {
			return beside
		}
	}
	return f.path(p)
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// deployNodes are the nodes as they shall be.
func (f *Fleet) deployNodes(config string) ([]deploy.Node, error) {
	text, err := os.ReadFile(config)
	if err != nil {
		return nil, err
	}
	var completion bytes.Buffer // asks kaiku itself for what may follow, so that it is the same for all versions
	if err := (&cobra.Command{Use: "kaiku"}).GenBashCompletionV2(&completion, true); err != nil {
		return nil, fmt.Errorf("make the completion of commands: %w", err)
	}
	var out []deploy.Node
	for i := range f.Nodes {
		n := &f.Nodes[i]
		d := deploy.Node{Name: n.Name, SSH: sshOf(n), Phase: phaseOf(n), Edge: n.has(roleEdge), Region: n.Region, Service: f.service(n)}
		d.Files = []deploy.File{{Path: nodeDir + "/fleet.yaml", Data: text, Effect: effectOf(text, n)},
			{Path: "/usr/share/bash-completion/completions/kaiku", Data: completion.Bytes(), Effect: func([]byte) deploy.Effect { return deploy.None }},
			nameFile(n)}
		if err := f.nodeFiles(n, &d.Files); err != nil {
			return nil, fmt.Errorf("files of node %s: %w", n.Name, err)
		}
		out = append(out, d)
	}
	return out, nil
}

// nameFile is where commands that are run on a node find out which one it is.
func nameFile(n *Node) deploy.File {
	return deploy.File{Path: nodeDir + "/node", Data: []byte(nodeVariable + "=" + n.Name + "\n"), Effect: func([]byte) deploy.Effect { return deploy.None }}
}

// sshOf is how a node's machine is reached.
func sshOf(n *Node) string {
	switch {
	case n.SSH != "" || len(n.Addresses) == 0:
		return n.SSH
	case n.Addresses[0].Is6():
		return "root@[" + n.Addresses[0].String() + "]"
	}
	return "root@" + n.Addresses[0].String()
}

func phaseOf(n *Node) deploy.Phase {
	switch {
	case n.has(roleControl):
		return deploy.Control
	case n.has(roleGeoDNS):
		return deploy.NameServer
	}
	return deploy.Edge
}

// nodeFiles adds the files that a node needs for its roles. Every node reads the zones, as it
// checks the fleet file with them.
func (f *Fleet) nodeFiles(n *Node, files *[]deploy.File) error {
	var errs []error
	add := func(p string, secret, may bool, effect func([]byte) deploy.Effect) {
		to := nodeFile(p)
		if p == "" || slices.ContainsFunc(*files, func(f deploy.File) bool { return f.Path == to }) {
			return
		}
		if !path.IsAbs(p) && !strings.HasPrefix(to, nodeDir+"/") {
			errs = append(errs, fmt.Errorf("%s is not below the folder of the fleet file: nodes have all files in %s", p, nodeDir))
			return
		}
		if path.IsAbs(p) && !strings.HasPrefix(to, nodeDir+"/") {
			return // a file of the node's own, as of a package
		}
		data, err := os.ReadFile(f.localFile(p))
		if errors.Is(err, os.ErrNotExist) && (may || path.IsAbs(p)) {
			return // the node may have it
		}
		if err != nil {
			errs = append(errs, err)
			return
		}
		*files = append(*files, deploy.File{Path: to, Data: data, Secret: secret, Effect: effect})
	}
	reloads := func([]byte) deploy.Effect { return deploy.Reload }
	for _, z := range f.GeoDNS.Zones {
		add(z.File, false, false, reloads)
	}
	for _, z := range f.zoneNames {
		for _, name := range z.included() {
			add(path.Join(path.Dir(f.GeoDNS.Zones[z.index].File), name), false, false, reloads)
		}
	}
	add(f.GeoDNS.GeoIP, false, false, reloads)
	if f.usesKey(n) {
		add(f.Secrets.FleetKey, true, true, nil)
	}
	if n.has(roleEdge) || n.Admin != "" {
		add(f.Secrets.AdminToken, true, true, reloads)
		for _, t := range f.Secrets.Tokens {
			add(t.File, true, false, reloads)
		}
	}
	if n.has(roleEdge) {
		for _, c := range f.TLS.Certificates {
			add(c.Cert, false, false, nil)
			add(c.Key, true, false, nil)
		}
		for _, s := range f.Sites {
			add(s.Origin.CA, false, false, nil)
			if c := s.Origin.ClientCertificate; c != nil {
				add(c.Cert, false, false, nil)
				add(c.Key, true, false, nil)
			}
			if a := s.Origin.Auth; a != nil {
				add(a.Secret, true, false, nil)
			}
		}
	}
	return errors.Join(errs...)
}

// service is what systemd is told of a node.
func (f *Fleet) service(n *Node) deploy.Service {
	memory := int64(512 << 20)
	var s deploy.Service
	for _, l := range f.listeners(n) {
		for network, listens := range map[string]bool{"tcp": l.tcp, "udp": l.udp} {
			if listens {
				s.Binds = append(s.Binds, deploy.Bind{Network: network, Addr: l.addr, Key: l.key})
			}
		}
	}
	slices.SortFunc(s.Binds, func(a, b deploy.Bind) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Network, b.Network))
	})
	writes := func(dir string) {
		dir = path.Clean(dir)
		for _, own := range []string{"/var/lib/kaiku", "/var/log/kaiku"} { // systemd makes these
			if dir == own || strings.HasPrefix(dir, own+"/") {
				return
			}
		}
		if path.IsAbs(dir) && !slices.Contains(s.Writable, dir) {
			s.Writable = append(s.Writable, dir)
		}
	}
	if n.has(roleEdge) {
		e := f.edgeOf(n)
		memory += 2*int64(e.Memory) + 512<<20 // Go's heap while it collects; segments that are written
		s.Listen = append(s.Listen, e.HTTP)
		if e.HTTPS != "" {
			s.Listen = append(s.Listen, e.HTTPS)
		}
		s.Drain = time.Duration(e.DrainTimeout)
		if l := e.AccessLog; l != nil && l.File != "-" {
			writes(path.Dir(nodeFile(l.File)))
		}
		writes(e.Data)
	}
	if n.has(roleGeoDNS) {
		memory += 256 << 20
		if f.GeoDNS.Data != "" {
			writes(nodeFile(f.GeoDNS.Data))
		} else {
			writes(f.edgeOf(n).Data)
		}
		s.Listen = append(s.Listen, f.dnsListen()...)
		if l := f.GeoDNS.QueryLog; l != nil && l.File != "-" {
			writes(path.Dir(nodeFile(l.File)))
		}
	}
	if n.has(roleControl) {
		memory += 512 << 20
		writes(nodeFile(f.controlOf(n).Data))
	}
	s.Memory = memory
	return s
}

// effectOf says what the process of a node needs for a changed fleet file: it takes sites and zones
// by itself. With a shield, sites change more than that.
func effectOf(after []byte, n *Node) func(before []byte) deploy.Effect {
	rest := func(text []byte) (*Fleet, bool) {
		f := &Fleet{}
		if doc := decodeYAML("fleet.yaml", text, f); len(doc.errs) > 0 {
			return nil, false
		}
		f.GeoDNS.Zones, f.GeoDNS.Locate, f.GeoDNS.Health = nil, nil, Probe{}
		f.Log = LogSettings{}
		shielded := slices.ContainsFunc(f.Sites, func(s Site) bool { return s.Origin.Shield != "" })
		if n.has(roleEdge) && !shielded {
			f.Sites = nil
		}
		return f, true
	}
	return func(before []byte) deploy.Effect {
		a, ok1 := rest(before)
		b, ok2 := rest(after)
		if ok1 && ok2 && reflect.DeepEqual(a, b) {
			return deploy.Reload
		}
		return deploy.Restart
	}
}
