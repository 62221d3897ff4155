// Package fleet is what the nodes of a fleet tell each other: the log of purges, the registry of
// nodes, challenges of certificates, and the vault of certificates.
//
// # One key
//
// Every node has one secret, the fleet key. The key of a certificate authority is derived from it
// (HKDF, RFC 5869), always the same one. So each node makes its own certificate when it starts, and
// every other node can verify it. The certificates don't expire: another fleet key ends their
// trust. While the key is being replaced, its file holds the old and the new secret. Nodes use the
// first and accept both.
//
// A certificate has its node's name and roles. They decide what the node may do: a name server may
// not purge, and nobody renews another's lease. A credential in place of the key is that node
// alone, and may be limited to purges of some sites.
//
// # The control plane
//
// Control nodes run an embedded NATS server with JetStream, and replicate everything among them.
// All other nodes are clients. A client tries the nearest control node first. Every quarter of a
// minute it checks whether a nearer one than it has can be reached, and has the log.
//
// A control node that was alone converts its log to that of a group when the fleet file gives it
// others (convert.go). Sequences and the log's identity stay. A new log is begun only when all
// control nodes of the fleet file are connected and none has one.
// docs/decisions/control-plane-growth.md has why.
//
// A twentieth of a control node's disk, 24 to 512 MiB, is kept free. With less it refuses purges
// before they are written, unless most control nodes have room. If a write to the log fails all the
// same, the log is opened again in the same process once there is room (room.go).
//
// # The log of purges
//
// The log is one stream with one order. A purge is acknowledged when a majority of the control
// nodes has it on disk. Each edge applies all of it. The edge's place in the log becomes durable
// after the purges before it, so that purges which a power loss takes are applied again.
//
// An edge trusts what it has while it knows that, at most max_disconnected ago by the wall clock,
// it had applied all that the log held. Without trust it asks the origin about everything that it
// serves, and its health says 503, so that name servers leave it out. If the log was replaced,
// lost, or trimmed past what the edge has applied, everything that the edge has becomes stale.
//
// The end of the log is what a majority of the control nodes says it is (logend.go). An edge asks
// its control node. That one asks all copies how far they are on disk, and answers with the newest
// of a majority. Two majorities share a node, so the answer covers every purge that was
// acknowledged before the question. A control node without a majority gives no answer.
//
// Sequences are used twice when control nodes lose a part of the log, as by an old backup. So each
// entry has a mark: when the control plane took it. An edge keeps the mark of the entry that it
// applied last and compares it with the log (mark.go). Each purge refers to the one before it.
//
// An edge that hears of no control node for 4 seconds, not even a refused connection, may be cut
// off while purges happen. Until it has caught up, it has the origin confirm what it serves. If the
// origin fails or takes longer than 2 seconds, the edge serves what it has, for max_disconnected at
// most. While control nodes are there but refuse, hits stay hits.
//
// docs/decisions/purge-promise.md has the model, and the fault that each rule answers.
//
// # The registry
//
// The registry has a lease of each node, and a flag for drains that stays. A node that is not heard
// of for 6 seconds is not live. Name servers and control nodes watch the registry. Edges ask their
// control node what has changed, when somebody wants to know (roster.go, rosterview.go): if all
// nodes watched it, deliveries would grow with the square of their number.
//
// A lease is renewed only if nobody else wrote it meanwhile. Of two machines that are the same
// node, as after a clone, the one that started later trusts nothing that it has, and says so
// (duplicate.go).
package fleet
