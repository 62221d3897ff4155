package node

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"syscall"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/deploy"
	"github.com/kaiku-cdn/kaiku/edge/purge"
)

// reload takes the fleet file as it is now, or leaves everything as it was. What can't change while
// the process runs is told.
func (p *Process) reload() error {
	f, zones, err := config.LoadNode(p.config, p.keep)
	if err != nil {
		return err
	}
	var tokens []purge.Token
	if p.admin != nil {
		if tokens, err = f.Tokens(p.admin.address); err != nil {
			return err
		}
	}
	f.LogWarnings(p.log)
	var sites siteSet
	if p.Edge != nil {
		if sites, err = p.makeSites(f); err != nil {
			return err
		}
		if c := p.Edge.Certificates; c != nil {
			if err := setCertificates(f, c); err != nil {
				sites.close(p.Edge.sites)
				return err
			}
		}
	}
	if p.dns != nil {
		_, err := f.DNSSECKeys()
		if err == nil {
			err = p.dns.Reload(f.GeoDNSConfig(zones)) // refused by check already
		}
		if err != nil {
			if p.Edge != nil {
				sites.close(p.Edge.sites)
			}
			return err
		}
		p.keep.Commit(p.dns)
	}
	if p.Edge != nil {
		p.Edge.setSites(sites)
	}
	if p.admin != nil {
		p.admin.tokens.Set(tokens)
		if p.Edge == nil {
			p.admin.sites.Set(namedSites(f))
		}
	}
	applyLog(p.log, f.Log)
	p.files, p.taken = f.Watched(), f.Sum()
	now := fixedBy(f, p.name)
	for _, key := range slices.Sorted(maps.Keys(now)) {
		if now[key] != p.fixed[key] {
			p.log.Warn("changed in the fleet file, but taken only when the process starts again", "key", key)
		}
	}
	return nil
}

// fixedBy returns what a running node takes at its start only, as text by the key of the fleet
// file. That is all of the section edge, and some keys of others.
func fixedBy(f *config.Fleet, name string) map[string]string {
	n := f.Node(name)
	if n == nil {
		return nil
	}
	e, c := f.EdgeOf(n), f.ControlOf(n)
	out := map[string]string{"nodes." + name + ".roles": fmt.Sprint(n.Roles), "control": fmt.Sprint(c),
		"tls":           fmt.Sprint(f.Secures()),
		"geodns.listen": fmt.Sprint(f.DNSListen()), "geodns.query_log": f.GeoDNS.QueryLog.String(),
		"geodns.zones": fmt.Sprint(f.ChallengeZones())}
	edge := reflect.ValueOf(e)
	for i := range edge.NumField() {
		out["edge."+edge.Type().Field(i).Tag.Get("yaml")] = fmt.Sprint(edge.Field(i).Interface())
	}
	out["edge.hit_lane"] = fmt.Sprint(e.HitLane == nil || *e.HitLane) // not the pointer
	if a := f.TLS.ACME; a != nil {
		out["tls.acme"] = fmt.Sprint(*a)
	}
	return out
}

// reloader reloads at SIGHUP, or when the fleet file or a zone file changed.
type reloader struct{ *Process } // its goroutine alone reads and writes files once it serves

// Listen does nothing.
func (reloader) Listen(context.Context) error { return nil }

// Serve watches until ctx ends.
func (r reloader) Serve(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	seen := r.stamp()
	ready := make(chan struct{})
	close(ready)
	for {
		var idle chan struct{} // never ready, unless there are copies to be kept
		if r.keep.Pending() {
			idle = ready
		}
		select {
		case <-ctx.Done():
			return nil
		case <-idle:
			r.keep.Save(ctx)
			continue
		case <-hup:
		case <-tick.C:
			if slices.Equal(r.stamp(), seen) {
				continue
			}
		}
		seen = r.stamp()
		err := r.reload()
		status := r.Status()
		if err != nil {
			r.log.Error("the fleet file was not taken; running on with what was there before", "error", err)
			text, _ := os.ReadFile(r.config) // if it isn't there, that is the error
			status = deploy.NotTaken(r.taken, deploy.FleetSum(text), err)
		} else {
			r.log.Info("took the fleet file", "file", r.config)
		}
		if err := notify("STATUS=" + status); err != nil {
			r.log.Warn("systemd was not told of the fleet file", "error", err)
		}
	}
}

// fileStamp is how a file was found; zero if it is not there.
type fileStamp struct {
	changed, size int64
}

// stamp tells of the fleet file, and of the zone files, geoip database and others that it names,
// whether one changed.
func (r reloader) stamp() []fileStamp {
	stamps := make([]fileStamp, 1+len(r.files))
	for i := range stamps {
		file := r.config
		if i > 0 {
			file = r.files[i-1]
		}
		if info, err := os.Stat(file); err == nil {
			stamps[i] = fileStamp{info.ModTime().UnixNano(), info.Size()}
		}
	}
	return stamps
}
