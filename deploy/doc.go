// Package deploy brings machines with Debian or Ubuntu to a running fleet, and later to another
// version or configuration, over SSH. Nothing has to be on them but OpenSSH's server, systemd and
// what every Debian has.
//
// What a node gets:
//
//	/usr/local/lib/kaiku/VERSION/kaiku   the binary, by the begin of its SHA-256; the one that runs and the one before it
//	/usr/local/bin/kaiku                 a symbolic link to the first
//	/etc/kaiku/                          fleet.yaml and what it names; secrets have mode 0600 and belong to the user kaiku
//	/etc/kaiku/node                      the name of the node, by which commands that are run there find it
//	/etc/kaiku/.deployed                 the paths of all files that deploy put there, so that it also removes them
//	/etc/kaiku/.next/                    files on their way, while a deploy runs
//	/etc/kaiku/.before/                  what a deploy replaced, until the node is known to be well with the new
//	/etc/systemd/system/kaiku.service    and kaiku.socket, which holds the listeners of TCP: connections wait there while the process is restarted
//	/usr/share/bash-completion/completions/kaiku
//	/etc/sysctl.d/60-kaiku.conf
//	/etc/systemd/resolved.conf.d/kaiku.conf    on name servers: systemd-resolved gives up its listener on port 53, and /etc/resolv.conf names what it asks itself
//
// A deploy goes through these steps:
//
//	read      what is on every node
//	plan      what is to be done; with nothing to do, nothing is
//	prepare   all nodes at once get the binary and the files, aside; whatever fails here leaves all as it was
//	roll      control nodes, name servers and edges, in this order and few at a time:
//	          drain, wait for resolvers, activate, wait for health, undrain
//	          a node that is not well gets what it had before, and the rollout ends
//	          of control nodes, members of the running control plane come first, then new ones; then members that the fleet file does not have are taken out
//
// A removal (Remover) drains a node, stops it, deletes what .deployed lists and what the process
// wrote, and has the control plane forget it.
//
// What runs on the nodes are the shell scripts in the folder node, as root or by sudo -n. They say
// everything that they found on standard output, take data on standard input, and may be run again
// at any point: a connection that is lost is made anew, and the script is run again. A deploy that
// ended midway is no state of its own: the next one reads what is there, and /etc/kaiku/.before
// still has what was known to work.
//
// # What a deploy takes for well
//
// A node is well when its process runs the new version with the new fleet file and does what its
// roles ask of it, and when no site is worse through its edge than before its turn. The process
// tells systemd which file it has taken (STATUS=, taken.go), because a reload ends before the file
// is read.
//
// An edge is asked for each site as by a client. It is asked once more with a condition that only
// an origin can evaluate (If-Unmodified-Since): that request passes all caches and all other edges,
// which may have another configuration yet, and nothing of it is stored.
//
// A site that was not well before the deploy stops nothing. A site that is new and not well is
// reported.
package deploy
