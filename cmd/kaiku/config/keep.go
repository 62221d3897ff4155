package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/kaiku-cdn/kaiku/geodns"
)

// Keeper keeps the last good copy of each zone of a name server, and of its geoip database, in
// memory and on disk. A damaged zone file or database then affects nothing else. The node starts
// with the copy, or without the zone, and reports that as a fault.
type Keeper struct {
	log   *slog.Logger
	name  string   // of the node
	roles []string // the roles that the process runs; nil means all roles of the node

	// The state of one load of the fleet file, from begin to Commit.
	answers bool // this process is a name server
	dir     string
	geoip   string
	before  fs.FileInfo // the geoip file before it is read
	zones   map[string]*zoneFiles
	lost    []error // why zones are not answered
	found   []string

	served  map[string]*zoneFiles // what the server answers from, by zoneKey
	unsaved []*zoneFiles
	unswept bool // the folder may have copies of removed zones, or need an fsync

	mu     sync.Mutex
	faults []string
}

// NewKeeper returns the keeper of a node's process. roles has the roles that the process runs; nil
// means all roles of the node.
func NewKeeper(name string, roles []string, log *slog.Logger) *Keeper {
	return &Keeper{log: log, name: name, roles: roles}
}

// zoneKey returns the same name for all spellings of a zone's name.
func zoneKey(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) + "." }

// begin prepares the keeper for a load of the fleet file.
func (k *Keeper) begin(f *Fleet) {
	k.zones, k.lost, k.found, k.before = map[string]*zoneFiles{}, nil, nil, nil
	n := f.Node(k.name)
	if n == nil {
		k.answers = false
		return
	}
	roles := k.roles
	if roles == nil {
		roles = n.Roles
	}
	k.answers, k.dir = slices.Contains(roles, RoleGeoDNS), f.geodnsData(n)
	if k.geoip = ""; f.GeoDNS.GeoIP != "" {
		k.geoip = f.LocalFile(f.GeoDNS.GeoIP)
		k.before, _ = os.Stat(k.geoip) // the server reports a missing file
	}
}

// had returns what a zone is answered from now, or nil. The zone's files may be unchanged
// since then.
func (k *Keeper) had(name string) *zoneFiles {
	if k == nil {
		return nil
	}
	return k.served[zoneKey(name)]
}

// take takes a zone from its files or, if there are errors, from its last good copy.
func (k *Keeper) take(f *Fleet, z *zoneFiles, errs []error) {
	switch {
	case k.answers && len(errs) == 0:
		k.zones[zoneKey(z.name)] = z
	case k.answers:
		k.replace(z, errs)
	case len(errs) > 0:
		z.zone = nil
		f.warnUnread(errs)
	}
}

// replace makes the server answer a zone from its last good copy, or not at all if there is none.
func (k *Keeper) replace(z *zoneFiles, errs []error) {
	key := zoneKey(z.name)
	why := strings.TrimSpace(errs[0].Error())
	why, _, _ = strings.Cut(why, "\n")
	if len(errs) > 1 {
		why += fmt.Sprintf(" (and %d more)", len(errs)-1)
	}
	copied, at := k.served[key], "the one that it had when it was last good"
	if copied == nil || copied == k.zones[key] {
		copied, at = k.load(z)
	}
	if copied == nil {
		z.zone = nil
		delete(k.zones, key)
		k.lost = append(k.lost, errs...)
		k.found = append(k.found, fmt.Sprintf("zone %s is not served, because there is no good copy of it: %s", z.name,
			why))
		return
	}
	z.zone, k.zones[key] = copied.zone, copied
	k.found = append(k.found, fmt.Sprintf("zone %s is answered from its last good copy, %s: %s", z.name, at, why))
}

// fit replaces the zones that conflict with the edge names of the fleet file.
func (k *Keeper) fit(f *Fleet, zones []*geodns.Zone) []*geodns.Zone {
	for range 2 { // a copy may conflict too; then there is no other one
		misfits := geodns.Misfits(zones, f.GeoDNSConfig(zones).Edges)
		for i, z := range zones {
			err := misfits[z.Name()]
			if err == nil {
				continue
			}
			files := k.zones[zoneKey(z.Name())]
			if files == nil { // only other nodes answer it
				f.warnf("geodns.zones", "%v", err)
				zones[i] = nil
				continue
			}
			if k.take(f, files, []error{&fileError{files.file, 1, 1, err.Error(), ""}}); files.zone == z {
				files.zone = nil
			}
			zones[i] = files.zone
		}
		zones = slices.DeleteFunc(zones, func(z *geodns.Zone) bool { return z == nil })
	}
	if k.answers && len(zones) == 0 {
		f.file.errs = append(f.file.errs, k.lost...) // no zone would be answered
	}
	return zones
}

// Commit makes what was loaded the current state, after the server has taken it.
func (k *Keeper) Commit(s *geodns.Server) {
	if !k.answers {
		return
	}
	if err := s.GeoIPFault(); err != nil {
		k.found = append(k.found, fmt.Sprintf("the geoip database is the last good copy: %v", err))
		k.before = nil
	}
	k.unsaved, k.unswept = nil, true
	for key, z := range k.zones {
		if old := k.served[key]; old != nil && old.zone == z.zone && old.texts == nil {
			z.texts = nil
			continue
		}
		if len(z.texts) > 0 {
			k.unsaved = append(k.unsaved, z)
		}
	}
	k.served = k.zones
	for _, fault := range k.found {
		if !slices.Contains(k.faults, fault) {
			k.log.Error("a file of the name server can't be used", "fault", fault)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.faults = k.found
}

// Faults describes the files that the name server can't use, and what it does instead.
func (k *Keeper) Faults() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.faults
}

// Err returns the faults as one error, or nil if there are none.
func (k *Keeper) Err() error {
	faults := k.Faults()
	if len(faults) == 0 {
		return nil
	}
	return errors.New(strings.Join(faults, "; "))
}
