// Package node builds a node of the fleet and runs it.
//
// New makes the parts of a node from its fleet file, one for each of its roles: an edge
// (edgerole.go), a name server (geodnsrole.go), a control node (controlrole.go). A node that is no
// edge may have an admin listener (adminrole.go). controlplane.go connects a node to the control
// plane. Nothing listens before Process.Run. It binds all listeners, including those that systemd
// passed, before it serves on any of them.
//
// While the process runs, a reloader applies each change of the fleet file and of the files that it
// names, or none of it. Origin pools whose configuration stays the same are kept. It logs changes
// that need a restart.
//
// Standalone and ForOrigin make edges that need no other node.
package node
