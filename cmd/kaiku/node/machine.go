package node

import (
	"fmt"
	"log/slog"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
)

// checkFit refuses an edge whose cache in memory is larger than the machine's, which the kernel
// would end again and again, and warns of one that may come to that. The sizes of the machine are 0
// where they can't be told.
func checkFit(e *config.Edge, memory, disk config.Size, log *slog.Logger) error {
	switch {
	case memory == 0:
	case e.Memory >= memory:
		return fmt.Errorf("edge.memory is %s, and this machine has %s: give the edge a quarter of it at most, as %s",
			e.Memory.About(), memory.About(), (memory / 4).About())
	case e.Memory > memory/2:
		log.Warn("edge.memory is more than half of what this machine has: the process may come to need twice that, and the kernel ends it then",
			"memory", e.Memory.About(), "machine", memory.About())
	}
	if disk != 0 && e.Disk > disk {
		log.Warn("edge.disk is more than the file system has: the cache grows until that is full", "disk",
			e.Disk.About(), "file system", disk.About(), "data", e.Data)
	}
	return nil
}
