package main

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/deploy"
	"github.com/kaiku-cdn/kaiku/fleet"
)

// nodeTokens has the admin tokens that nodes had before a deploy, by node name. It is safe for
// concurrent use.
type nodeTokens struct {
	mu   sync.Mutex
	list map[string][]string
}

func (t *nodeTokens) set(node string, tokens []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.list == nil {
		t.list = map[string][]string{}
	}
	t.list[node] = tokens
}

func (t *nodeTokens) of(node string) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.list[node]
}

// guardSecrets makes a deploy look at the secrets that it replaces on nodes. only has the nodes
// that are deployed; nil means all. It reads secrets only from nodes whose file differs, and keeps
// them only in memory.
func (d *deployFleet) guardSecrets(nodes []deploy.Node, only []string) {
	for i := range nodes {
		n := &nodes[i]
		for j := range n.Files {
			f := &n.Files[j]
			switch f.Path { // "" would match the folder
			case config.NodeFile(d.fleet.Secrets.AdminToken):
				f.Replace = func(before []byte) (bool, error) {
					if tokens, err := fleet.SplitSecrets(before); err == nil {
						d.had.set(n.Name, tokens)
					}
					return true, nil
				}
			case config.NodeFile(d.fleet.Secrets.FleetKey):
				f.Replace = func(before []byte) (bool, error) {
					if bytes.Equal(before, f.Data) { // only its mode differs
						return true, nil
					}
					replace, err := d.replacesKey(n.Name, f.Data, before)
					if err == nil && replace && only != nil {
						err = errors.New("a deploy that changes the fleet key must include all nodes, because nodes authenticate each other with it: leave out --only")
					}
					return replace, err
				}
			}
		}
	}
}

// replacesKey reports whether the local fleet key replaces the one on a node. A node's credential
// stays. A key that the local one does not accept is an error: during the deploy, nodes with the
// one would refuse nodes with the other.
func (d *deployFleet) replacesKey(node string, now, before []byte) (bool, error) {
	here, there := d.fleet.LocalFile(d.fleet.Secrets.FleetKey), config.NodeFile(d.fleet.Secrets.FleetKey)
	key, err := fleet.ParseKey(now)
	if err != nil {
		return false, fmt.Errorf("read the fleet key: %s: %w", here, err)
	}
	own, err := fleet.ParseKey(before)
	if err != nil {
		return true, nil // nothing that the node could be running with
	}
	switch knows, err := key.Knows(own); {
	case err != nil:
		return false, err
	case knows:
		return !own.IsCredential(), nil
	case own.IsCredential():
		return false, fmt.Errorf("its credential, %s, was made with another fleet key than %s: make it again with kaiku credential --node %s, copy it to the node, restart kaiku.service there, and deploy again", there, here, node)
	}
	return false, fmt.Errorf("its fleet key in %s differs from %s: during this deploy, nodes with the old key and nodes with the new key would refuse each other. "+
		"Restore the key of the nodes in %[2]s, and replace it with kaiku rotate fleet-key. "+
		"If only this node was down while the key was replaced, delete %[1]s on it, and deploy again", there, here)
}
