// Package selfbench measures what this machine spends on the work of a node: hits, misses, TLS
// handshakes, DNS queries, connections and the store. It starts a node as a process of its own on
// loopback addresses and reads that process's CPU time, so that the load itself is not counted.
package selfbench
