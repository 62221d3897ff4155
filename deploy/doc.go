// Package deploy turns machines with Debian or Ubuntu into a running fleet over SSH, and later
// brings them to another version or configuration. The machines need OpenSSH's server, systemd and
// what every Debian has.
//
// A node gets these files:
//
//	/usr/local/lib/kaiku/VERSION/kaiku  the binary, by the start of its SHA-256
//	/usr/local/bin/kaiku                symbolic link to the binary that runs
//	/etc/kaiku/                         fleet.yaml and the files that it names
//	/etc/kaiku/node                     the node's name, for commands that are run on it
//	/etc/kaiku/.deployed                paths of all files that deploy installed
//	/etc/kaiku/.next/                   staged files, while a deploy runs
//	/etc/kaiku/.before/                 the files that a deploy replaced
//	/etc/systemd/system/kaiku.service
//	/etc/systemd/system/kaiku.socket    holds the TCP listeners
//	/etc/sysctl.d/60-kaiku.conf
//	/etc/systemd/resolved.conf.d/kaiku.conf
//	/usr/share/bash-completion/completions/kaiku
//
// The previous version of the binary stays installed. Secrets have mode 0600 and owner kaiku. A
// deploy deletes .before once the node is healthy with the new files. Because kaiku.socket holds
// the TCP listeners, connections wait while the process is restarted. On name servers, the file in
// resolved.conf.d makes systemd-resolved release port 53, and /etc/resolv.conf names the upstream
// resolvers of systemd-resolved.
//
// A deploy has these steps:
//
//	read      reads the state of every node
//	plan      compares it with the desired state; ends if there is nothing to do
//	prepare   uploads the binary and stages the files on all nodes; a failure here changes nothing
//	roll      changes control nodes, then name servers, then edges, a few at a time:
//	          drain, wait for resolvers, activate, wait for health, undrain
//
// If a node is not healthy after the change, its previous version and files are restored and the
// rollout stops. Among control nodes, members of the running control plane come first, then new
// ones. Members that are not in the fleet file are removed last.
//
// A removal (Remover) drains a node, stops it, deletes the files that .deployed lists and those
// that the process wrote, and removes the node from the control plane.
//
// The shell scripts in the folder node run on the nodes, as root or with sudo -n. They print all
// results to standard output, read data from standard input, and can be run again after any
// interruption: if a connection is lost, deploy reconnects and runs the script again. An
// interrupted deploy needs no repair: the next one reads the actual state, and /etc/kaiku/.before
// still has the last files that worked.
//
// # When a node is healthy
//
// A node is healthy when three conditions hold: its process runs the new version with the new fleet
// file, it works in all its roles, and no site is worse through its edge than before the change.
// The process reports the fleet file that it runs to systemd (STATUS=, taken.go), because a reload
// ends before the file is read.
//
// For each site, the edge gets one request like a client's. It gets a second one with a condition
// that only an origin can evaluate (If-Unmodified-Since). That request passes all caches and all
// other edges, which may still have the old configuration, and its response is not stored.
//
// A site that already failed before the deploy does not stop it. A new site that fails is reported.
package deploy
