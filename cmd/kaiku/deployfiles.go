package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/deploy"
)

// deployNodes returns the nodes as a deploy is to leave them.
func deployNodes(f *config.Fleet, fleetFile string) ([]deploy.Node, error) {
	text, err := os.ReadFile(fleetFile)
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
		d := deploy.Node{Name: n.Name, SSH: sshOf(n), Phase: phaseOf(n), Edge: n.Has(config.RoleEdge), Region: n.Region,
			Service: serviceOf(f, n)}
		d.Files = []deploy.File{{Path: config.NodeDir + "/fleet.yaml", Data: text, Effect: effectOf(text, n)},
			{Path: "/usr/share/bash-completion/completions/kaiku", Data: completion.Bytes(),
				Effect: func([]byte) deploy.Effect { return deploy.None }},
			nameFile(n)}
		if err := nodeFiles(f, n, &d.Files); err != nil {
			return nil, fmt.Errorf("files of node %s: %w", n.Name, err)
		}
		out = append(out, d)
	}
	return out, nil
}

// nameFile is the file from which commands on a node learn the node's name.
func nameFile(n *config.Node) deploy.File {
	return deploy.File{Path: config.NodeDir + "/node", Data: []byte(nodeVariable + "=" + n.Name + "\n"),
		Effect: func([]byte) deploy.Effect { return deploy.None }}
}

// sshOf returns the SSH destination of a node's machine.
func sshOf(n *config.Node) string {
	switch {
	case n.SSH != "" || len(n.Addresses) == 0:
		return n.SSH
	case n.Addresses[0].Is6():
		return "root@[" + n.Addresses[0].String() + "]"
	}
	return "root@" + n.Addresses[0].String()
}

func phaseOf(n *config.Node) deploy.Phase {
	switch {
	case n.Has(config.RoleControl):
		return deploy.Control
	case n.Has(config.RoleGeoDNS):
		return deploy.NameServer
	}
	return deploy.Edge
}

// nodeFiles adds the files that a node needs for its roles. Every node gets the zones, because
// every node checks them with the fleet file.
func nodeFiles(f *config.Fleet, n *config.Node, files *[]deploy.File) error {
	var errs []error
	add := func(p string, secret, may bool, effect func([]byte) deploy.Effect) {
		to := config.NodeFile(p)
		if p == "" || slices.ContainsFunc(*files, func(f deploy.File) bool { return f.Path == to }) {
			return
		}
		if !path.IsAbs(p) && !strings.HasPrefix(to, config.NodeDir+"/") {
			errs = append(errs, fmt.Errorf("%s is not below the folder of the fleet file: nodes have all files in %s",
				p, config.NodeDir))
			return
		}
		if path.IsAbs(p) && !strings.HasPrefix(to, config.NodeDir+"/") {
			return // the node's own file, such as one from a package
		}
		data, err := os.ReadFile(f.LocalFile(p))
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
	for _, file := range f.ZoneFiles() {
		add(file, false, false, reloads)
	}
	add(f.GeoDNS.GeoIP, false, false, reloads)
	if f.UsesKey(n) {
		add(f.Secrets.FleetKey, true, true, nil)
	}
	if n.Has(config.RoleGeoDNS) {
		for _, z := range f.GeoDNS.Zones {
			if z.DNSSEC != nil {
				add(z.DNSSEC.Key, true, false, reloads)
			}
		}
	}
	if n.Has(config.RoleEdge) || n.Admin != "" {
		add(f.Secrets.AdminToken, true, true, reloads)
		for _, t := range f.Secrets.Tokens {
			add(t.File, true, false, reloads)
		}
	}
	if n.Has(config.RoleEdge) {
		for _, c := range f.TLS.Certificates {
			add(c.Cert, false, false, nil)
			add(c.Key, true, false, nil)
		}
		for _, s := range f.Sites {
			for _, o := range s.AllOrigins() {
				add(o.CA, false, false, nil)
				if c := o.ClientCertificate; c != nil {
					add(c.Cert, false, false, nil)
					add(c.Key, true, false, nil)
				}
				if a := o.Auth; a != nil {
					add(a.Secret, true, false, nil)
				}
				if b := o.S3; b != nil {
					add(b.Credentials, true, false, reloads)
				}
			}
			for i := range s.Rules {
				if e := s.Rules[i].ErrorPages; e != nil {
					for _, file := range e.Files {
						add(file, false, false, reloads)
					}
				}
				for _, r := range s.Rules[i].Files() {
					add(r.File, true, false, reloads)
				}
			}
		}
	}
	return errors.Join(errs...)
}

// serviceOf returns what the systemd unit of a node needs to know.
func serviceOf(f *config.Fleet, n *config.Node) deploy.Service {
	memory := int64(512 << 20)
	var s deploy.Service
	for _, l := range f.Listeners(n) {
		for network, listens := range map[string]bool{"tcp": l.TCP, "udp": l.UDP} {
			if listens {
				s.Binds = append(s.Binds, deploy.Bind{Network: network, Addr: l.Addr, Key: l.Key})
			}
		}
	}
	slices.SortFunc(s.Binds, func(a, b deploy.Bind) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Network, b.Network))
	})
	writes := func(dir string) {
		dir = path.Clean(dir)
		for _, own := range []string{"/var/lib/kaiku", "/var/log/kaiku"} { // the unit has systemd make these
			if dir == own || strings.HasPrefix(dir, own+"/") {
				return
			}
		}
		if path.IsAbs(dir) && !slices.Contains(s.Writable, dir) {
			s.Writable = append(s.Writable, dir)
		}
	}
	if n.Has(config.RoleEdge) {
		e := f.EdgeOf(n)
		memory += 2*int64(e.Memory) + 512<<20 // Go's heap during a collection; segments being written
		s.Listen = append(s.Listen, e.HTTP)
		if e.HTTPS != "" {
			s.Listen = append(s.Listen, e.HTTPS)
		}
		s.Drain = time.Duration(e.DrainTimeout)
		if l := e.AccessLog; l != nil && l.File != "-" {
			writes(path.Dir(config.NodeFile(l.File)))
		}
		writes(e.Data)
	}
	if n.Has(config.RoleGeoDNS) {
		memory += 256 << 20
		if f.GeoDNS.Data != "" {
			writes(config.NodeFile(f.GeoDNS.Data))
		} else {
			writes(f.EdgeOf(n).Data)
		}
		s.Listen = append(s.Listen, f.DNSListen()...)
		if l := f.GeoDNS.QueryLog; l != nil && l.File != "-" {
			writes(path.Dir(config.NodeFile(l.File)))
		}
	}
	if n.Has(config.RoleControl) {
		memory += 512 << 20
		writes(config.NodeFile(f.ControlOf(n).Data))
	}
	s.Memory = memory
	return s
}

// effectOf returns a function that compares a fleet file before a deploy with the one after it. A
// process reloads sites and zones itself. Any other change needs a restart, and so does a change of
// sites on an edge if one of them has a shield.
func effectOf(after []byte, n *config.Node) func(before []byte) deploy.Effect {
	rest := func(text []byte) (*config.Fleet, bool) {
		f, ok := config.Decode(text)
		if !ok {
			return nil, false
		}
		f.GeoDNS.Zones, f.GeoDNS.Locate, f.GeoDNS.Health = nil, nil, config.Probe{}
		f.Log = config.LogSettings{}
		shielded := slices.ContainsFunc(f.Sites, func(s config.Site) bool { return s.HasShield() })
		if n.Has(config.RoleEdge) && !shielded {
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
