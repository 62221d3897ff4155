package node

import (
	"fmt"
	"log/slog"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
)

// checkFit checks an edge's settings against the size of the machine. A RAM tier as large as the
// machine's memory is an error, because the kernel would kill the process again and again. It logs
// a warning if the RAM tier is more than half of the memory, or if the disk budget is larger than
// the file system. A size of 0 means that it is unknown.
func checkFit(e *config.Edge, memory, disk config.Size, log *slog.Logger) error {
	switch {
	case memory == 0:
	case e.Memory >= memory:
		return fmt.Errorf("edge.memory is %s, but this machine has %s: use at most a quarter of it, such as %s",
			e.Memory.About(), memory.About(), (memory / 4).About())
	case e.Memory > memory/2:
		log.Warn("edge.memory is more than half of this machine's memory: the process may need twice edge.memory, and the kernel may kill it",
			"memory", e.Memory.About(), "machine", memory.About())
	}
	if disk != 0 && e.Disk > disk {
		log.Warn("edge.disk is larger than the file system: the cache will grow until the disk is full", "disk",
			e.Disk.About(), "file system", disk.About(), "data", e.Data)
	}
	return nil
}
