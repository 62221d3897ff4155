// Package geodns is an authoritative DNS server that answers edge names with the nearest healthy
// nodes, and everything else from RFC 1035 master files.
//
// # How a query is answered
//
// A packet is read by one of a few UDP goroutines, on Linux one a core with a socket of its own
// that reads and sends in batches, or by the goroutine of its TCP connection, and given to
// worker.answer, which does no I/O: it maps the bytes of a query to the bytes of its response, or
// to nothing. A worker keeps its buffers and what it has chosen for which network of clients
// (memo); its answers are those of one that keeps nothing (FuzzSamePath).
//
//  1. query.parse reads it, strictly. A packet shorter than a header, or a response, is dropped. What does not parse is
//     FORMERR; so are a question count other than one, two OPT records, a malformed client subnet and a malformed cookie. An
//     EDNS version other than 0 is BADVERS (RFC 6891), a TSIG record NOTAUTH with
//     BADKEY, as there are no keys (RFC 8945), an opcode other than QUERY NOTIMP. Options that are not understood are
//     ignored. Only a query with a cookie may have no question (RFC 7873 section 5.4).
//  2. The zone is the closest one above the name; with none, or for a zone transfer, REFUSED. So is a class other than IN, but
//     for the names of CHAOS that say who answers, and with what (RFC 4892).
//  3. The name is looked up in it as RFC 1034 section 4.3.2 says, with the wildcards of RFC 4592, the empty non-terminals of
//     RFC 8020, DNAME (RFC 6672) and delegations. A CNAME is followed through all zones served. ANY is answered with HINFO
//     (RFC 8482). An RRset is in an answer once, however often a chain comes to it (RFC 2181 section 5).
//  4. A and AAAA of an edge name are chosen: the client is where its EDNS Client Subnet is (RFC 7871), or else, also where
//     no source has a place for the subnet, the address that the packet came from; locator says where that is; choose orders the nodes by their distance from there, healthy
//     ones only, unless none is healthy: a node that may be down is better than no address. Where
//     some nodes have no IPv6 address, AAAA is answered with no node that is of a worse standing
//     than one of these, or more than 1,000 km farther away: the answer is then that there is no
//     such record, and the client comes to the nearer node by IPv4. The IPv6 hints of HTTPS records
//     are those of AAAA. Addresses whose own probes fail are left out. A node whose addresses of a
//     family are all dead counts as down for A, and for AAAA as without.
//  5. Over UDP, a response beyond what Config.RateLimit allows the client's network is dropped, or slips.
//  6. The response is packed, compressed, into what the client takes: at most 1232 bytes over UDP, which no path fragments.
//     Additional records are left out where they don't fit, whole RRsets at a time; where an answer, an authority or needed
//     glue (RFC 9471) does not fit, the response is empty and says TC, and the client comes back over TCP. Its OPT has the
//     client subnet with the scope, NSID (RFC 5001), a cookie and the keepalive of the connection (RFC 7828), each where the
//     query had it.
//
// # Challenges
//
// SetChallenges puts TXT records beside what the zones have, for a certificate authority to see
// (RFC 8555 section 8.4). A zone with some is a copy that shares all nodes but theirs. A name that
// exists only because a challenge is below it goes on being answered by the wildcard that covers
// it, which departs from RFC 4592 section 3.3.1: an order for a certificate must not take a site
// away.
//
// # Forged addresses
//
// Over UDP anybody may ask in the name of anybody. Responses are therefore counted by the network
// of the source address and by what they say: positive ones by the name in the zone, so that the
// endless names below a wildcard are one; negative ones by zone; errors and referrals by their
// kind. What is over the limit is dropped, but every second one slips: it is empty, no longer than
// the query but for a cookie, and tells a real client how to show that it is real: TC, to come over
// TCP, or, if the query had a cookie, BADCOOKIE with one to come back with. A client with a server
// cookie of ours (RFC 9018) has shown it. The counts are a table of fixed size.
//
// A resolver that serves many clients, each with a client subnet, asks for an edge name once for
// each of their networks: where such resolvers reach the limit without cookies, it must be raised.
//
// # The scope of an answer
//
// A resolver may give an answer to every client within its ECS scope. The scope is therefore the
// prefix that the place was found for: the database's network, narrowed until it overlaps no more
// specific network of Config.Locate. Where every client would get the same answer (static names,
// errors, an edge name that has no more nodes than it answers) it is 0.
//
// The answer that an edge name has no AAAA for a client has a scope too. A resolver that takes it
// for all its clients, as negative answers mostly are taken (RFC 7871 section 7.4), has them use
// IPv4 until it asks again.
//
// # Life
//
// Reload validates a Config and swaps it in whole; Listen binds; Serve probes the nodes, answers,
// and ends every goroutine that it started. Reload may be called at any time, from any goroutine.
package geodns
