package geodns

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// Serial asks the name server at host:port for the SOA serial of a zone. It returns an error if the
// server doesn't answer with authority.
func Serial(ctx context.Context, server, zone string) (uint32, error) {
	q := new(dns.Msg).SetQuestion(dns.Fqdn(zone), dns.TypeSOA)
	q.RecursionDesired = false
	resp, _, err := new(dns.Client).ExchangeContext(ctx, q, server)
	if err != nil {
		return 0, fmt.Errorf("query the name server %s for the serial of %s: %w", server, zone, err)
	}
	for _, rr := range resp.Answer {
		if soa, ok := rr.(*dns.SOA); ok && resp.Authoritative {
			return soa.Serial, nil
		}
	}
	return 0, fmt.Errorf("name server %s does not have %s: %s", server, zone, dns.RcodeToString[resp.Rcode])
}

// lookupTries is how many times Lookup sends its query over UDP, which may lose packets.
const lookupTries = 5

// Lookup asks the name server at host:port for the IPv4 addresses of a name. It sends the network
// client as the Client Subnet (RFC 7871), as a resolver would. It sends the query at most 5 times,
// and waits 2 s for each answer. If the answer is truncated, as a server with a rate limit may
// truncate it, Lookup retries over TCP (RFC 7766 section 5). It returns an error if the answer has
// no IPv4 address.
func Lookup(ctx context.Context, server, name string, client netip.Prefix) ([]netip.Addr, error) {
	family := uint16(1)
	if client.Addr().Is6() {
		family = 2
	}
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA).SetEdns0(1232, false)
	q.IsEdns0().Option = append(q.IsEdns0().Option, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: family,
		SourceNetmask: uint8(client.Bits()), Address: client.Masked().Addr().AsSlice()})
	var resp *dns.Msg
	var err error
	for range lookupTries {
		resp, _, err = (&dns.Client{Timeout: 2 * time.Second}).ExchangeContext(ctx, q, server)
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	if err == nil && resp.Truncated {
		resp, _, err = (&dns.Client{Net: "tcp", Timeout: 2 * time.Second}).ExchangeContext(ctx, q, server)
	}
	if err != nil {
		return nil, fmt.Errorf("query the name server %s for %s: %w", server, name, err)
	}
	var out []netip.Addr
	for _, rr := range resp.Answer {
		if a, ok := rr.(*dns.A); ok {
			if addr, ok := netip.AddrFromSlice(a.A.To4()); ok {
				out = append(out, addr)
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("name server %s has no address for %s: %s", server, name, dns.RcodeToString[resp.Rcode])
	}
	return out, nil
}
