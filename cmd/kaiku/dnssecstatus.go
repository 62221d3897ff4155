package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/geodns"
	"github.com/kaiku-cdn/kaiku/geodns/dnssec"
)

// maxSkew is how wrong a name server's clock may be before the operator is warned. Signatures
// tolerate a day (dnssec.Day).
const maxSkew = 5 * time.Minute

// keyView is what the name servers and the parent publish about a zone's keys.
type keyView struct {
	zone    *signedZone
	servers []serverView // by name
	parent  []string     // rdata of the DS records
	ttl     time.Duration
	// why the parent's records are unknown
	parentErr error
}

// serverView is what one name server publishes.
type serverView struct {
	node, addr string
	shows      *geodns.PublishedKeys
	err        error
	skew       time.Duration
}

// dnssecOptions are the flags of commands that ask name servers and the parent.
type dnssecOptions struct{ fleetFile, resolver string }

func (o *dnssecOptions) flags(cmd *cobra.Command) {
	fleetFlag(cmd, &o.fleetFile)
	cmd.Flags().StringVar(&o.resolver, "resolver", "",
		"`HOST:PORT` of the resolver to query for the parent's records (default: this system's resolver)")
}

// view queries all name servers of the fleet, and the resolver for the parent's records.
func (o *dnssecOptions) view(ctx context.Context, z *signedZone) *keyView {
	v := &keyView{zone: z}
	for i := range z.fleet.Nodes {
		n := &z.fleet.Nodes[i]
		if n.Has(config.RoleGeoDNS) {
			v.servers = append(v.servers, serverView{node: n.Name, addr: config.Reachable(z.fleet.DNSListen()[0], n)})
		}
	}
	var asking sync.WaitGroup
	for i := range v.servers {
		asking.Go(func() {
			s := &v.servers[i]
			if s.shows, s.err = geodns.AskKeys(ctx, s.addr, z.name()); s.err == nil && !s.shows.Clock.IsZero() {
				s.skew = time.Since(s.shows.Clock).Truncate(time.Second)
			}
		})
	}
	resolver, err := o.resolver, error(nil)
	if resolver == "" {
		resolver, err = geodns.SystemResolver()
	}
	if v.parentErr = err; err == nil {
		v.parent, v.ttl, v.parentErr = geodns.AskDS(ctx, resolver, z.name())
	}
	asking.Wait()
	slices.SortFunc(v.servers, func(a, b serverView) int { return cmp.Compare(a.node, b.node) })
	return v
}

// atServers returns why some name server does not publish the state of the key file, or "".
func (v *keyView) atServers() string {
	if len(v.servers) == 0 {
		return "no node has the role geodns"
	}
	for _, s := range v.servers {
		if why := s.mismatch(v.zone.keys); why != "" {
			return s.node + ": " + why
		}
	}
	return ""
}

// mismatch returns why a name server does not publish the keys as their file has them, or "".
func (s *serverView) mismatch(keys dnssec.Keys) string {
	if s.err != nil {
		return s.err.Error()
	}
	for _, key := range keys {
		if !s.shows.Has(key) {
			return fmt.Sprintf("doesn't publish key %d yet: deploy", key.Tag())
		}
	}
	switch signer := keys.Signer(); {
	case s.shows.Fault != nil:
		return s.shows.Fault.Error()
	case len(s.shows.Keys) > len(keys):
		return fmt.Sprintf("publishes %d keys, but the file has %d: deploy", len(s.shows.Keys), len(keys))
	case s.shows.Signer != signer.Tag():
		return fmt.Sprintf("signs with key %d instead of %d: deploy", s.shows.Signer, signer.Tag())
	case (keys.Wanted() == nil) != s.asksRemoval():
		return "its CDS record doesn't match the key file: deploy"
	}
	return ""
}

// asksRemoval reports whether the CDS record asks the parent to remove the DS (RFC 8078 section 4).
func (s *serverView) asksRemoval() bool {
	return slices.ContainsFunc(s.shows.CDS, func(data string) bool { return strings.HasPrefix(data, "\x00\x00\x00") })
}

// parentHas reports whether the parent has the DS record of a key.
func (v *keyView) parentHas(key *dnssec.Key) bool {
	data, err := geodns.DSData(v.zone.name(), key)
	return err == nil && slices.Contains(v.parent, data)
}

func dnssecStatus() *cobra.Command {
	var o dnssecOptions
	cmd := &cobra.Command{
		Use:   "status [ZONE]",
		Short: "Compare keys, name servers, clocks and the parent's DS records",
		Long: `Compare the keys of the signed zones with what every name server of the fleet publishes, and with the
DS records of the parent zones, which it gets from a resolver. The exit code is 1 if validating
resolvers refuse a zone, or will refuse it soon.`,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			zones, err := signedZones(o.fleetFile, strings.Join(args, ""))
			if err != nil {
				return err
			}
			bad := false
			for _, z := range zones {
				bad = o.view(cmd.Context(), z).print(cmd.OutOrStdout()) || bad
			}
			if bad {
				return errReported
			}
			return nil
		},
	}
	o.flags(cmd)
	return cmd
}

// print prints the view. It reports whether something is wrong.
func (v *keyView) print(w io.Writer) (bad bool) {
	say := func(format string, a ...any) { fmt.Fprintf(w, format+"\n", a...) }
	fault := func(format string, a ...any) {
		bad = true
		say("  ✗ "+format, a...)
	}
	say("%s", v.zone.name())
	for _, key := range v.zone.keys {
		say("  key %-5d %s", key.Tag(), key.State)
	}
	for _, s := range v.servers {
		if why := s.mismatch(v.zone.keys); why != "" {
			fault("%s: %s", s.node, why)
		} else {
			say("  ✓ %s publishes the keys and signs", s.node)
		}
		if s.skew.Abs() > maxSkew {
			fault("%s: its clock is %s %s this machine's: synchronize it (NTP), because signatures are valid for a time only", s.node,
				s.skew.Abs(),
				map[bool]string{true: "behind", false: "ahead of"}[s.skew > 0])
		}
	}
	wanted := v.zone.keys.Wanted()
	switch {
	case v.parentErr != nil:
		fault("the parent: %v", v.parentErr)
	case len(v.parent) == 0 && wanted == nil:
		say("  ✓ the parent has no DS record: continue with kaiku dnssec leave %s", v.zone.name())
	case len(v.parent) == 0:
		say("  – the parent has no DS record, so resolvers don't check the signatures: kaiku dnssec ds %s prints the record for the registrar",
			v.zone.name())
	default:
		v.printParent(say, fault)
	}
	return bad
}

// printParent prints the DS records that the parent has.
func (v *keyView) printParent(say, fault func(string, ...any)) {
	trusted := 0
	for _, data := range v.parent {
		at := slices.IndexFunc(v.zone.keys, func(key *dnssec.Key) bool {
			own, err := geodns.DSData(v.zone.name(), key)
			return err == nil && own == data
		})
		if at < 0 {
			say("  – the parent has a DS record of another key: %s", geodns.DSText(data))
			continue
		}
		trusted++
		say("  ✓ the parent has the DS record of key %d, which is %s", v.zone.keys[at].Tag(), v.zone.keys[at].State)
	}
	if trusted == 0 {
		fault("the parent has DS records, but none is of a key of this zone, so validating resolvers refuse the whole domain: at the registrar, remove them, or replace them by the one that kaiku dnssec ds %s prints", v.zone.name())
	}
}
