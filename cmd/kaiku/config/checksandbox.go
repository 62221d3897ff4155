package config

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/kaiku-cdn/kaiku/deploy"
)

// checkSandbox reports paths that the process can't read or write because of kaiku.service, the
// systemd unit that deploy installs. A node that is started in another way may be able to use them.
// That is why check prints warnings, but deploy refuses the file.
func (f *Fleet) checkSandbox(tell func(path, format string, a ...any)) {
	seen := map[string]bool{} // a default that applies to many nodes is reported once
	write := func(at, file, folder string) {
		if file == "" || file == "-" || seen[at] {
			return
		}
		seen[at] = true
		if why := unwritable(folder); why != "" {
			tell(at, "kaiku.service can't write %s: %s", file, why)
		}
	}
	log := func(at string, l *LogFile) {
		if l != nil {
			write(at+".file", l.File, path.Dir(NodeFile(l.File)))
		}
	}
	edge := func(at string, e Edge) {
		log(at+".access_log", e.AccessLog)
		if path.IsAbs(e.Data) { // a relative path is below the unit's own folder
			write(at+".data", e.Data, path.Clean(e.Data))
		}
	}
	edge("edge", f.Edge)
	log("geodns.query_log", f.GeoDNS.QueryLog)
	if f.GeoDNS.Data != "" {
		write("geodns.data", f.GeoDNS.Data, NodeFile(f.GeoDNS.Data))
	}
	write("control.data", f.Control.Data, NodeFile(f.Control.Data))
	for _, n := range f.Nodes {
		edge("nodes."+n.Name+".edge", n.Edge)
		write("nodes."+n.Name+".control.data", n.Control.Data, NodeFile(n.Control.Data))
	}
	for _, n := range f.namedFiles() {
		if why := unreadable(NodeFile(n.file)); why != "" {
			tell(n.at, "kaiku.service can't read %s: %s", n.file, why)
		}
	}
}

// within reports whether a path is a folder or below it.
func within(p, folder string) bool { return p == folder || strings.HasPrefix(p, folder+"/") }

// hidden returns the reason why the unit's process can't see a path, or "" if it can.
func hidden(p string) string {
	for folder, setting := range map[string]string{"/home": "ProtectHome", "/root": "ProtectHome",
		"/run/user": "ProtectHome",
		"/tmp":      "PrivateTmp", "/var/tmp": "PrivateTmp", "/dev": "PrivateDevices", "/proc": "ProtectKernelTunables",
		"/sys": "ProtectKernelTunables"} {
		if within(p, folder) && p != "/dev/null" {
			return fmt.Sprintf("%s keeps it from %s", setting, folder)
		}
	}
	return ""
}

// unwritable returns the reason why the unit's process can't write to a folder, or "" if it can.
// Deploy creates folders that don't exist and gives them to the process.
func unwritable(folder string) string {
	if why := hidden(folder); why != "" {
		return why
	}
	if err := deploy.CheckPath(folder); err != nil && folder != "/" {
		return err.Error()
	}
	if folder == NodeDir || slices.Contains(rootFolders(), folder) {
		return folder + " belongs to root: use /var/lib/kaiku, /var/log/kaiku or a folder for it alone, which deploy makes"
	}
	return ""
}

// rootFolders are folders that exist on every machine. Deploy does not change them.
func rootFolders() []string {
	return strings.Fields("/ /bin /boot /etc /lib /media /mnt /opt /run /sbin /srv /usr /usr/bin /usr/lib /usr/local /usr/share /var /var/cache /var/lib /var/log /var/spool /var/www")
}

// unreadable returns the reason why the unit's process, which runs as user kaiku, can't read a
// file, or "" if it can.
func unreadable(file string) string {
	if why := hidden(file); why != "" {
		return why
	}
	for _, folder := range []string{"/etc/letsencrypt/live", "/etc/letsencrypt/archive", "/etc/ssl/private"} {
		if within(file, folder) {
			return folder + " is for root alone: have a copy in " + NodeDir
		}
	}
	if err := deploy.CheckPath(file); err != nil {
		return err.Error()
	}
	return ""
}
