package node

import (
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
)

// machineMemory returns the memory that the process can use in bytes: that of the machine, or the
// lowest limit of its control groups. It returns 0 if that is unknown.
func machineMemory() config.Size {
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) != nil {
		return 0
	}
	total := config.Size(info.Totalram) * config.Size(info.Unit)
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return total
	}
	_, group, _ := strings.Cut(strings.TrimSpace(string(own)), "0::")
	for strings.HasPrefix(group, "/") {
		text, _ := os.ReadFile(path.Join("/sys/fs/cgroup", group, "memory.max")) // "max" or no file means no limit
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil {
			total = min(total, config.Size(limit))
		}
		if group == "/" {
			break
		}
		group = path.Dir(group)
	}
	return total
}

// fileSystem returns the size in bytes of the file system of a folder, or of its nearest parent
// that exists. It returns 0 if that is unknown.
func fileSystem(folder string) config.Size {
	for {
		var info syscall.Statfs_t
		switch err := syscall.Statfs(folder, &info); {
		case err == nil:
			return config.Size(info.Blocks) * config.Size(info.Bsize)
		case err != syscall.ENOENT || folder == path.Dir(folder):
			return 0
		}
		folder = path.Dir(folder)
	}
}
