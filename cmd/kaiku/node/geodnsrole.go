package node

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaiku-cdn/kaiku/geodns"
)

// addGeoDNS adds the name server.
func (b *builder) addGeoDNS() error {
	listen := b.over.Listen
	if len(listen) == 0 {
		listen = b.fleet.DNSListen()
	}
	dns := &geodns.Server{Addr: listen[0], More: listen[1:], Log: b.log, Registerer: b.reg, Identity: b.name}
	if b.key != nil { // for a cookie of one server to be valid at all of them
		var err error
		if dns.CookieSecrets, err = b.key.CookieSecrets(); err != nil {
			return err
		}
	}
	if l := b.fleet.GeoDNS.QueryLog; l != nil {
		out, err := openLog(b.fleet, "query log", l)
		if err != nil {
			return err
		}
		dns.QueryLog = &geodns.QueryLog{Log: slog.NewJSONHandler(out, nil), Sample: l.Sample}
	}
	if b.plane != nil {
		dns.Registry = b.plane.reports
		b.plane.answerChallenges(dns)
	}
	// Without its keys, a signed zone would be answered without signatures, and validating
	// resolvers would refuse it.
	if _, err := b.fleet.DNSSECKeys(); err != nil {
		return fmt.Errorf("geodns: %w", err)
	}
	if err := dns.Reload(b.fleet.GeoDNSConfig(b.zones)); err != nil {
		return fmt.Errorf("geodns: %w", err)
	}
	b.dns = dns
	keep := b.keep
	keep.Commit(dns)
	b.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kaiku_dns_unusable_files",
		Help: "Zones and geoip databases that can't be used; the last good copy replaces them, if there is one."},
		func() float64 { return float64(len(keep.Faults())) }))
	if b.plane != nil {
		b.parts = append(b.parts, dnsPart{dns, b.plane})
	} else {
		b.parts = append(b.parts, dns)
	}
	return nil
}

// dnsPart is a name server that loads the ACME challenges before it answers, if it can reach the
// control plane. Its lease from before a restart may still say that it answers challenges.
type dnsPart struct {
	*geodns.Server
	plane *controlPlane
}

// firstChallenges is how long Serve waits for the challenges.
const firstChallenges = time.Second

// Serve answers until ctx ends.
func (n dnsPart) Serve(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, firstChallenges)
	_ = n.plane.challenges.Wait(wait) // without the control plane, it answers everything else
	cancel()
	return n.Server.Serve(ctx)
}
