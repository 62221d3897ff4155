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

// reload applies the current fleet file, or changes nothing and returns an error. It logs settings
// that take effect only after a restart.
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
			err = p.dns.Reload(f.GeoDNSConfig(zones)) // config.LoadNode has found such errors before
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
			p.log.Warn("this change of the fleet file needs a restart", "key", key)
		}
	}
	return nil
}

// fixedBy returns the settings that a node reads only when it starts, as texts by their keys in the
// fleet file: all of the section edge, and some of other sections.
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
	out["edge.hit_lane"] = fmt.Sprint(e.HitLane == nil || *e.HitLane) // the value, not the address of the pointer
	if a := f.TLS.ACME; a != nil {
		out["tls.acme"] = fmt.Sprint(*a)
	}
	return out
}

// reloader reloads on SIGHUP, and when the fleet file or a file that it names changes.
type reloader struct{ *Process } // after the start, only its goroutine reads and writes files

// Listen implements Part and does nothing.
func (reloader) Listen(context.Context) error { return nil }

// Serve watches the files until ctx ends.
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
		var idle chan struct{} // ready only if there are copies to save
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
			r.log.Error("the fleet file was not loaded; the previous configuration stays in use", "error", err)
			text, _ := os.ReadFile(r.config) // if it is missing, err says so
			status = deploy.NotTaken(r.taken, deploy.FleetSum(text), err)
		} else {
			r.log.Info("fleet file loaded", "file", r.config)
		}
		if err := notify("STATUS=" + status); err != nil {
			r.log.Warn("notify systemd of the loaded fleet file", "error", err)
		}
	}
}

// fileStamp is the modification time of a file in nanoseconds, and its size. It is zero if the file
// does not exist.
type fileStamp struct {
	changed, size int64
}

// stamp returns the stamps of the fleet file and of all files that it names. A changed stamp means
// a changed file.
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
