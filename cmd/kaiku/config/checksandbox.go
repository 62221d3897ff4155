package config

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/kaiku-cdn/kaiku/deploy"
)

// checkSandbox tells of paths that kaiku.service, the unit that deploy installs, keeps the process
// from reading or writing. A node that is run in another way may have them, so that check warns and
// deploy refuses.
func (f *Fleet) checkSandbox(tell func(path, format string, a ...any)) {
	seen := map[string]bool{} // what stands once in the file is told once
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
		if path.IsAbs(e.Data) { // else it is below the unit's own folder
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

// hidden tells why the unit's process sees nothing at a path of the machine; "" if it does.
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

// unwritable tells why the unit's process can't write to a folder. Deploy makes folders that are
// not there, and gives them to it.
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

// rootFolders are on every machine, and deploy leaves them as they are.
func rootFolders() []string {
	return strings.Fields("/ /bin /boot /etc /lib /media /mnt /opt /run /sbin /srv /usr /usr/bin /usr/lib /usr/local /usr/share /var /var/cache /var/lib /var/log /var/spool /var/www")
}

// unreadable tells why the unit's process, whose user is kaiku, can't read a file.
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
