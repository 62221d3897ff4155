// Package geodns is an authoritative DNS server. It answers edge names with the addresses of the
// nearest healthy nodes, and all other names from RFC 1035 master files.
//
// # How a query is answered
//
// A goroutine reads the query. On Linux there is one UDP socket and one goroutine per core, and
// each reads and sends packets in batches. On other systems a few goroutines read one UDP socket.
// Each TCP connection has a goroutine of its own. The goroutine passes the query to worker.answer,
// or to worker.respond for TCP. A worker does no I/O: it maps the bytes of a query to the bytes of
// its response, or to nothing. It keeps its buffers, and in memo it keeps which nodes it chose for
// which client network. Its answers are the same as those of a worker that keeps nothing
// (FuzzSamePath).
//
//  1. query.parse parses the packet strictly. It drops a packet that is shorter than a header, and
//     it drops responses. A malformed packet gets FORMERR. So does a query that has not exactly one
//     question, has two OPT records, or has a malformed client subnet or cookie. Only a query with
//     a cookie may have no question (RFC 7873 section 5.4). An EDNS version other than 0 gets
//     BADVERS (RFC 6891). A TSIG record gets NOTAUTH with BADKEY, because the server has no keys
//     (RFC 8945). An opcode other than QUERY gets NOTIMP. Unknown options are ignored.
//  2. The server selects the closest enclosing zone of the name. If there is none, or if the query
//     asks for a zone transfer, the response is REFUSED. A class other than IN is refused too,
//     except for the CHAOS names by which a server identifies itself (RFC 4892).
//  3. Zone.lookup finds the name in the zone (RFC 1034 section 4.3.2). It handles wildcards (RFC
//     4592), empty non-terminals (RFC 8020), DNAME (RFC 6672) and delegations. A CNAME is followed
//     through all zones of the server. ANY gets HINFO (RFC 8482). Each RRset is in an answer once,
//     however often a chain of CNAMEs leads to it (RFC 2181 section 5).
//  4. For A, AAAA and HTTPS of an edge name, the server chooses nodes as described below.
//  5. Over UDP, Config.RateLimit may suppress the response.
//  6. If the zone has keys and the query has DO, worker.secure adds signatures and NSEC records.
//  7. response.pack writes the response with compression, up to the size that the client accepts.
//     Over UDP that is at most 1232 octets, which no path fragments. Additional RRsets that don't
//     fit are left out whole. If an answer, an authority record or required glue (RFC 9471) doesn't
//     fit, the response is empty and has TC set, and the client retries over TCP. The OPT record
//     has the client subnet with its scope, NSID (RFC 5001), a cookie, and the connection's
//     keepalive (RFC 7828), each only if the query had it.
//
// # How nodes are chosen
//
// The client is where its EDNS Client Subnet is (RFC 7871). If the query has no client subnet, or
// no source has a place for it, the client is taken to be where the packet came from. locator finds
// the place of an address. choose then ranks the nodes by their distance from that place.
//
// Only healthy nodes are in an answer, unless no node is healthy. Then all nodes are ranked,
// because a node that may be down is better than no address. Addresses whose own probes fail are
// left out. If all IPv4 addresses of a node are dead, the node counts as down for A. If all its
// IPv6 addresses are dead, it counts for AAAA as a node without IPv6.
//
// Where some nodes have no IPv6 address, an answer to AAAA has only nodes that are about as good as
// those: of no worse standing, and at most 1,000 km farther away. If there is no such node, the
// answer is NODATA, and clients reach the nearer node over IPv4. The IPv6 hints of HTTPS records
// follow the same rule.
//
// # Challenges
//
// SetChallenges adds TXT records to the zones, for a certificate authority to look up (RFC 8555
// section 8.4). A zone with challenges is a copy that shares all other nodes with the original
// zone. A name that exists only because there is a challenge below it is still answered by the
// wildcard that covers it. RFC 4592 section 3.3.1 says otherwise, but an order for a certificate
// must not make a site unreachable.
//
// # Forged addresses
//
// Over UDP, anybody can send queries with somebody else's source address. The server therefore
// counts responses by the network of the source address and by what they are about. Positive
// responses are counted by the owner name in the zone, so that all names below a wildcard count as
// one. Negative responses are counted by zone, errors by rcode, and all referrals together.
//
// Responses over the limit are dropped, except that every second one slips. A response that slips
// is empty, and no longer than the query except for a cookie. It tells a real client how to prove
// its address. If the query had a cookie, the response is BADCOOKIE with a new cookie to send back.
// Otherwise it has TC set, and the client retries over TCP. A client with a valid server cookie
// (RFC 9018) has already proven its address and is not limited. The counts are in a table of fixed
// size.
//
// A resolver that sends client subnets asks for an edge name once for each network of its clients.
// If such a resolver sends no cookies and reaches the limit, the operator must raise the limit.
//
// # The scope of an answer
//
// A resolver may give an answer to every client within its ECS scope. The scope is therefore the
// prefix for which the place holds: the database's network, narrowed until it contains no more
// specific network of Config.Locate. The scope is 0 if every client would get the same answer. That
// is so for static names, for errors, and for an edge name that has no more nodes than an answer
// has.
//
// An answer without AAAA for an edge name has a scope too. Many resolvers ignore the scope of a
// negative answer (RFC 7871 section 7.4). Clients of such a resolver all use IPv4 until the
// resolver asks again.
//
// # DNSSEC
//
// The server signs the zones that have keys (Config.Keys), with ECDSA P-256. It signs while it
// answers, because the addresses of an edge name depend on the client. A query without DO gets the
// same bytes as from an unsigned zone.
//
// A signature depends only on the RRset, the key and the day (dnssec.Day). All servers with the
// same key therefore make the same signatures, without any communication. The day begins at a
// different time for each RRset, so that the server doesn't sign everything at once. signatureCache
// uses everything that was signed as the key of a signature. A look-up therefore never finds a
// signature of other data, and no reload or change of a node's state has to invalidate one. Serve
// makes the signatures of edge names, zone apexes and small zones ahead of time, and renews them
// before their use ends.
//
// The server uses compact denial of existence (RFC 9824). It denies with an NSEC record at the name
// itself, which lists the types of the name, or NXNAME if the name doesn't exist. The rcode for
// such a name is NOERROR, unless the query has CO. A wildcard's answer has the wildcard's
// signature, and an NSEC record between neighbours in the zone that proves that no closer name
// exists. Clients that ask for made-up names below a wildcard therefore get signatures that are
// already cached. They also learn the names beside the wildcard. A name below one that exists only
// because of a challenge is signed as if it existed, because a validator would find that the
// wildcard doesn't apply.
//
// Each name that doesn't exist needs a signature of its own, so clients that make up names cause
// work. Several limits bound that work:
//
//   - The rate limit comes first, so a response that it suppresses costs no signature. The limit on
//     long responses counts the signatures too.
//   - A response needs at most one such signature. It needs at most about 40 signatures of names
//     that exist: those of a chain of aliases and of 8 additional RRsets. A response that is too
//     long for UDP is not signed for UDP.
//   - Signatures for made-up names have a cache of their own, so they can't displace the others.
//     Both caches have a fixed size.
//   - New signatures take at most half of the time of each worker (budget). Those for made-up names
//     leave a part of the budget for the others. Without budget for a signature, a response over
//     UDP has TC set, and one over TCP is SERVFAIL. The server still answers queries without DO,
//     and those whose signatures are cached.
//
// # Life cycle
//
// Reload validates a Config and replaces the current one as a whole. Listen binds the addresses.
// Serve probes the nodes and answers queries. Before it returns, it ends every goroutine that it
// started. Reload may be called at any time, from any goroutine.
package geodns
