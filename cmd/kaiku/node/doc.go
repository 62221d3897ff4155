// Package node builds a node of the fleet and runs it.
//
// New makes the parts of a node from its fleet file, one for each of its roles: an edge
// (edgerole.go), a name server (geodnsrole.go), a control node (controlrole.go). A node that is no
// edge may have an admin listener (adminrole.go). The link is its connection to the control plane
// (link.go). Nothing listens before Process.Run, which binds all listeners, those that systemd
// passed among them, before it serves on any of them.
//
// While the process runs, a reloader takes each change of the fleet file and of the files that it
// names, or none of it. Origin pools that would be made from the same stay as they are. What can't
// change while the process runs is logged.
//
// Standalone and ForOrigin make edges that need no other node.
package node
